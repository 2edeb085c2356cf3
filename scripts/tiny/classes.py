"""The embedded class-conditional model: a DiT with an epsilon target under DDIM."""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel
from torch import Tensor, nn

from . import autoencoder, noise, scenes, vocabulary

NAMES = tuple(vocabulary.FILES)
"""The classes, in the order of their numbers."""
CLASSES = 1000
"""For how many classes there are embeddings; `DiTPipeline` takes the number behind them, 1000, for no class."""
CARD = "classes_card.md"
SEED = 4


class Denoiser(nn.Module):
    """The denoiser: 6 blocks of width 192, 5.7 M parameters, 144 tokens of 2 x 2 latents.

    Each block has class embeddings of its own, and drops labels by itself.
    """

    plain = ("embedder", "embedding", "pos_embed", "proj_out")

    def __init__(self) -> None:
        super().__init__()
        self.network = DiTTransformer2DModel(
            num_attention_heads=6,
            attention_head_dim=32,
            in_channels=autoencoder.CHANNELS,
            out_channels=autoencoder.CHANNELS,
            num_layers=6,
            sample_size=scenes.SIZE // 4,
            patch_size=2,
            num_embeds_ada_norm=CLASSES,
            attention_bias=True,
        )

    def load(self, folder: Path) -> None:
        """Take the weights of a pipeline's folder."""
        self.network = DiTTransformer2DModel.from_pretrained(folder / "transformer", torch_dtype=torch.float32)

    def conditions(self, texts: list[str]) -> Tensor:
        """The number of each class, (count,)."""
        return torch.tensor([NAMES.index(text) for text in texts])

    def noise(self, noisy: Tensor, step: Tensor, condition: Tensor) -> Tensor:
        """The predicted noise."""
        return self.network(noisy, timestep=step, class_labels=condition, return_dict=False)[0]


def scheduler() -> DDIMScheduler:
    """DiT's: 1000 training steps, betas from 1e-4 to 0.02 in a straight line."""
    return DDIMScheduler(beta_schedule="linear", clip_sample=False)


def draw(objects: noise.Objects, rng: np.random.Generator) -> tuple[str, np.ndarray]:
    """A scene with one object of any class, on any ground."""
    name = NAMES[rng.integers(0, len(NAMES))]
    return name, scenes.draw_one(objects, name, rng)


def assemble(vae: AutoencoderKL, trained: Denoiser, scale: float) -> DiTPipeline:
    """The pipeline; the latents' scale goes into the autoencoder's config, where DiT has it."""
    vae.register_to_config(shift_factor=None, scaling_factor=scale)
    labels = {str(number): name for number, name in enumerate(NAMES)}
    pipe = DiTPipeline(trained.network, vae, scheduler(), id2label=labels)  # pyright: ignore[reportArgumentType]
    pipe.register_to_config(id2label=labels)
    return pipe


def write_prompts(folder: Path) -> None:
    """Half of the classes each: `classes` for tables, `classes_calibration` to fit on."""
    folder.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(6).permutation(len(NAMES))
    for name, numbers in (("classes_calibration", order[: len(order) // 2]), ("classes", order[len(order) // 2 :])):
        (folder / f"{name}.txt").write_text("".join(f"{NAMES[number]}\n" for number in numbers))
