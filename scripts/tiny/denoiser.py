"""Training of the embedded model's FLUX transformer with its two text encoders, by flow matching on stored latents."""

import time
from pathlib import Path
from typing import cast

import numpy as np
import torch
from diffusers import AutoencoderKL, FluxPipeline, FluxTransformer2DModel
from PIL import Image
from torch import Tensor, nn

from . import autoencoder, scenes, text
from .checkpoint import restore, save
from .optim import optimisers, update, warmup_then_decay

GRID = scenes.SIZE // 4 // 2
EMBEDDINGS = ("embedder", "transformer.proj_out", "shared", "embedding", "relative_attention_bias")


class Denoiser(nn.Module):
    """The three modules that train together: FLUX transformer (5.7 M), CLIP (0.5 M) and T5 (0.6 M) text encoders."""

    def __init__(self) -> None:
        super().__init__()
        words = text.words()
        self.clip_tokenizer, self.t5_tokenizer = text.clip_tokenizer(words), text.t5_tokenizer(words)
        self.clip, self.t5 = text.clip_encoder(self.clip_tokenizer), text.t5_encoder(self.t5_tokenizer)
        self.transformer = FluxTransformer2DModel(
            in_channels=4 * autoencoder.CHANNELS,
            num_layers=2,
            num_single_layers=5,
            attention_head_dim=32,
            num_attention_heads=6,
            joint_attention_dim=text.WIDTH,
            pooled_projection_dim=text.WIDTH,
            guidance_embeds=False,
            axes_dims_rope=(4, 14, 14),
        )

    def tokens(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """CLIP ids (batch, 24) and T5 ids (batch, 16), padded as `FluxPipeline` pads them."""
        pad = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
        clip = self.clip_tokenizer(captions, max_length=text.CLIP_TOKENS, **pad).input_ids
        return clip, self.t5_tokenizer(captions, max_length=text.T5_TOKENS, **pad).input_ids

    def velocity(self, core: nn.Module, x: Tensor, sigma: Tensor, clip_ids: Tensor, t5_ids: Tensor) -> Tensor:
        """Velocity of packed latents x (batch, GRID^2, 16) at noise level sigma (batch,) in [0, 1]."""
        return velocity(core, x, sigma, self.t5(t5_ids)[0], self.clip(clip_ids).pooler_output)


def velocity(core: nn.Module, x: Tensor, sigma: Tensor, tokens: Tensor, pooled: Tensor) -> Tensor:
    """A FLUX transformer's velocity, (batch, GRID^2, 16), of packed latents.

    Args:
        core: the transformer.
        x: (batch, GRID^2, 16) packed latents.
        sigma: (batch,) noise levels in [0, 1].
        tokens: (batch, text tokens, width), of the T5 encoder.
        pooled: (batch, width), of the CLIP encoder.
    """
    return core(
        hidden_states=x,
        timestep=sigma,
        pooled_projections=pooled,
        encoder_hidden_states=tokens,
        img_ids=FluxPipeline._prepare_latent_image_ids(len(x), GRID, GRID, x.device, torch.float32),
        txt_ids=torch.zeros(tokens.shape[1], 3),
        return_dict=False,
    )[0]


@torch.no_grad()
def encode_pool(vae: AutoencoderKL, objects: dict[str, Image.Image], count: int, work: Path) -> dict:
    """Paint and encode `count` scenes once: latents (count, 4, 24, 24) fp16, captions, the latents' mean and scale."""
    path = work / "pool.pt"
    if path.exists():
        pool = torch.load(path, weights_only=True)
        if len(pool["captions"]) == count:
            return pool
    latents, captions = [], []
    for start in range(0, count, 50):
        rng = np.random.default_rng([2, start])
        batch = [scenes.draw(objects, rng) for _ in range(50)]
        captions += [scene.caption for scene in batch]
        x = autoencoder.to_tensor(np.stack([scene.pixels for scene in batch]))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            latents.append(vae.encode(x).latent_dist.mode().half())  # pyright: ignore[reportAttributeAccessIssue]
        if start % 5000 == 0:
            print(f"pool {start}/{count}", flush=True)
    z = torch.cat(latents)
    shift, scale = z.float().mean().item(), 1 / z.float().std().item()
    pool = {"latents": z, "captions": captions, "shift": shift, "scale": scale}
    torch.save(pool, path)
    return pool


def _loss(model: Denoiser, core: nn.Module, x0: Tensor, clip_ids: Tensor, t5_ids: Tensor, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    sigma = torch.sigmoid(torch.randn(len(x0), generator=g) + 0.2)
    noise = torch.randn(x0.shape, generator=g)
    s = sigma[:, None, None]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        v = model.velocity(core, (1 - s) * x0 + s * noise, sigma, clip_ids, t5_ids)
    return (v.float() - (noise - x0)).square().mean()


def train(
    pool: dict, steps: int, work: Path, batch: int = 64, lr: float = 2e-3, drop: float = 0.1, compiled: bool = True
) -> Denoiser:
    """Train, or go on from `work/denoiser.pt`; returns the averaged weights. `drop` of the captions are emptied."""
    torch.manual_seed(0)
    model = Denoiser()
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.998))
    optims = optimisers(model, lr, exclude=EMBEDDINGS)
    start = restore(work / "denoiser.pt", model, average, *optims)
    model.transformer.set_attention_backend("_native_math")
    core: nn.Module = torch.compile(model.transformer) if compiled else model.transformer  # pyright: ignore
    latents = (pool["latents"].float() - pool["shift"]) * pool["scale"]
    latents = FluxPipeline._pack_latents(latents, len(latents), autoencoder.CHANNELS, 2 * GRID, 2 * GRID)
    clip_ids, t5_ids = model.tokens(pool["captions"])
    no_clip, no_t5 = model.tokens([""])
    began, running = time.time(), 0.0
    for step in range(start, steps):
        rng = np.random.default_rng([3, step])
        rows = torch.from_numpy(rng.integers(0, len(latents), batch))
        empty = torch.from_numpy(rng.random(batch) < drop)[:, None]
        ids = torch.where(empty, no_clip, clip_ids[rows]), torch.where(empty, no_t5, t5_ids[rows])
        loss = _loss(model, core, latents[rows], *ids, seed=step)  # pyright: ignore[reportArgumentType]
        update(model, average, optims, loss, lr * warmup_then_decay(step, steps))
        running = 0.99 * running + 0.01 * loss.item() if running else loss.item()
        if (step + 1) % 100 == 0 or step + 1 == steps:
            print(f"denoiser {step + 1}/{steps}  loss {running:.4f}  {time.time() - began:.0f} s", flush=True)
            save(work / "denoiser.pt", step + 1, model, average, *optims)
    return cast(Denoiser, average.module)
