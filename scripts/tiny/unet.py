"""The embedded UNet: a Stable Diffusion pipeline at toy width, with an epsilon target under Euler's method."""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel

from . import autoencoder, noise, scenes, text

CARD = "unet_card.md"
SEED = 7
DROPPED = 0.1
"""The share of captions that are emptied in training."""


class Denoiser(nn.Module):
    """A UNet of widths 64 and 128 (6.3 M parameters) and the CLIP text encoder (0.5 M) that trains with it."""

    plain = ("conv_in", "conv_out", "embedding")
    empty: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.tokenizer = text.clip_tokenizer(text.words())
        self.clip = text.clip_encoder(self.tokenizer)
        self.network = UNet2DConditionModel(
            sample_size=scenes.SIZE // 4,
            in_channels=autoencoder.CHANNELS,
            out_channels=autoencoder.CHANNELS,
            block_out_channels=(64, 128),
            layers_per_block=2,
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=text.WIDTH,
            attention_head_dim=4,
            norm_num_groups=16,
        )
        self.register_buffer("empty", self.conditions([""]), persistent=False)

    def load(self, folder: Path) -> None:
        """Take the weights of a pipeline's folder."""
        self.network = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32)
        self.clip = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)

    def conditions(self, texts: list[str]) -> Tensor:
        """CLIP ids (count, 24), padded as the pipeline pads them."""
        pad = {"padding": "max_length", "truncation": True, "return_tensors": "pt", "max_length": text.CLIP_TOKENS}
        return self.tokenizer(texts, **pad).input_ids

    def noise(self, noisy: Tensor, step: Tensor, condition: Tensor) -> Tensor:
        """The predicted noise; some captions are emptied."""
        emptied = torch.rand(len(noisy), 1, device=noisy.device) < DROPPED
        words = self.clip(torch.where(emptied, self.empty, condition))[0]
        return self.network(noisy, step, words, return_dict=False)[0]


def scheduler() -> EulerDiscreteScheduler:
    """SDXL's: Euler's method, 1000 training steps, betas whose roots go from 0.00085 to 0.012 in a straight line."""
    return EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing="leading",
        steps_offset=1,
    )


def draw(objects: noise.Objects, rng: np.random.Generator) -> tuple[str, np.ndarray]:
    """A scene such as the embedded model is trained on."""
    scene = scenes.draw(objects, rng)
    return scene.caption, scene.pixels


def assemble(vae: AutoencoderKL, trained: Denoiser, scale: float) -> StableDiffusionPipeline:
    """The pipeline; the latents' scale goes into the autoencoder's config, where Stable Diffusion has it."""
    vae.register_to_config(shift_factor=None, scaling_factor=scale)
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=trained.clip,
        tokenizer=trained.tokenizer,
        unet=trained.network,
        scheduler=scheduler(),  # pyright: ignore[reportArgumentType]
        safety_checker=None,  # pyright: ignore[reportArgumentType]
        feature_extractor=None,  # pyright: ignore[reportArgumentType]
        requires_safety_checker=False,
    )


def write_prompts(folder: Path) -> None:
    """None of its own: it takes those of the embedded model."""
