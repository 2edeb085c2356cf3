"""Fits what data-dependent methods need on a model: their parameters, and thresholds by number of runs."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from spectrum.api import Accelerated, denoisers
from spectrum.bench.fits import FITS
from spectrum.bench.generate import sample_report
from spectrum.bench.prompts import Sample, numbered_samples, read_prompts
from spectrum.bench.sampling import sample_batch
from spectrum.config.methods import build_method
from spectrum.config.sampling import Sampling
from spectrum.config.schema import RunConfig
from spectrum.core.errors import refuse
from spectrum.core.method import Method
from spectrum.core.schedule import always, plan
from spectrum.models.identity import model_identity
from spectrum.records.files import identity

TRIES = 11
"""How many thresholds are tried for a budget, at most."""
CLOSE = 0.1
"""How near to its budget a mean number of runs is near enough."""
CAPS = range(1, 16)
LIMITS = (0.0, *np.geomspace(1e-3, 4, 60).tolist())


Begin = Callable[[str, int], Callable[[int], None]]
"""Called with a stage's name and its number of sample steps; what it returns is told how many more of them are done."""


def mean_runs(
    pipe: Any,
    grid: list[list[Sample]],
    sampling: Sampling,
    method: Method,
    on_step: Callable[[int], None] = lambda count: None,
) -> float:
    """Sample some batches with a method, and count.

    Args:
        pipe: a diffusers pipeline.
        grid: the batches of samples.
        sampling: how the pipeline is called.
        method: the method.
        on_step: told after each denoising step how many samples advanced by one.

    Returns:
        The number of steps at which the blocks ran, the mean over the CFG branches and the samples.

    Raises:
        SpectrumError: if the pipeline cannot be cached, or refuses its arguments.
    """
    counts: list[int] = []
    with Accelerated(pipe, method) as handle:
        for batch in grid:
            sample_batch(pipe, batch, sampling, functools.partial(on_step, len(batch)))
            own = [sample_report(handle.report(), number, len(batch)) for number in range(len(batch))]
            counts += [len(branch["run_steps"]) for report in own for branch in report.values()]
    return float(np.mean(counts))


def next_threshold(tried: dict[float, float], budget: int) -> float:
    """The threshold to try next: between the two nearest to a budget, on a line of runs over the logarithm.

    Args:
        tried: the mean number of runs of each threshold that was tried; the larger the threshold, the fewer.
        budget: the number of runs that is wanted.

    Returns:
        The threshold; four times the largest, or a quarter of the smallest, where all lie on one side of the budget.
    """
    enough = [threshold for threshold, runs in tried.items() if runs <= budget]
    if not enough:
        return 4 * max(tried, default=0.25)
    high = min(enough)
    low = max((threshold for threshold in tried if threshold < high), default=None)
    if low is None:
        return high / 4
    part = (tried[low] - budget) / (tried[low] - tried[high])
    part = 0.5 if len(tried) % 3 == 0 else min(max(part, 0.1), 0.9)
    return low * (high / low) ** part


def threshold_for(
    runs_at: Callable[[float], float], budget: int, say: Callable[[str], None], tried: dict[float, float] | None = None
) -> float | None:
    """Find the threshold with the mean number of runs nearest to a budget.

    Args:
        runs_at: the mean number of runs with a threshold. It is called at most `TRIES` times.
        budget: the number of runs that is wanted.
        say: told of each threshold that was tried.
        tried: what earlier budgets tried, as runs by threshold; what is tried here is added.

    Returns:
        The threshold, to six digits; None if none was found whose mean number of runs is within 0.5 of the budget.
    """
    tried = {} if tried is None else tried

    def off(threshold: float) -> float:
        return abs(tried[threshold] - budget)

    for _ in range(TRIES):
        if tried and min(map(off, tried)) <= CLOSE:
            break
        threshold = float(f"{next_threshold(tried, budget):.6g}")
        tried[threshold] = runs_at(threshold)
        say(f"threshold {threshold:.5g}: {tried[threshold]:.2f} runs")
    best = min(tried, key=off)
    return best if off(best) <= 0.5 else None


