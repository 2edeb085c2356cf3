"""Measures by how much an error in the latents of a step grows to the end, and the inner products of a trajectory."""

import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from spectrum.core.errors import refuse
from spectrum.planning.least_squares import Array
from spectrum.planning.rollout import Rollouts
from spectrum.planning.spread import spread

PROBES = 8
"""At how many steps the gain is measured; between them its logarithm is interpolated."""
PROBED = 4
"""On how many samples, at least, as far as there are so many."""
CHUNK = 1 << 18
"""Elements that are turned to float64 at once."""


def probed_steps(steps: int) -> list[int]:
    """The steps at which the gain is measured, denser at the beginning.

    Example:
        >>> probed_steps(50)
        [2, 3, 6, 11, 17, 26, 37, 49]
    """
    last = max(0, steps - 3)
    return sorted({min(steps - 1, 2 + round(last * (n / (PROBES - 1)) ** 2)) for n in range(PROBES)})


def probed(rollouts: Sequence[Rollouts]) -> list[Rollouts]:
    """The first batches, as far as they hold `PROBED` samples."""
    found: list[Rollouts] = []
    for part in rollouts:
        if sum(own.count for own in found) < PROBED:
            found.append(part)
    return found


def probe_cost(rollouts: Sequence[Rollouts]) -> float:
    """What measuring the gain costs, in uncached runs of one sample."""
    steps = rollouts[0].steps
    return sum(part.count for part in probed(rollouts)) * sum(steps - step for step in probed_steps(steps)) / steps


def gain_of(rollouts: Sequence[Rollouts]) -> Array:
    """By how much an error in the latents that a step is given has grown at the end.

    The error at a step is that of reusing the velocity of the step before the last: `dsigma_{s-1} (v_{s-2} - v_{s-1})`.

    Args:
        rollouts: the batches.

    Returns:
        (steps + 1,) the mean over samples of `||error at the end|| / ||error at the step||`. It is above their typical
        value, for some samples an early error turns into another picture, and those are to be avoided.
    """
    parts, at = probed(rollouts), probed_steps(rollouts[0].steps)
    if rollouts[0].steps < 3:
        refuse(f"{rollouts[0].steps} steps are too few to measure how errors grow: type planner=given")
    if rollouts[0].remembers:
        refuse("the solver remembers earlier steps, so an error cannot be put in at one: type planner=path")
    logs = []
    for step in at:
        grown = spread(functools.partial(_grown, step=step), parts)
        logs.append(np.log(np.maximum(np.concatenate(grown).mean(), 1e-6)))
    return np.exp(np.interp(np.arange(rollouts[0].steps + 1), at, logs))


def _grown(part: Rollouts, step: int) -> Array:
    """Of each sample by how much the error of reuse at a step has grown at the end."""
    before, here, there = part.reference[step - 2 : step + 1]
    moves = part.moves[step - 2 : step]
    return part.growth(step, float(moves[1] / moves[0]) * (here - before) - (there - here))


def products_of(rollouts: Sequence[Rollouts]) -> Array:
    """The inner products of the uncached latents of all samples, see `gram_of`."""
    return np.concatenate([gram_of(part.reference) for part in rollouts])


def gram_of(latents: Sequence[Tensor]) -> Array:
    """The inner products of the latents of each sample.

    Args:
        latents: of each step, (samples, elements).

    Returns:
        (samples, steps, steps) float64.
    """
    whole = torch.stack(list(latents), 1)
    found = torch.zeros(whole.shape[0], whole.shape[1], whole.shape[1], dtype=torch.float64)
    for first in range(0, whole.shape[2], CHUNK):
        part = whole[:, :, first : first + CHUNK].double()
        found += part @ part.transpose(1, 2)
    return found.numpy()
