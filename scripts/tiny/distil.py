"""Distils the embedded model's guided trajectories into a student that samples in 4 or 8 steps with one call each."""

import copy
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxPipeline
from torch import Tensor, nn

from . import scenes
from .checkpoint import restore, save
from .denoiser import EMBEDDINGS, GRID, velocity
from .optim import optimisers, update, warmup_then_decay

STEPS = 24
"""Steps of the teacher; a multiple of those of every student, so that its sigmas are among the teacher's."""
GUIDANCE = 4.0
SEED = 4


@dataclass(frozen=True)
class Trajectories:
    """What the teacher sampled.

    Attributes:
        states: (STEPS + 1, prompts, tokens, channels) float16 packed latents, from noise to picture.
        tokens: (prompts, text tokens, width) float32, of the T5 encoder.
        pooled: (prompts, width) float32, of the CLIP encoder.
    """

    states: Tensor
    tokens: Tensor
    pooled: Tensor


def _velocity(network: nn.Module, x: Tensor, sigma: float, tokens: Tensor, pooled: Tensor) -> Tensor:
    """`denoiser.velocity` with all of the batch at one noise level, computed in bfloat16 where autocast does so."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return velocity(network, x, torch.full((len(x),), sigma), tokens, pooled).to(x.dtype)


@torch.no_grad()
def sample(pipe: FluxPipeline, count: int, path: Path, batch: int = 16) -> Trajectories:
    """Sample the teacher's trajectories by Euler steps with guidance, once: what `path` holds is gone on from.

    Args:
        pipe: the teacher.
        count: how many prompts, of pairs of object and colour that its training showed; a multiple of `batch`.
        path: where the trajectories are kept.
        batch: prompts in one call.
    """
    prompts = scenes.tuned_prompts(count, seen=True, seed=SEED)
    encode: Any = pipe.encode_prompt
    tokens, pooled, _ = encode(prompts, None, max_sequence_length=16)
    no_tokens, no_pooled, _ = encode([""], None, max_sequence_length=16)
    done: list[Tensor] = list(torch.load(path, weights_only=True)) if path.exists() else []
    began = time.time()
    for start in range(batch * len(done), count, batch):
        rows = slice(start, start + batch)
        x = torch.randn(batch, GRID * GRID, 16, generator=torch.Generator().manual_seed(start))
        both = torch.cat([tokens[rows], no_tokens.expand(batch, -1, -1)])
        both_pooled = torch.cat([pooled[rows], no_pooled.expand(batch, -1)])
        states = [x.half()]
        for step in range(STEPS):
            found = _velocity(pipe.transformer, x.repeat(2, 1, 1), 1 - step / STEPS, both, both_pooled)
            prompted, plain = found.chunk(2)
            x = x - (plain + GUIDANCE * (prompted - plain)) / STEPS
            states.append(x.half())
        done.append(torch.stack(states))
        if len(done) % 8 == 0 or start + batch == count:
            print(f"trajectories {start + batch}/{count}  {time.time() - began:.0f} s", flush=True)
            draft = path.with_suffix(".tmp")
            torch.save(done, draft)
            draft.replace(path)
    return Trajectories(torch.cat(done[: count // batch], 1), tokens, pooled)


def train(
    teacher: nn.Module, shown: Trajectories, steps: int, updates: int, path: Path, batch: int = 32, lr: float = 5e-4
) -> nn.Module:
    """Train a student whose Euler step is the teacher's way over several; returns its averaged weights.

    The loss is the squared distance of its velocity at the teacher's state `x_i` from the mean velocity of the teacher
    to the student's next step, `(x_i - x_j) / (sigma_i - sigma_j)`.

    Args:
        teacher: the network to begin with; it is not changed.
        shown: its trajectories.
        steps: the student's steps, which divide `STEPS`.
        updates: how many.
        path: the checkpoint, which is gone on from.
        batch: states of each update, all at one noise level.
        lr: the learning rate.
    """
    student, stride = copy.deepcopy(teacher).train(), STEPS // steps
    decay = torch.optim.swa_utils.get_ema_multi_avg_fn(0.99)
    average = torch.optim.swa_utils.AveragedModel(student, multi_avg_fn=decay)
    optims = optimisers(student, lr, exclude=("embedder", "proj_out", *EMBEDDINGS))
    begun = restore(path, student, average, *optims)
    began, running = time.time(), 0.0
    for number in range(begun, updates):
        g = torch.Generator().manual_seed(number)
        rows = torch.randint(0, shown.states.shape[1], (batch,), generator=g)
        at = stride * int(torch.randint(0, steps, (), generator=g))
        x, after = shown.states[at, rows].float(), shown.states[at + stride, rows].float()
        found = _velocity(student, x, 1 - at / STEPS, shown.tokens[rows], shown.pooled[rows])
        loss = (found - (x - after) * steps).square().mean()
        update(student, average, optims, loss, lr * warmup_then_decay(number, updates))
        running = 0.98 * running + 0.02 * loss.item() if number > begun else loss.item()
        if (number + 1) % 50 == 0 or number + 1 == updates:
            print(f"update {number + 1}/{updates}  loss {running:.4f}  {time.time() - began:.0f} s", flush=True)
            save(path, number + 1, student, average, *optims)
    return average.module.eval()  # pyright: ignore[reportReturnType, reportCallIssue]
