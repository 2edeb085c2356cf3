"""Where a trajectory stands, read from the pipeline's scheduler: step, clock readings, noise levels.

Nothing here reads from the device while a run is under way, but for schedulers that keep no step index, and at the
first step where nothing says at which one a run begins.
"""

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spectrum.core.clock import Clock
from spectrum.core.errors import refuse


@dataclass(frozen=True)
class Mark:
    """Where a trajectory stood at its newest call.

    Attributes:
        step: the 0-based index into the scheduler's `timesteps`.
        count: how often the scheduler had stepped, where it counts that beside a timestep that it repeats (PNDM).
    """

    step: int
    count: int | None


def position(scheduler: Any, timestep: Any = None, last: Mark | None = None) -> Mark:
    """The current step: the scheduler's 0-based index into its `timesteps`.

    Args:
        scheduler: a diffusers scheduler with its timesteps set.
        timestep: the denoiser's timestep, by which the step is looked up in a scheduler that keeps no `step_index`
            (CogVideoX, DDIM, PNDM), and at the first step where nothing says where the pipeline begins. Only this reads
            from the device.
        last: where the same trajectory stood before; a timestep that is repeated is looked for from there on.

    Raises:
        SpectrumError: if the step cannot be told.
    """
    count = getattr(scheduler, "counter", None)
    if hasattr(scheduler, "step_index"):
        known = scheduler.begin_index if scheduler.step_index is None else scheduler.step_index
        return Mark(_begun(scheduler, timestep, last) if known is None else known, count)
    if last is not None and last.count is not None and count is not None:
        return Mark(last.step + count - last.count, count)
    return Mark(_looked_up(scheduler, timestep, last), count)


def _begun(scheduler: Any, timestep: Any, last: Mark | None) -> int:
    """The step before a scheduler with a `step_index` has made one: that of the timestep, else the first.

    A pipeline that never steps its scheduler, but copies of it, goes on here one step at a time, or begins anew.
    """
    before = 0 if last is None else last.step
    if timestep is None or getattr(scheduler, "num_inference_steps", None) is None:
        return before
    now = torch.as_tensor(timestep).flatten().max()
    for scale in (getattr(scheduler.config, "num_train_timesteps", 1), 1):  # flow models are given sigmas
        known = (scheduler.timesteps.to(now.dtype) if scale == 1 else scheduler.timesteps).double()
        found = torch.isclose(known, (now.to(known) * scale), rtol=1e-6, atol=0).nonzero().flatten().tolist()
        if found and (last is None or before in (found[0], found[0] - 1) or found[0] == 0):
            return found[0]
    return before


def _looked_up(scheduler: Any, timestep: Any, last: Mark | None) -> int:
    """The step of a timestep, for a scheduler that keeps no `step_index`.

    Raises:
        SpectrumError: for several timesteps, one that it does not have or has several times, and for a jump.
    """
    name, kept = type(scheduler).__name__, scheduler.timesteps
    now = torch.as_tensor(-1 if timestep is None or kept is None else timestep).flatten()
    if len(now) > 1 and bool((now != now[0]).any()):
        refuse(
            f"{name}: the denoiser is called with several timesteps at once, {now.tolist()}, and a caching method "
            "needs one: call restore(pipe)"
        )
    found = [] if kept is None else (kept.to(now.dtype) == now[0].to(kept.device)).nonzero().flatten().tolist()
    later = [index for index in found if last is None or index >= last.step] or found
    if not later:
        refuse(
            f"{name} does not tell which step it is at: use a scheduler with `step_index`, "
            "FlowMatchEulerDiscreteScheduler or UniPCMultistepScheduler, if the model allows it, or call restore(pipe)"
        )
    if len(later) > 1 and not hasattr(scheduler, "counter"):
        refuse(
            f"{name} has the timestep {now[0].item():g} several times and no `step_index`, so it cannot be told which "
            "step it is at: call restore(pipe)"
        )
    if last is not None and later[0] > last.step + 1:
        refuse(
            f"the denoiser is called at step {later[0]} of the pipeline's {name} after step {last.step}: a loop with a "
            "scheduler of its own calls it; step the pipeline's scheduler, or call restore(pipe)"
        )
    return later[0]


def steps_again(scheduler: Any, left_at: int | None) -> bool:
    """Whether a pipeline has set its scheduler back by a step, to take the same step once more.

    Cosmos 1 steps its scheduler for the picture that the denoiser sees, sets it back, and steps it with guidance: two
    calls are one step.

    Args:
        scheduler: a diffusers scheduler that is about to step.
        left_at: its `step_index` after it stepped before; None where it has not, or keeps none.
    """
    return left_at is not None and getattr(scheduler, "step_index", None) == left_at - 1


def count_of_calls(scheduler: Any, steps: int) -> int:
    """At how many timesteps a denoiser is called for a number of steps: PNDM repeats one, Heun and DPM2 nearly all.

    Args:
        scheduler: a diffusers scheduler; it is copied, not changed.
        steps: number of denoising steps, as the pipeline is asked for them.
    """
    if not hasattr(scheduler, "counter") and getattr(scheduler, "order", 1) == 1:
        return steps
    scheduler = copy.deepcopy(scheduler)
    scheduler.set_timesteps(steps)
    return len(scheduler.timesteps)


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
    count = len(scheduler.timesteps) - _is_trigflow(scheduler)
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


def _is_trigflow(scheduler: Any) -> bool:
    """Whether a scheduler's timesteps are angles (Sana-Sprint's); the last of them is the end and no step."""
    return getattr(getattr(scheduler, "config", None), "prediction_type", None) == "trigflow"


def _sigmas(scheduler: Any) -> Tensor:
    """The scheduler's sigmas; for one that keeps none (DDIM), `sqrt((1 - abar) / abar)` at its timesteps.

    The latents at an angle t are `cos t x + sin t noise`, so sigma is `sin t / (sin t + cos t)` there.
    """
    if hasattr(scheduler, "sigmas"):
        return scheduler.sigmas
    if _is_trigflow(scheduler):
        angles = scheduler.timesteps.cpu()
        return angles.sin() / (angles.sin() + angles.cos())
    if not hasattr(scheduler, "alphas_cumprod"):
        refuse(
            f"{type(scheduler).__name__} keeps no noise levels: type a method of time alone, for example "
            "method=spectrum, and method.clock=step"
        )
    kept: Tensor = scheduler.alphas_cumprod[scheduler.timesteps.cpu().to(torch.long)]
    return ((1 - kept) / kept) ** 0.5
