"""Fits what data-dependent methods need: TeaCache's polynomial, MagCache's ratios, and thresholds by number of runs."""

import functools
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from baselines.teacache import relative_l1
from spectrum.api import Accelerated, denoisers
from spectrum.bench.prompts import Sample, numbered_samples, read_prompts
from spectrum.bench.sampling import sample_batch
from spectrum.config.methods import build_method
from spectrum.config.sampling import Sampling
from spectrum.config.schema import RunConfig
from spectrum.core.errors import refuse
from spectrum.core.method import Method, Signal
from spectrum.core.schedule import always, plan
from spectrum.hooks.signals import signal_reader
from spectrum.hooks.trajectory import Observation
from spectrum.models.identity import model_identity
from spectrum.models.layouts import denoiser_of
from spectrum.records.files import identity

CAPS = range(1, 16)
LIMITS = (0.0, *np.geomspace(1e-3, 4, 60).tolist())


class Fit(Protocol):
    """What is fitted along uncached runs, told of every step."""

    def __call__(self, observed: Observation) -> None:
        """Take in one step."""
        ...

    def found(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """(the method's parameters, facts about the fit)."""
        ...


class Polynomial:
    """TeaCache's: from the relative change of the signal to that of the stacks' output, sample by sample."""

    def __init__(self, model: Any) -> None:
        self.pairs: list[tuple[float, float]] = []
        self._forward = functools.partial(type(model).forward, model)
        self._read_signal = signal_reader(Signal.teacache, model, denoiser_of(model))
        self._last: dict[str, tuple[Tensor, Tensor]] = {}

    def __call__(self, observed: Observation) -> None:
        """Pair this step with the one before it in the same branch and trajectory."""
        now = self._read_signal(observed.inputs, functools.partial(self._forward, **observed.inputs)), observed.feature
        if observed.step:
            signals, features = (each(a, b) for a, b in zip(now, self._last[observed.branch], strict=True))
            self.pairs += zip(signals, features, strict=True)
        self._last[observed.branch] = now

    def found(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The coefficients, highest power first, and the share of the variance that they explain."""
        x, y = np.array(self.pairs).T
        coefficients = np.polyfit(x, y, 4)
        explained = float(1 - np.var(y - np.polyval(coefficients, x)) / np.var(y))
        return {"coefficients": coefficients.tolist()}, {"pairs": len(self.pairs), "r_squared": explained}


class Ratios:
    """MagCache's: by step the mean over samples and tokens of `|r_s| / |r_{s-1}|`, `r` the stacks' residual."""

    def __init__(self, model: Any) -> None:
        self._by_step: dict[int, list[float]] = {}
        self._last: dict[str, Tensor] = {}

    def __call__(self, observed: Observation) -> None:
        """Compare this step's residual with that of the step before."""
        residual = (observed.feature - observed.entry).float()
        size = residual.norm(dim=1 if residual.ndim == 4 else -1)
        if observed.step:
            self._by_step.setdefault(observed.step, []).append((size / self._last[observed.branch]).mean().item())
        self._last[observed.branch] = size

    def found(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """One ratio a step, the first of them 1."""
        steps = sorted(self._by_step)
        return {"ratios": [1.0, *(round(float(np.mean(self._by_step[s])), 5) for s in steps)]}, {}


FITS: dict[str, Callable[[Any], Fit]] = {"teacache": Polynomial, "magcache": Ratios}


def each(current: Tensor, previous: Tensor) -> list[float]:
    """`relative_l1` of every sample of a batch; of a signal that all of them share, once for each."""
    if len(current) != len(previous):
        refuse("the batch changed between two steps: calibrate with prompts that fill whole batches")
    return [relative_l1(a, b) for a, b in zip(current, previous, strict=True)]


def mean_runs(pipe: Any, batch: list[Sample], sampling: Sampling, method: Method) -> float:
    """Mean number of runs per branch over a batch."""
    with Accelerated(pipe, method) as handle:
        sample_batch(pipe, batch, sampling)
        return float(np.mean([len(branch["run_steps"]) for branch in handle.report().values()]))


def threshold_for(runs_at: Callable[[float], float], budget: int) -> float | None:
    """The threshold with the mean number of runs nearest to `budget`, by bisection; None where none is within half."""
    low, high, best = 0.0, 1.0, (float("inf"), 0.0)
    while runs_at(high) > budget and high < 1e6:
        low, high = high, 4 * high
    for _ in range(10):
        middle = (low + high) / 2
        runs = runs_at(middle)
        best = min(best, (abs(runs - budget), middle))
        low, high = (middle, high) if runs > budget else (low, middle)
        print(f"threshold {middle:.5g}: {runs:.2f} runs", flush=True)
        if runs == budget:
            break
    return float(f"{best[1]:.6g}") if best[0] <= 0.5 else None


def thresholds_by_runs(
    config: RunConfig, pipe: Any, batch: list[Sample], fitted: dict[str, Any], budgets: tuple[int, ...]
) -> Any:
    """By budget, what makes the method's schedule run so many steps."""
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

    def runs_at(threshold: float) -> float:
        return mean_runs(pipe, batch, sampling, built(threshold=threshold))

    typed = {key: config.schedule[key] for key in config.method.fallback if config.schedule.get(key)}
    found = {budget: threshold_for(runs_at, budget) for budget in budgets}
    for budget in (budget for budget, threshold in found.items() if threshold is None):
        print(f"no threshold runs {budget} steps: type for example a smaller schedule.warmup=")
    return {budget: {**typed, "threshold": value} for budget, value in found.items() if value is not None}


def calibrate(config: RunConfig, pipe: Any, budgets: tuple[int, ...]) -> dict[str, Any]:
    """The method's parameters, thresholds by budget, and on what they were fitted.

    A setting that was typed where the method's file leaves it open (`method.front_blocks=1`) is kept as the model's.
    """
    prompts, name = read_prompts(config.prompts), config.method.name
    todo, sampling = numbered_samples(prompts, config.seeds), Sampling.of(config)
    batch_size = sampling.batch
    grid = [todo[i : i + batch_size] for i in range(0, len(todo), batch_size)]
    fitted, facts = {}, {}
    if name in FITS:
        fit = FITS[name](denoisers(pipe)[0])
        for batch in grid:
            with Accelerated(pipe, Method("none", None, always), observe=fit):
                sample_batch(pipe, batch, sampling)
        fitted, facts = fit.found()
        print(f"{fitted} {facts}", flush=True)
    typed = {key: getattr(config.method, key) for key in config.method.fallback if getattr(config.method, key, None)}
    by_runs = thresholds_by_runs(config, pipe, grid[0], fitted, budgets)
    about = {"config": config.model.name, "model": model_identity(config.model), "prompts": identity(prompts)}
    about |= {"samples": len(todo), "batch": config.batch, "steps": sampling.steps, **facts}
    thresholds = {str(budget): found for budget, found in by_runs.items()}
    return {**fitted, **typed, "by_runs": thresholds, "fitted_on": about}


def joined(known: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """A fit with the budgets that an earlier one of the same weights and prompts met; 14 runs are the default."""
    same = known.get("fitted_on") == found["fitted_on"]
    by_runs = {**(known["by_runs"] if same else {}), **found["by_runs"]}
    first = by_runs.get("14") or next(iter(by_runs.values()), {})
    return {**found, **first, "by_runs": by_runs}
