"""Fits the weights of a schedule in the loop, gap by gap."""

import dataclasses
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from spectrum.planning.gap import Prefix, Settings, as_numpy, errors_of, fit_gap
from spectrum.planning.least_squares import Array
from spectrum.planning.rollout import Rollouts
from spectrum.planning.spread import spread


def first(rollouts: Sequence[Rollouts]) -> Prefix:
    """The prefix of step 0 alone, which costs nothing: it is that of the uncached run."""
    return Prefix((0,), {}, tuple(part.opening for part in rollouts))


def gapped(rollouts: Sequence[Rollouts], prefix: Prefix, end: int, settings: Settings) -> Prefix:
    """A prefix with the gap from its newest run step to a step fitted; as it is, where that is the next step.

    Args:
        rollouts: the batches.
        prefix: the schedule so far.
        end: the next run step, or the number of steps.
        settings: how weights are fitted.
    """
    begin = prefix.runs[-1]
    if end == begin + 1:
        return prefix
    return dataclasses.replace(prefix, gaps={**prefix.gaps, begin: fit_gap(rollouts, prefix, end, settings)})


def extended(rollouts: Sequence[Rollouts], prefix: Prefix, step: int, settings: Settings) -> Prefix:
    """A prefix with one run step more: the gap before it is fitted, and the blocks run there.

    Args:
        rollouts: the batches.
        prefix: the schedule so far.
        step: the run step to add.
        settings: how weights are fitted.
    """
    found = gapped(rollouts, prefix, step, settings)
    own = spread(lambda part, features: part.run(features, found.weights, step), rollouts, found.features)
    return Prefix((*found.runs, step), found.gaps, tuple(own))


def ended(rollouts: Sequence[Rollouts], prefix: Prefix, end: int, settings: Settings) -> tuple[Prefix, Array]:
    """A prefix with its last gap fitted, and the error of each sample where it ends.

    Args:
        rollouts: the batches.
        prefix: the schedule with all its run steps.
        end: the number of steps; or an earlier one, to see what it is given.
        settings: how weights are fitted.

    Returns:
        The prefix, and (samples,) the mean squared error of the latents there.
    """
    whole = gapped(rollouts, prefix, end, settings)
    if whole is not prefix:
        return whole, whole.gaps[prefix.runs[-1]].landed
    found = spread(lambda part, own: part.latents(own, whole.weights, [end]), rollouts, whole.features)
    latents = [[as_numpy(own[0])] for own in found]
    return whole, errors_of(latents, [as_numpy(part.reference[end]) for part in rollouts])


def decibels(errors: Array, rollouts: Sequence[Rollouts], end: int = -1) -> Array:
    """The latents' signal over their error, in dB: `10 log10(mean x*^2 / mean (x - x*)^2)` of each sample.

    Args:
        errors: (samples,) mean squared errors.
        rollouts: the batches.
        end: the step that is given the latents; by default they are the final ones.
    """
    power = np.concatenate([(as_numpy(part.reference[end]) ** 2).mean(1) for part in rollouts])
    return 10 * np.log10(power / np.maximum(errors, 1e-30))


def fitted(rollouts: Sequence[Rollouts], runs: Sequence[int], settings: Settings) -> tuple[Prefix, Array]:
    """Fit the weights of a schedule.

    Args:
        rollouts: the batches.
        runs: the run steps; the first is 0.
        settings: how weights are fitted.

    Returns:
        The whole prefix, and (samples,) dB of the final latents, see `decibels`.
    """
    prefix = first(rollouts)
    for _, step in pairwise(runs):
        prefix = extended(rollouts, prefix, step, settings)
    whole, errors = ended(rollouts, prefix, rollouts[0].steps, settings)
    return whole, decibels(errors, rollouts)
