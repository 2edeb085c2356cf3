"""Fit what a method needs on a model, on prompts that no table uses, and keep it with the model.

python scripts/calibrate.py model=tiny method=teacache [prompts=calibration] [prompts.limit=16] [budgets=14,10]

TeaCache gets the polynomial from the relative change of what it watches to the relative change of the stacks' output
between consecutive steps of the uncached run (degree 4, least squares); MagCache the ratios of the residual's size from
step to step. Every method that decides by data gets the thresholds that run a given number of steps on average.
"""

import dataclasses
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from torch import Tensor

from baselines.teacache import relative_l1
from spectrum.branch import Observation
from spectrum.config import RunConfig, build_method, compose
from spectrum.denoisers import denoiser_of
from spectrum.errors import refuse
from spectrum.generate import Sampling, draw
from spectrum.library import Accelerated, denoisers
from spectrum.main import guarded
from spectrum.method import Method, Watch
from spectrum.pipeline import device_of, load_pipeline, model_identity, weights_folder
from spectrum.prompts import Sample, read_prompts, samples
from spectrum.schedule import always, plan
from spectrum.signals import watcher
from spectrum.store import identity, write_json

BUDGETS = (18, 14, 12, 10, 9, 8)
USAGE = "python scripts/calibrate.py model=NAME method=teacache [budgets=14,10]"
CAPS = range(1, 16)
LIMITS = (0.0, *np.geomspace(1e-3, 4, 60).tolist())


class Fit(Protocol):
    """What is fitted along uncached runs, told of every step."""

    def __call__(self, seen: Observation) -> None:
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
        self._watched = watcher(Watch.signal, model, denoiser_of(model))
        self._last: dict[str, tuple[Tensor, Tensor]] = {}

    def __call__(self, seen: Observation) -> None:
        """Pair this step with the one before it in the same branch and trajectory."""
        now = self._watched(seen.inputs, functools.partial(self._forward, **seen.inputs)), seen.feature
        if seen.step:
            signals, features = (each(a, b) for a, b in zip(now, self._last[seen.branch], strict=True))
            self.pairs += zip(signals, features, strict=True)
        self._last[seen.branch] = now

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

    def __call__(self, seen: Observation) -> None:
        """Compare this step's residual with that of the step before."""
        residual = (seen.feature - seen.entry).float()
        size = residual.norm(dim=1 if residual.ndim == 4 else -1)
        if seen.step:
            self._by_step.setdefault(seen.step, []).append((size / self._last[seen.branch]).mean().item())
        self._last[seen.branch] = size

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
        draw(pipe, batch, sampling)
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


def ladder(config: RunConfig, pipe: Any, batch: list[Sample], fitted: dict[str, Any], budgets: tuple[int, ...]) -> Any:
    """By budget, what makes the method's schedule run so many steps."""
    sampling, name = Sampling.of(config), config.method["name"]

    def built(**changes: Any) -> Method:
        return build_method(config.method, {**config.schedule, **changes}, {name: fitted}, config.model.name)

    if built(threshold=1.0).foreseeable:
        rungs: dict[int, dict[str, Any]] = {}
        for cap in CAPS:
            for limit in LIMITS:
                count = len(plan(built(threshold=limit, most=cap).schedule, sampling.steps))
                rungs.setdefault(count, {"threshold": limit, "most": cap})
        return {budget: rungs[budget] for budget in budgets if budget in rungs}

    def runs_at(threshold: float) -> float:
        return mean_runs(pipe, batch, sampling, built(threshold=threshold))

    typed = {key: config.schedule[key] for key in config.method.get("usual") or {} if config.schedule.get(key)}
    found = {budget: threshold_for(runs_at, budget) for budget in budgets}
    for budget in (budget for budget, threshold in found.items() if threshold is None):
        print(f"no threshold runs {budget} steps: type for example a smaller schedule.warmup=")
    return {budget: {**typed, "threshold": value} for budget, value in found.items() if value is not None}


def calibrate(config: RunConfig, pipe: Any, budgets: tuple[int, ...]) -> dict[str, Any]:
    """The method's parameters, thresholds by budget, and on what they were fitted.

    A setting of the method that was typed where its file leaves it open (`method.front=1`) is kept as the model's.
    """
    prompts, name = read_prompts(config.prompts), config.method["name"]
    todo, sampling = samples(prompts, config.seeds), Sampling.of(config)
    grid = [todo[i : i + config.batch] for i in range(0, len(todo), config.batch)]
    fitted, facts = {}, {}
    if name in FITS:
        fit = FITS[name](denoisers(pipe)[0])
        for batch in grid:
            with Accelerated(pipe, Method("none", None, always), observe=fit):
                draw(pipe, batch, sampling)
        fitted, facts = fit.found()
        print(f"{fitted} {facts}", flush=True)
    typed = {key: config.method[key] for key in config.method.get("usual") or {} if config.method.get(key)}
    rungs = ladder(config, pipe, grid[0], fitted, budgets)
    about = {"config": config.model.name, "model": model_identity(config.model), "prompts": identity(prompts)}
    about |= {"samples": len(todo), "batch": config.batch, "steps": sampling.steps, **facts}
    return {**fitted, **typed, "ladder": {str(budget): rung for budget, rung in rungs.items()}, "fitted_on": about}


def joined(known: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """A fit with the budgets that an earlier one of the same weights and prompts met; 14 runs are the default."""
    same = known.get("fitted_on") == found["fitted_on"]
    ladder = {**(known["ladder"] if same else {}), **found["ladder"]}
    first = ladder.get("14") or next(iter(ladder.values()), {})
    return {**found, **first, "ladder": ladder}


def main() -> None:
    """Fit, and write `calibration.json` beside the weights, or print what belongs in the model's config."""
    words = [word for word in sys.argv[1:] if not word.startswith("budgets=")]
    given = [word.partition("=")[2] for word in sys.argv[1:] if word.startswith("budgets=")]
    if not any(word.startswith("prompts=") for word in words):
        words = [*words, "prompts=calibration"]
    config = compose(words)
    name = config.method["name"]
    if name not in FITS and config.method.get("drift") is None:
        refuse(f"method={name} has nothing to fit: type one that decides by data, {USAGE}")
    budgets = tuple(int(word) for word in given[0].split(",")) if given else BUDGETS
    pipe = load_pipeline(config.model, device_of(config.device))
    if len(denoisers(pipe)) > 1:
        refuse(f"model={config.model.name} has two denoisers, and a fit is of one: type a method of time alone")
    found = calibrate(dataclasses.replace(config, runs=None), pipe, budgets)
    keep(config, found)


def keep(config: RunConfig, found: dict[str, Any]) -> None:
    """Write a fit beside the weights; print it where these come from the hub, or another config's fit is there."""
    name, folder = config.method["name"], weights_folder(config.model)
    path = folder / "calibration.json" if folder else None
    known = json.loads(path.read_text()) if path and path.exists() else {}
    mine = known.get(name, {})
    if path is None or mine.get("fitted_on", {}).get("config", config.model.name) != config.model.name:
        fit = json.dumps(joined({}, found))
        print(f"put this under calibration.{name} in configs/model/{config.model.name}.yaml:\n{fit}")
        return
    write_json(path, {**known, name: joined(mine, found)})
    print(f"written: {path}")


if __name__ == "__main__":
    sys.exit(guarded(main))
