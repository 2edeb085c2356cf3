"""Training of denoisers with an epsilon target, on latents of the embedded model's autoencoder, on a CPU or a GPU."""

import functools
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor, nn

from spectrum.core.errors import refuse

from . import autoencoder
from .checkpoint import restore, save
from .optim import optimisers, update, warmup_then_decay

CHUNK = 50
"""Scenes that one worker paints at a time."""
Trained = TypeVar("Trained", bound=nn.Module)
Objects = dict[str, Image.Image]
Painter = Callable[[Objects, np.random.Generator], tuple[str, np.ndarray]]
"""Paints a scene: what it is conditioned on, as text, and its pixels, uint8 of shape (SIZE, SIZE, 3)."""


class Denoiser(Protocol):
    """What is trained: a module whose `network` predicts the noise, with what turns a condition into its input."""

    network: nn.Module
    plain: tuple[str, ...]
    """Parts of names of the parameters that AdamW trains, also where they are matrices."""

    def conditions(self, texts: list[str]) -> Tensor:
        """The texts as numbers, (count, ...) int64."""
        ...

    def noise(self, noisy: Tensor, step: Tensor, condition: Tensor) -> Tensor:
        """The predicted noise in latents (batch, 4, 24, 24) at training steps (batch,)."""
        ...


@dataclass(frozen=True)
class Pool:
    """Encoded scenes.

    Attributes:
        latents: (count, 4, 24, 24) float16, as the autoencoder has them.
        texts: what each scene is conditioned on.
        scale: what the latents are multiplied by for a standard deviation of 1.
    """

    latents: Tensor
    texts: list[str]
    scale: float


def _painted(draw: Painter, objects: Objects, seed: list[int]) -> tuple[list[str], np.ndarray]:
    rng = np.random.default_rng(seed)
    texts, pixels = zip(*(draw(objects, rng) for _ in range(CHUNK)), strict=True)
    return list(texts), np.stack(pixels)


@torch.no_grad()
def encode_pool(
    vae: AutoencoderKL, draw: Painter, objects: Objects, count: int, seed: int, path: Path, device: torch.device
) -> Pool:
    """Paint scenes on all cores and encode them, once.

    Args:
        vae: the autoencoder.
        draw: paints one scene.
        objects: the pictures to paint with.
        count: how many scenes, a multiple of 50.
        seed: of the scenes.
        path: where they are kept for the next time.
        device: where they are encoded.
    """
    if count % CHUNK:
        refuse(f"--scenes {count}: type a multiple of {CHUNK}")
    if path.exists():
        stored = torch.load(path, weights_only=True)
        if len(stored["texts"]) == count:
            return Pool(**stored)
    paint = functools.partial(_painted, draw, objects)
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("fork")) as workers:
        painted = list(workers.map(paint, [[seed, start] for start in range(0, count, CHUNK)]))
    print(f"painted {count} scenes", flush=True)
    vae.to(device)  # pyright: ignore[reportArgumentType]
    latents, texts = [], []
    for said, pixels in painted:
        x = autoencoder.to_tensor(pixels).to(device)
        latents.append(vae.encode(x).latent_dist.mode().half().cpu())  # pyright: ignore[reportAttributeAccessIssue]
        texts += said
    print("encoded", flush=True)
    vae.to("cpu")  # pyright: ignore[reportArgumentType]
    z = torch.cat(latents)
    pool = Pool(z, texts, 1 / z.float().std().item())
    draft = path.with_suffix(".tmp")
    torch.save(vars(pool), draft)
    draft.replace(path)
    return pool


def train(
    model: Trained, pool: Pool, levels: Tensor, steps: int, path: Path, batch: int, device: torch.device, compiled: bool
) -> Trained:
    """Train to predict noise, or go on from the checkpoint; returns the averaged weights.

    The average is exponential, over 500 updates or a seventh of all where that is less: a longer one would keep weights
    of the beginning.

    Args:
        model: the denoiser, a module that is a `Denoiser`.
        pool: the scenes.
        levels: the share of the signal's variance at each training step, (1000,).
        steps: how many updates.
        path: the checkpoint.
        batch: scenes for each update.
        device: where.
        compiled: whether the network is compiled.
    """
    parts: Denoiser = model  # pyright: ignore[reportAssignmentType]
    decay = torch.optim.swa_utils.get_ema_multi_avg_fn(1 - 1 / max(1, min(500, steps // 7)))
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=decay)
    model, average = model.to(device).train(), average.to(device)
    optims = optimisers(model, lr := 2e-3, exclude=parts.plain)
    start = restore(path, model, average, *optims)
    if compiled:
        parts.network.compile()
    x = (pool.latents.to(device).float() * pool.scale).contiguous()
    conditions, levels = parts.conditions(pool.texts).to(device), levels.to(device)
    began, running = time.time(), torch.zeros((), device=device)
    for step in range(start, steps):
        torch.manual_seed(step)
        loss = _loss(parts, x, conditions, levels, batch, seed=step)
        update(model, average, optims, loss, lr * warmup_then_decay(step, steps))
        running = 0.99 * running + 0.01 * loss.detach() if step > start else loss.detach()
        if (step + 1) % 50 == 0 or step + 1 == steps:
            print(f"step {step + 1}/{steps}  loss {running.item():.4f}  {time.time() - began:.0f} s", flush=True)
        if (step + 1) % 100 == 0 or step + 1 == steps:
            save(path, step + 1, model, average, *optims)
    return average.module.cpu().eval()  # pyright: ignore[reportReturnType, reportCallIssue]


def _loss(model: Denoiser, x: Tensor, conditions: Tensor, levels: Tensor, batch: int, seed: int) -> Tensor:
    g = torch.Generator(x.device).manual_seed(seed)
    rows = torch.randint(0, len(x), (batch,), generator=g, device=x.device)
    step = torch.randint(0, len(levels), (batch,), generator=g, device=x.device)
    noise = torch.randn(batch, *x.shape[1:], generator=g, device=x.device)
    kept = levels[step][:, None, None, None]
    with torch.autocast(x.device.type, dtype=torch.bfloat16):
        found = model.noise(kept.sqrt() * x[rows] + (1 - kept).sqrt() * noise, step, conditions[rows])
    return (found.float() - noise).square().mean()
