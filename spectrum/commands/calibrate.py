"""Fit what a method needs on a model, on prompts that no table uses, and keep it with the model.

python scripts/calibrate.py model=tiny method=teacache [prompts=calibration] [prompts.limit=16] [budgets=14,10]
python scripts/calibrate.py model=tiny method=teacache write=true      keep the fit beside the weights

For TeaCache it fits the polynomial from the relative change of its signal to that of the blocks' output between
consecutive steps of the uncached run (degree 4, least squares); for MagCache the ratios of the residual's size from
step to step. For every data-dependent method it finds the thresholds that run a given number of steps on average.
"""

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from baselines.teacache import relative_l1
from spectrum.api import Accelerated, denoisers
from spectrum.bench.prompts import Sample, numbered_samples, read_prompts
from spectrum.bench.sampling import sample_batch
from spectrum.commands.guard import quiet, split_options
from spectrum.commands.help import config_help
from spectrum.config.compose import compose
from spectrum.config.methods import build_method
from spectrum.config.sampling import Sampling
from spectrum.config.schema import RunConfig
from spectrum.core.errors import refuse
from spectrum.core.method import Method, Signal
from spectrum.core.schedule import always, plan
from spectrum.hooks.signals import signal_reader
from spectrum.hooks.trajectory import Observation
from spectrum.models.fitted import CALIBRATION, read_calibration
from spectrum.models.identity import model_identity, weights_folder
from spectrum.models.layouts import denoiser_of
from spectrum.models.pipelines import device_of, load_pipeline
from spectrum.records.files import identity, write_json

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
        self._read_signal = signal_reader(Signal.teacache, model, denoiser_of(model))
        self._last: dict[str, tuple[Tensor, Tensor]] = {}

    def __call__(self, seen: Observation) -> None:
        """Pair this step with the one before it in the same branch and trajectory."""
        now = self._read_signal(seen.inputs, functools.partial(self._forward, **seen.inputs)), seen.feature
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


OPTIONS = {
    "budgets": "the numbers of block runs to find thresholds for: 18,14,12,10,9,8 by default",
    "write": "true keeps the fit beside the weights; else it is printed",
    "overwrite": "true replaces a kept fit of other steps or of more prompts",
}


def main(words: list[str]) -> None:
    """Fit, and print the fit or keep it beside the weights.

    Args:
        words: the options, and the config's overrides.
    """
    if any(word in ("-h", "--help") for word in words):
        print(config_help(__doc__ or "", OPTIONS))
        return
    given, words = split_options(words, OPTIONS, USAGE)
    if not any(word.startswith("prompts=") for word in words):
        words = ["prompts=calibration", *words]
    config = compose(words)
    name = config.method.name
    if name not in FITS and config.method.drift is None:
        refuse(f"method={name} has nothing to fit: type one that decides by data, {USAGE}")
    budgets = _budgets(given.get("budgets"))
    keep = _truth("write", given)
    if keep:
        check_overwrite(config, _truth("overwrite", given))
    quiet()
    pipe = load_pipeline(config.model, device_of(config.device))
    if len(denoisers(pipe)) > 1:
        refuse(f"model={config.model.name} has two denoisers, and a fit is of one: type a method of time alone")
    found = calibrate(dataclasses.replace(config, runs=None), pipe, budgets)
    write_fit(config, found) if keep else print_fit(config, found)


def _budgets(text: str | None) -> tuple[int, ...]:
    if text is None:
        return BUDGETS
    words = text.strip("[]").split(",")
    if not all(word.strip().isdecimal() and int(word) for word in words):
        refuse(f"budgets={text} is no list of numbers of steps: type budgets=14,10")
    return tuple(map(int, words))


def _truth(key: str, given: dict[str, str]) -> bool:
    value = given.get(key, "false")
    if value not in ("true", "false"):
        refuse(f"{key}={value} is unknown: type {key}=true or {key}=false")
    return value == "true"


def kept_fits(config: RunConfig) -> tuple[Path, dict[str, Any]]:
    """(the file beside the weights, the fits in it). Refuses a model whose weights come from the hub."""
    folder = weights_folder(config.model)
    if folder is None:
        refuse(
            f"the weights of model={config.model.name} lie in no folder of their own: leave write=true out, and put "
            "what is printed into its config"
        )
    return folder / CALIBRATION, read_calibration(folder / CALIBRATION)


def check_overwrite(config: RunConfig, allowed: bool) -> None:
    """Refuse to replace a kept fit that was made for another config, other steps or more prompts, unless allowed."""
    path, known = kept_fits(config)
    about = known.get(config.method.name, {}).get("fitted_on")
    if about is None or allowed:
        return
    count = len(read_prompts(config.prompts)) * len(config.seeds)
    steps = Sampling.of(config).steps
    other = about.get("config", config.model.name) != config.model.name or about.get("steps", steps) != steps
    if other or about.get("samples", 0) > count:
        refuse(
            f"{path} has a fit of {config.method.name} on {about.get('config')}, {about.get('steps')} steps and "
            f"{about.get('samples')} samples, and this one is of {config.model.name}, {steps} steps and {count}: type "
            "overwrite=true to replace it"
        )


def print_fit(config: RunConfig, found: dict[str, Any]) -> None:
    """Print a fit as it belongs into the model's config."""
    name = config.method.name
    print(f"put this under calibration.{name} in configs/model/{config.model.name}.yaml, or type write=true to keep it")
    print(f"beside the weights:\n{json.dumps(joined({}, found))}")


def write_fit(config: RunConfig, found: dict[str, Any]) -> None:
    """Keep a fit beside the weights."""
    path, known = kept_fits(config)
    name = config.method.name
    write_json(path, {**known, name: joined(known.get(name, {}), found)})
    print(f"written: {path}")
