"""Where a trajectory stands, read from the pipeline's scheduler: step, clock readings, noise levels.

Nothing here reads from the device while a run is under way, but for schedulers that keep no step index.
"""

import copy
import math
from typing import Any

import torch
from torch import Tensor

from spectrum.core.clock import Clock
from spectrum.core.errors import refuse


def position(scheduler: Any, timestep: Any = None) -> int:
    """The current step: the scheduler's 0-based index into its `timesteps`.

    Args:
        scheduler: a diffusers scheduler with its timesteps set.
        timestep: the denoiser's timestep, by which the step is looked up in a scheduler that keeps no `step_index`
            (CogVideoX, DDIM). Only this reads from the device.

    Raises:
        SpectrumError: if the step cannot be told.
    """
    if hasattr(scheduler, "step_index"):
        return scheduler.step_index if scheduler.step_index is not None else scheduler.begin_index or 0
    now = torch.as_tensor(-1 if timestep is None else timestep).flatten()[0]
    found = (scheduler.timesteps == now.to(scheduler.timesteps.device)).nonzero()
    if not len(found):
        refuse(
            f"{type(scheduler).__name__} does not tell which step it is at: use a scheduler with `step_index`, for "
            "example FlowMatchEulerDiscreteScheduler or UniPCMultistepScheduler"
        )
    return int(found[0])


def starts(scheduler: Any, boundary: float | None, steps: int) -> list[int]:
    """The steps at which a denoiser takes over: the first, and where Wan 2.2's second expert begins.

    Args:
        scheduler: a diffusers scheduler; it is copied, not changed.
        boundary: the pipeline's `boundary_ratio`, a share of the training timesteps: the second denoiser begins at the
            first timestep below it. None for a pipeline with one denoiser.
        steps: number of denoising steps.
    """
    if boundary is None:
        return [0]
    scheduler = copy.deepcopy(scheduler)
    scheduler.set_timesteps(steps)
    first = int((scheduler.timesteps >= boundary * scheduler.config.num_train_timesteps).sum())
    return [0, first] if 0 < first < steps else [0]


def readings(scheduler: Any, clock: Clock) -> tuple[list[float], tuple[float, float]]:
    """The clock's reading at each step, and its span.

    The step clock spans (0, number of steps), as in Spectrum's code for 50 steps. Sigmas are read from the copy that
    diffusers keeps on the CPU; a flow model's timesteps are its sigmas times the number of training timesteps.

    Args:
        scheduler: a diffusers scheduler with its timesteps set.
        clock: the clock to read.

    Returns:
        (one reading for each step, (first, last) of the clock's range).
    """
    count = len(scheduler.timesteps)
    if clock is Clock.step:
        return [float(s) for s in range(count)], (0.0, float(count))
    sigmas = [float(s) for s in _sigmas(scheduler)[:count].tolist()]
    flow = max(sigmas) <= 1.0 + 1e-6
    if clock is Clock.sigma:
        return sigmas, (0.0, 1.0 if flow else max(sigmas))
    scale = float(scheduler.config.num_train_timesteps)
    return [s * scale for s in sigmas] if flow else [float(t) for t in scheduler.timesteps.tolist()], (0.0, scale)


def levels(scheduler: Any) -> list[tuple[float, float]]:
    """(scale of the picture, scale of the noise) in the latents at each step.

    `(1 - sigma, sigma)` for a flow model, else `(1, sigma) / sqrt(1 + sigma^2)`, which is also right for the infinite
    sigma of a terminal SNR of zero.
    """
    sigmas, (_, most) = readings(scheduler, Clock.sigma)
    if most <= 1.0:
        return [(1 - sigma, sigma) for sigma in sigmas]
    return [(math.cos(math.atan(sigma)), math.sin(math.atan(sigma))) for sigma in sigmas]


def _sigmas(scheduler: Any) -> Tensor:
    """The scheduler's sigmas; for one that keeps none (DDIM), `sqrt((1 - abar) / abar)` at its timesteps."""
    if hasattr(scheduler, "sigmas"):
        return scheduler.sigmas
    kept: Tensor = scheduler.alphas_cumprod[scheduler.timesteps.cpu().to(torch.long)]
    return ((1 - kept) / kept) ** 0.5