def thresholds_by_runs(
    config: RunConfig,
    pipe: Any,
    grid: list[list[Sample]],
    fitted: dict[str, Any],
    budgets: Sequence[int],
    say: Callable[[str], None],
    begin: Begin,
) -> dict[int, dict[str, Any]]:
    """Find the settings of a method's schedule that run the blocks a given number of times.

    Args:
        config: the config; its schedule has the settings that stay.
        pipe: a diffusers pipeline.
        grid: the batches of samples over which runs are counted.
        fitted: the method's own parameters that were fitted before.
        budgets: the numbers of runs that are wanted.
        say: told of each threshold that was tried, and of each budget that none meets.
        begin: begins a stage of the progress for each budget.

    Returns:
        The settings by budget, without the budgets that no threshold meets.

    Raises:
        SpectrumError: if the method cannot be built, or the pipeline cannot be cached.
    """
    sampling, name = Sampling.of(config), config.method.name

    def built(**changes: Any) -> Method:
        return build_method(config.method, {**config.schedule, **changes}, {name: fitted}, config.model.name)

    if built(threshold=1.0).time_only:
        by_runs: dict[int, dict[str, Any]] = {}
        for cap in CAPS:
            for limit in LIMITS:
                count = len(plan(built(threshold=limit, most=cap).schedule, sampling.steps))
                by_runs.setdefault(count, {"threshold": limit, "most": cap})
        return {budget: by_runs[budget] for budget in budgets if budget in by_runs}

    typed = {key: config.schedule[key] for key in config.method.fallback if config.schedule.get(key)}
    found: dict[int, dict[str, Any]] = {}
    tried: dict[float, float] = {}
    for budget in budgets:
        total = TRIES * sum(map(len, grid)) * sampling.steps
        count = _Counter(begin(f"{budget} runs", total), total)

        def runs_at(threshold: float, count: _Counter = count) -> float:
            return mean_runs(pipe, grid, sampling, built(threshold=threshold), count)

        threshold = threshold_for(runs_at, budget, say, tried)
        count.end()
        if threshold is None:
            say(f"no threshold runs {budget} steps: type for example a smaller schedule.warmup=")
        else:
            found[budget] = {**typed, "threshold": threshold}
    return found


class _Counter:
    """Tells a stage of its sample steps, no more of them than it has; a search can take fewer runs.

    Args:
        advance: the stage.
        total: the sample steps of the stage.
    """

    def __init__(self, advance: Callable[[int], None], total: int) -> None:
        self._advance, self._left = advance, total

    def __call__(self, count: int) -> None:
        """So many more sample steps were taken."""
        self._tell(min(count, self._left))

    def end(self) -> None:
        """The stage is over."""
        self._tell(self._left)

    def _tell(self, count: int) -> None:
        self._left -= count
        if count:
            self._advance(count)


def calibrate(
    config: RunConfig,
    pipe: Any,
    budgets: Sequence[int],
    say: Callable[[str], None] = lambda line: None,
    begin: Begin = lambda name, total: lambda count: None,
) -> dict[str, Any]:
    """Fit what a method needs on a model.

    A setting that was typed where the method's file leaves it open (`method.front_blocks=1`) is kept as the model's.

    Args:
        config: the config, with the prompts to fit on.
        pipe: a diffusers pipeline.
        budgets: the numbers of block runs to find thresholds for.
        say: told what was fitted, and of each threshold that was tried.
        begin: begins a stage of the progress.

    Returns:
        The method's parameters; under `by_runs` the schedule's settings by budget; under `fitted_on` the model, prompts
        and steps that all of them are fitted on.

    Raises:
        SpectrumError: if there are too few steps to fit to, no threshold meets any budget, or the pipeline cannot be
            cached.
    """
    prompts, name = read_prompts(config.prompts), config.method.name
    todo, sampling = numbered_samples(prompts, config.seeds), Sampling.of(config)
    batch_size = sampling.batch
    grid = [todo[i : i + batch_size] for i in range(0, len(todo), batch_size)]
    fitted, facts = {}, {}
    if name in FITS:
        fit = FITS[name](denoisers(pipe)[0])
        advance = begin("uncached", len(todo) * sampling.steps)
        for batch in grid:
            with Accelerated(pipe, Method("none", None, always), observe=fit):
                sample_batch(pipe, batch, sampling, functools.partial(advance, len(batch)))
        fitted, facts = fit.found()
        say(f"{fitted} {facts}")
    typed = {key: getattr(config.method, key) for key in config.method.fallback if getattr(config.method, key, None)}
    by_runs = thresholds_by_runs(config, pipe, grid, fitted, budgets, say, begin)
    if not by_runs:
        wanted = ",".join(map(str, budgets))
        refuse(f"no threshold of {name} meets budgets={wanted} of {sampling.steps} steps: type other budgets")
    about = {"config": config.model.name, "model": model_identity(config.model), "prompts": identity(prompts)}
    about |= {"samples": len(todo), "batch": config.batch, "steps": sampling.steps, **facts}
    thresholds = {str(budget): found for budget, found in by_runs.items()}
    return {**fitted, **typed, "by_runs": thresholds, "fitted_on": about}


def joined(known: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Join a fit with an earlier one of the same method.

    Args:
        known: the earlier fit, empty if there is none.
        found: the new one, as `calibrate` returns it.

    Returns:
        The new fit, with the earlier one's budgets if both were fitted on the same weights, prompts and steps. The
        settings for 14 runs, or for its first budget, are its defaults.
    """
    same = known.get("fitted_on") == found["fitted_on"]
    by_runs = {**(known["by_runs"] if same else {}), **found["by_runs"]}
    first = by_runs.get("14") or next(iter(by_runs.values()), {})
    return {**found, **first, "by_runs": by_runs}
