"""Makes a plan: finds the run steps, fits their weights, and tells on prompts left out what it is worth."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from spectrum.core.method import Site, Space
from spectrum.core.planned import SHARED
from spectrum.planning.evaluate import Evaluate
from spectrum.planning.fit import fitted
from spectrum.planning.gap import Prefix, Settings
from spectrum.planning.least_squares import Array, folds_of
from spectrum.planning.rollout import Rollouts
from spectrum.planning.spread import spread
from spectrum.records.files import identity
from spectrum.records.plan_file import FITTED, FORMAT, Expected, PlanFile, Setting

FOLDS = 4
"""How many parts the samples are shared into, each of which is left out of a fit once."""
Search = Callable[[Evaluate], Sequence[int]]
"""Finds the run steps: a planner with its budget, seed and parameters, or one that returns those that were typed."""


@dataclass(frozen=True)
class Made:
    """A plan, and what it is worth.

    Attributes:
        runs: the run steps.
        weights: by CFG branch, or under `""` for all: for each run step the weights of the newest features behind it.
        ridges: of each gap; 0 where nothing was fitted.
        conditions: of each gap's normal matrix; 1 where nothing was fitted.
        left_out: (samples,) PSNR to the uncached run in dB of each sample, from weights that were fitted without it.
        latents: (samples,) the same of the final latents, as signal over error.
        folds: number of folds; 1 where there was one prompt, which is then judged by its own fit, and 0 where nothing
            was judged.
        full_runs: what it cost, in uncached runs of one sample.
    """

    runs: tuple[int, ...]
    weights: dict[str, list[list[float]]]
    ridges: list[float]
    conditions: list[float]
    left_out: Array
    latents: Array
    folds: int
    full_runs: float


def make(
    evaluate: Evaluate, search: Search, begin: Callable[[int], Callable[[int], None]] | None = None, judge: bool = True
) -> Made:
    """Make a plan.

    Args:
        evaluate: scores schedules on the samples of its rollouts.
        search: finds the run steps.
        begin: is told how many folds there are; what it returns is told of each.
        judge: whether it is found out what the plan is worth, which takes as many fits as there are folds.
    """
    runs = tuple(search(evaluate))
    rollouts, settings = evaluate.rollouts, evaluate.settings
    whole, _ = evaluate.fitted(runs)
    count = sum(part.count for part in rollouts)
    prompts = settings.prompts(count)
    folds = folds_of(prompts, FOLDS) if prompts[-1] else [np.arange(0)]
    folds = folds if judge else []
    psnr, latents = np.zeros(count), np.zeros(count)
    done = begin(len(folds)) if begin else None
    for fold in folds:
        rest = tuple(int(row) for row in np.setdiff1d(np.arange(count), fold))
        own, found = fitted(rollouts, runs, dataclasses.replace(settings, train=rest))
        judged = fold if len(fold) else np.arange(count)
        psnr[judged], latents[judged] = _psnr(rollouts, own)[judged], found[judged]
        if done:
            done(1)
    gaps = [whole.gaps.get(run) for run in runs]
    return Made(
        runs=runs,
        weights=_weights(whole, settings, rollouts[0].branches),
        ridges=[gap.ridge if gap else 0.0 for gap in gaps],
        conditions=[gap.condition if gap else 1.0 for gap in gaps],
        left_out=psnr,
        latents=latents,
        folds=len(folds),
        full_runs=evaluate.full_runs + count * len(folds) * (len(runs) - 1) / evaluate.steps,
    )


def as_file(
    made: Made,
    site: Site,
    setting: Setting,
    prompts: Sequence[str],
    planner: dict[str, Any],
    made_with: dict[str, Any],
    interval: float | None = None,
    forecast: str = FITTED,
) -> PlanFile:
    """A plan as it is kept.

    Args:
        made: the plan.
        site: where features are stored.
        setting: what it was fitted for.
        prompts: those that it was fitted on.
        planner: how the run steps were found.
        made_with: versions and hardware.
        interval: half-width of the 95 % interval of the mean of `made.left_out`; None where it is not known.
        forecast: where the weights come from.
    """
    expected = Expected(float(made.left_out.mean()), interval, float(made.latents.mean()), made.folds)
    return PlanFile(
        format=FORMAT,
        run_steps=list(made.runs),
        weights=made.weights,
        site=str(site),
        space=str(Space.feature),
        setting=setting,
        prompts=identity(list(prompts)),
        samples=len(made.left_out),
        planner=planner,
        ridges=made.ridges,
        conditions=made.conditions,
        expected=expected if made.folds else None,
        full_runs=made.full_runs,
        made_with=made_with,
        forecast=forecast,
    )


def _weights(whole: Prefix, settings: Settings, branches: Sequence[str]) -> dict[str, list[list[float]]]:
    """The weights of every gap; behind a run step with no gap the newest feature, which nothing asks for."""
    names = [SHARED] if settings.shared else branches
    return {
        name: [list(whole.gaps[run].weights[name]) if run in whole.gaps else [1.0] for run in whole.runs]
        for name in names
    }


def _psnr(rollouts: Sequence[Rollouts], whole: Prefix) -> Array:
    """(samples,) PSNR of the pictures of a schedule to the uncached ones, dB."""
    pictures = spread(lambda part, own: part.pictures(own, whole.weights), rollouts, whole.features)
    return np.concatenate([psnr(own, part.images) for own, part in zip(pictures, rollouts, strict=True)])


def psnr(images: Tensor, others: Tensor) -> Array:
    """PSNR of pictures or videos in [0, 1], dB; at most 100, which two equal ones have.

    Args:
        images: (samples, ...).
        others: the same.
    """
    off = (images.double().clamp(0, 1) - others.double().clamp(0, 1)).square().flatten(1).mean(1)
    return -10 * np.log10(np.maximum(off.numpy(), 1e-10))
