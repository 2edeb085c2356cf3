"""Which CFG branch a call of the denoiser belongs to.

A pipeline that opens a cache context for each branch names it. Else the calls of one step are told apart by what they
are conditioned on, and among those with the same condition by their order.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spectrum.core.errors import refuse
from spectrum.hooks.layout import Denoiser, Source
from spectrum.hooks.step import DenoiserCall
from spectrum.hooks.tensors import latents_name, moves, tensors_in, time_of
from spectrum.hooks.trajectory import Branch, Trajectory

MOST_BRANCHES = 8
MOST_LATE = 3
"""Branches that begin after the first step: guidance that sets in, another size. More would run mostly uncached."""


@dataclass(frozen=True)
class Caller:
    """What is known of the branch that a call belongs to.

    Attributes:
        denoiser: the name of the denoiser's class.
        name: the branch's name, if the pipeline gives it one.
        condition: what it is conditioned on.
        kinds: `DenoiserCall.kinds`: shapes, settings, what is left out, and layers that are changed.
        time: the timestep that the denoiser is given.
    """

    denoiser: str
    name: str | None
    condition: tuple[Any, ...]
    kinds: tuple[Any, ...]
    time: Any


def caller(denoiser: str, name: str | None, call: DenoiserCall, layout: Denoiser | None) -> Caller:
    """What is known of the branch that a call belongs to.

    Args:
        denoiser: the name of the denoiser's class.
        name: the branch's name, if the pipeline gives it one.
        call: the call.
        layout: names the argument that tells branches apart. Where none is given, or it was found by tracing, every
            tensor is a condition, but latents and timesteps.
    """
    inputs = call.inputs
    if layout is None or layout.source is Source.traced:
        latents = latents_name(inputs)
        kept = {key: value for key, value in inputs.items() if key not in (latents, "self") and not moves(key)}
        condition = tuple(tensor for _, tensor in tensors_in(kept))
    else:
        value = inputs.get(layout.condition) if layout.condition else None
        condition = tuple(value) if isinstance(value, list) else (value,)
    return Caller(denoiser, name, condition, call.kinds, time_of(inputs))


def find_branch(trajectory: Trajectory, who: Caller, step: int) -> Branch | None:
    """The branch that a call belongs to; None if it begins one.

    A branch has one call a step. What begins with tensors of another size, or with other settings (layers that are
    skipped), has a history of its own, since its feature cannot be forecast from those of another way.

    Args:
        trajectory: the run.
        who: what is known of the branch.
        step: the step.

    Raises:
        SpectrumError: if a named branch is called twice at a step, one of several calls with one condition is left out,
            a call at another timestep begins a branch within a step, or too many branches begin.
    """
    alike = [branch for branch in trajectory.branches if (branch.key, branch.kinds) == (who.name, who.kinds)]
    if who.name is not None and any(branch.last == step for branch in alike):
        refuse(
            f"the denoiser was called twice at step {step} for the CFG branch {who.name} (a scheduler that repeats a "
            "step, frames with timesteps of their own as with ar_step=5, or a loop of one's own): caching cannot tell "
            "the calls apart, so switch that off, or call restore(pipe)"
        )
    free = [branch for branch in alike if branch.last != step]
    before, trajectory.time = trajectory.time, (step, who.time)
    for same in (_identical, _equal):
        found = [branch for branch in free if same(branch.condition, who.condition)]
        if len({branch.last for branch in found}) > 1 and who.name is None:
            refuse(
                f"{who.denoiser} was called {len(found)} times a step with one condition, and at a step before {step} "
                "fewer times, so it cannot be told which call was left out: make as many at each step"
            )
        if found:
            return found[0]
    _check_time(before, who, step)
    return _check_room(trajectory, who, step)


def _check_room(trajectory: Trajectory, who: Caller, step: int) -> None:
    """Refuse to begin one branch more than `MOST_BRANCHES`, or one more than `MOST_LATE` after the first step."""
    first = min((branch.origin for branch in trajectory.branches), default=step)
    late = sum(branch.origin > first for branch in trajectory.branches)
    if len(trajectory.branches) >= MOST_BRANCHES or (step > first and late >= MOST_LATE):
        calls = sum(branch.last == step for branch in trajectory.branches) + 1
        refuse(
            f"{who.denoiser} was called in {len(trajectory.branches) + 1} different ways by step {step} ({calls} of "
            "them at this step), so its CFG branches cannot be told apart: what it is conditioned on changes from step "
            "to step, or a loop of one's own does not step the pipeline's scheduler. Give Denoiser(condition=...) the "
            "argument that tells them apart"
        )


def _check_time(before: tuple[int, Any], who: Caller, step: int) -> None:
    """Refuse a branch that begins at another timestep than the call before it, at one step of the scheduler.

    Args:
        before: (step, timestep) of the call before.
        who: what is known of the branch.
        step: the step.
    """
    at, time = before
    if at == step and time is not None and who.time is not None and not _same_time(time, who.time):
        refuse(
            f"{who.denoiser} was called with another timestep at the same step {step} of the pipeline's scheduler: a "
            "loop with a scheduler of its own, or a solver with several calls a step: step the pipeline's scheduler, "
            "or call restore(pipe)"
        )


def _same_time(one: Any, other: Any) -> bool:
    first, second = (torch.as_tensor(value).flatten() for value in (one, other))
    return bool((first[:1].to(second.device) == second[:1]).all())


def _identical(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    """Whether two conditions are the same objects."""
    return len(one) == len(other) and all(a is b for a, b in zip(one, other, strict=True))


def _equal(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    """Whether two conditions have the same values: pipelines make embeddings anew at each step (slices, casts)."""
    return len(one) == len(other) and all(a is b or _alike(a, b) for a, b in zip(one, other, strict=True))


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other.to(one.device))
    return False
