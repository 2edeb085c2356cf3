"""Training of the embedded class-conditional DiT, with an epsilon target, on the embedded autoencoder's latents."""

import time
from pathlib import Path
from typing import cast

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel
from PIL import Image
from torch import Tensor, nn

from . import autoencoder, scenes, vocabulary
from .checkpoint import restore, save
from .optim import optimisers, set_lr, warmup_then_decay

NAMES = tuple(vocabulary.FILES)
"""The classes, in the order of their numbers."""
CLASSES = 1000
"""Rows of the class embeddings: `DiTPipeline` takes number 1000 for no class."""
EMBEDDINGS = ("embedder", "embedding", "pos_embed", "proj_out")


def transformer() -> DiTTransformer2DModel:
    """The untrained denoiser: 6 blocks of width 192, 5.7 M parameters, 144 tokens of 2 x 2 latents."""
    return DiTTransformer2DModel(
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


def scheduler() -> DDIMScheduler:
    """DiT's: 1000 training steps, betas from 1e-4 to 0.02 in a straight line."""
    return DDIMScheduler(beta_schedule="linear", clip_sample=False)


@torch.no_grad()
def encode_pool(vae: AutoencoderKL, objects: dict[str, Image.Image], count: int, work: Path) -> dict:
    """Paint and encode `count` scenes of one object once: latents (count, 4, 24, 24) fp16, class numbers (count,)."""
    path = work / "classes_pool.pt"
    if path.exists():
        pool = torch.load(path, weights_only=True)
        if len(pool["labels"]) == count:
            return pool
    latents, labels = [], []
    for start in range(0, count, 50):
        rng = np.random.default_rng([4, start])
        numbers = rng.integers(0, len(NAMES), 50)
        pixels = [scenes.draw_one(objects, NAMES[number], rng) for number in numbers]
        x = autoencoder.to_tensor(np.stack(pixels))
        latents.append(vae.encode(x).latent_dist.mode().half())  # pyright: ignore[reportAttributeAccessIssue]
        labels += numbers.tolist()
        if start % 2000 == 0:
            print(f"pool {start}/{count}", flush=True)
    z = torch.cat(latents)
    pool = {"latents": z, "labels": torch.tensor(labels), "scale": 1 / z.float().std().item()}
    torch.save(pool, path)
    return pool


def _loss(core: nn.Module, x0: Tensor, labels: Tensor, levels: Tensor, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    step = torch.randint(0, len(levels), (len(x0),), generator=g)
    noise = torch.randn(x0.shape, generator=g)
    kept = levels[step][:, None, None, None]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = core(kept.sqrt() * x0 + (1 - kept).sqrt() * noise, timestep=step, class_labels=labels).sample
    return (found.float() - noise).square().mean()


def train(
    pool: dict, steps: int, work: Path, batch: int = 64, lr: float = 2e-3, compiled: bool = True
) -> DiTTransformer2DModel:
    """Train, or go on from `work/classes.pt`; returns the averaged weights. A tenth of the labels is dropped by DiT."""
    torch.manual_seed(0)
    model = transformer().train()
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.998))
    optims = optimisers(model, lr, exclude=EMBEDDINGS)
    start = restore(work / "classes.pt", model, average, *optims)
    model.set_attention_backend("_native_math")
    core: nn.Module = torch.compile(model) if compiled else model  # pyright: ignore[reportAssignmentType]
    latents, levels = pool["latents"].float() * pool["scale"], scheduler().alphas_cumprod
    began, running = time.time(), 0.0
    for step in range(start, steps):
        torch.manual_seed(step)
        rows = torch.from_numpy(np.random.default_rng([5, step]).integers(0, len(latents), batch))
        loss = _loss(core, latents[rows], pool["labels"][rows], levels, seed=step)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        set_lr(optims, lr * warmup_then_decay(step, steps))
        for optim in optims:
            optim.step()
            optim.zero_grad()
        average.update_parameters(model)
        running = 0.99 * running + 0.01 * loss.item() if running else loss.item()
        if (step + 1) % 100 == 0 or step + 1 == steps:
            print(f"classes {step + 1}/{steps}  loss {running:.4f}  {time.time() - began:.0f} s", flush=True)
            save(work / "classes.pt", step + 1, model, average, *optims)
    return cast(DiTTransformer2DModel, average.module).eval()


def assemble(vae: AutoencoderKL, trained: DiTTransformer2DModel, scale: float) -> DiTPipeline:
    """The pipeline; the latents' scale goes into the autoencoder's config, where DiT has it."""
    vae.register_to_config(shift_factor=None, scaling_factor=scale)
    labels = {str(number): name for number, name in enumerate(NAMES)}
    return DiTPipeline(trained, vae, scheduler(), id2label=labels)  # pyright: ignore[reportArgumentType]
