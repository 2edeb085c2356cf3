"""Where a sampler stands, read from its scheduler, and the clocks that a forecast can run on."""

from enum import StrEnum
from typing import Any

import torch
from torch import Tensor

from spectrum.errors import refuse


class Clock(StrEnum):
    """The time variable of a forecast: step index, timestep (0 to 1000), or sigma."""

    step = "step"
    timestep = "timestep"
    sigma = "sigma"


def position(scheduler: Any, timestep: Any = None) -> int:
    """The scheduler's 0-based index into its `timesteps`, without touching the device.

    A scheduler that keeps no index (DDIM) is at the timestep that its denoiser is called with, read off the device.
    """
    if not hasattr(scheduler, "step_index"):
        return _lookup(scheduler, timestep)
    if scheduler.step_index is not None:
        return scheduler.step_index
    return scheduler.begin_index or 0


def _lookup(scheduler: Any, timestep: Any) -> int:
    found = []
    if isinstance(timestep, Tensor):
        now = timestep.flatten()[0].item()
        found = [step for step, then in enumerate(scheduler.timesteps.tolist()) if then == now]
    if len(found) != 1:
        refuse(
            f"{type(scheduler).__name__} does not tell which step it is at: use a scheduler with `step_index`, for "
            "example FlowMatchEulerDiscreteScheduler or UniPCMultistepScheduler"
        )
    return found[0]


def readings(scheduler: Any, clock: Clock) -> tuple[list[float], tuple[float, float]]:
    """The clock's value at each of the scheduler's steps, and its span.

    The step clock spans (0, number of steps), as in Spectrum's code for 50. Sigmas are read from the copy that
    diffusers keeps on the CPU, and a flow model's timesteps are its sigmas times the number of training timesteps, so
    neither asks the device.
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
    """(scale of the picture, scale of the noise) in the latents at each step, their squares or they themselves summing
    to 1: `(1 - sigma, sigma)` for a flow model, else `(1, sigma) / sqrt(1 + sigma^2)`.
    """
    sigmas, (_, most) = readings(scheduler, Clock.sigma)
    if most <= 1.0:
        return [(1 - sigma, sigma) for sigma in sigmas]
    return [(1 / (1 + sigma**2) ** 0.5, sigma / (1 + sigma**2) ** 0.5) for sigma in sigmas]


def _sigmas(scheduler: Any) -> Tensor:
    """The scheduler's sigmas; of one that keeps none (DDIM), `sqrt((1 - abar) / abar)` at its timesteps."""
    if hasattr(scheduler, "sigmas"):
        return scheduler.sigmas
    kept: Tensor = scheduler.alphas_cumprod[scheduler.timesteps.cpu().to(torch.long)]
    return ((1 - kept) / kept) ** 0.5
