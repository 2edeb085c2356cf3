"""Training of the embedded model's AutoencoderKL: 96-pixel scenes to 24x24 latents of 4 channels."""

import time
from pathlib import Path
from typing import cast

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor

from . import scenes
from .checkpoint import restore, save
from .optim import optimisers, update, warmup_then_decay

WIDTHS = (16, 32, 64)
CHANNELS = 4
CROP = 64


def build() -> AutoencoderKL:
    """The untrained autoencoder, 0.65 M parameters, factor 4, no attention so that it trains on crops."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        block_out_channels=WIDTHS,  # pyright: ignore[reportArgumentType]
        down_block_types=("DownEncoderBlock2D",) * len(WIDTHS),  # pyright: ignore[reportArgumentType]
        up_block_types=("UpDecoderBlock2D",) * len(WIDTHS),  # pyright: ignore[reportArgumentType]
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=8,
        sample_size=scenes.SIZE,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    )


def to_tensor(pixels: np.ndarray) -> Tensor:
    """(batch, height, width, 3) uint8 to (batch, 3, height, width) float32 in [-1, 1]."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def _crops(objects: dict[str, Image.Image], count: int, rng: np.random.Generator) -> Tensor:
    batch = []
    for _ in range(count):
        y, x = rng.integers(0, scenes.SIZE - CROP + 1, 2)
        batch.append(scenes.draw(objects, rng).pixels[y : y + CROP, x : x + CROP])
    return to_tensor(np.stack(batch))


def loss_of(vae: AutoencoderKL, x: Tensor, kl_weight: float = 1e-5) -> tuple[Tensor, Tensor]:
    """(training loss, mean squared error): L1 + 4 MSE + KL of the posterior per latent."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        posterior = vae.encode(x).latent_dist  # pyright: ignore[reportAttributeAccessIssue]
        y = vae.decode(posterior.sample()).sample  # pyright: ignore[reportAttributeAccessIssue]
    y = y.float()
    mse = (y - x).square().mean()
    kl = posterior.kl().mean() / x[0].numel()
    return (y - x).abs().mean() + 4 * mse + kl_weight * kl, mse


def train(objects: dict[str, Image.Image], steps: int, work: Path, lr: float = 3e-3, batch: int = 16) -> AutoencoderKL:
    """Train, or go on from `work/vae.pt`, and return the weights averaged over the run's last steps."""
    torch.manual_seed(0)
    vae = build()
    average = torch.optim.swa_utils.AveragedModel(vae, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.998))
    optims = optimisers(vae, lr, exclude=("conv_in", "conv_out"))
    start = restore(work / "vae.pt", vae, average, *optims)
    began, running = time.time(), 0.0
    for step in range(start, steps):
        rng = np.random.default_rng([1, step])
        loss, mse = loss_of(vae, _crops(objects, batch, rng))
        update(vae, average, optims, loss, lr * warmup_then_decay(step, steps))
        running = 0.98 * running + 0.02 * mse.item() if running else mse.item()
        if (step + 1) % 100 == 0 or step + 1 == steps:
            psnr = 10 * np.log10(4 / running)
            print(f"vae {step + 1}/{steps}  PSNR {psnr:.2f} dB  {time.time() - began:.0f} s", flush=True)
            save(work / "vae.pt", step + 1, vae, average, *optims)
    return cast(AutoencoderKL, average.module)
