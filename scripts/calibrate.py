"""Fit what TeaCache needs on a model, on prompts that no table uses, and keep it with the model.

python scripts/calibrate.py model=tiny method=teacache [prompts=calibration] [prompts.limit=32]

Two things are fitted: the polynomial from the relative change of the first block's modulated input to the relative
change of the stacks' output between consecutive steps of the uncached run (degree 4, least squares), and the thresholds
that run a given number of steps on average (`runs=18`, 14, 12, 10, 9 and 8).
"""

import functools
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from torch import Tensor

from baselines.teacache import drift, relative_l1
from spectrum.branch import Observation
from spectrum.config import RunConfig, compose
from spectrum.denoisers import denoiser_of
from spectrum.errors import refuse
from spectrum.forecast import reuse
from spectrum.generate import Sampling, draw
from spectrum.library import Accelerated, denoisers
from spectrum.main import guarded
from spectrum.method import Method, Space
from spectrum.pipeline import device_of, load_pipeline, model_identity, weights_folder
from spectrum.prompts import Sample, read_prompts, samples
from spectrum.schedule import accumulated_distance, always
from spectrum.store import identity, write_json

BUDGETS = (18, 14, 12, 10, 9, 8)


class Recorder:
    """Pairs of (relative change of the signal, relative change of the stacks' output) along uncached runs."""

    def __init__(self, model: Any) -> None:
        self.pairs: list[tuple[float, float]] = []
        self._model, self._signal = model, denoiser_of(model).signal
        if self._signal is None:
            refuse(f"{type(model).__name__} has no signal to calibrate on")
        self._last: dict[str, tuple[Tensor, Tensor]] = {}

    def __call__(self, seen: Observation) -> None:
        """Pair this step with the one before it in the same branch and trajectory."""
        assert self._signal is not None
        now = self._signal(self._model, seen.inputs), seen.feature
        if seen.step:
            signals, features = (each(a, b) for a, b in zip(now, self._last[seen.branch], strict=True))
            self.pairs += zip(signals, features, strict=True)
        self._last[seen.branch] = now


def each(current: Tensor, previous: Tensor) -> list[float]:
    """`relative_l1` of every sample of a batch."""
    return [relative_l1(a, b) for a, b in zip(current, previous, strict=True)]


def fit(pairs: list[tuple[float, float]]) -> tuple[list[float], float]:
    """(coefficients of degree 4, highest power first; share of the variance that they explain)."""
    x, y = np.array(pairs).T
    coefficients = np.polyfit(x, y, 4)
    return coefficients.tolist(), float(1 - np.var(y - np.polyval(coefficients, x)) / np.var(y))


def mean_runs(pipe: Any, batch: list[Sample], sampling: Sampling, coefficients: list[float], threshold: float) -> float:
    """Mean number of runs per branch over a batch at one threshold."""
    measure = functools.partial(drift, coefficients=coefficients)
    rule = functools.partial(accumulated_distance, threshold=threshold)
    with Accelerated(pipe, Method("teacache", reuse, rule, Space.residual, drift=measure)) as handle:
        draw(pipe, batch, sampling)
        return float(np.mean([len(branch["run_steps"]) for branch in handle.report().values()]))


def threshold_for(pipe: Any, batch: list[Sample], sampling: Sampling, coefficients: list[float], budget: int) -> float:
    """The threshold with the mean number of runs nearest to `budget`, by bisection."""
    low, high, best = 0.0, 1.0, (float("inf"), 0.0)
    while mean_runs(pipe, batch, sampling, coefficients, high) > budget:
        low, high = high, 2 * high
    for _ in range(10):
        middle = (low + high) / 2
        runs = mean_runs(pipe, batch, sampling, coefficients, middle)
        best = min(best, (abs(runs - budget), middle))
        low, high = (middle, high) if runs > budget else (low, middle)
        print(f"threshold {middle:.5f}: {runs:.2f} runs", flush=True)
        if runs == budget:
            break
    return round(best[1], 6)


def calibrate(config: RunConfig, pipe: Any) -> dict[str, Any]:
    """Coefficients, thresholds, and on what they were fitted."""
    prompts = read_prompts(config.prompts)
    todo, sampling = samples(prompts, config.seeds), Sampling.of(config)
    grid = [todo[i : i + config.batch] for i in range(0, len(todo), config.batch)]
    recorder = Recorder(denoisers(pipe)[0])
    for batch in grid:
        with Accelerated(pipe, Method("none", None, always), observe=recorder):
            draw(pipe, batch, sampling)
    coefficients, explained = fit(recorder.pairs)
    print(f"{len(recorder.pairs)} pairs, R^2 {explained:.4f}: {coefficients}", flush=True)
    ladder = {b: {"threshold": threshold_for(pipe, grid[0], sampling, coefficients, b)} for b in BUDGETS}
    return {
        "coefficients": coefficients,
        "threshold": ladder[14]["threshold"],
        "ladder": ladder,
        "fitted_on": {
            "model": model_identity(config.model),
            "prompts": identity(prompts),
            "samples": len(todo),
            "batch": config.batch,
            "steps": sampling.steps,
            "pairs": len(recorder.pairs),
            "r_squared": explained,
        },
    }


def main() -> None:
    """Fit, and write `calibration.json` beside the weights, or print what belongs in the model's config."""
    words = sys.argv[1:]
    if not any(word.startswith("prompts=") for word in words):
        words = [*words, "prompts=calibration"]
    config = compose(words)
    if config.method["name"] != "teacache":
        refuse("only TeaCache is calibrated here: type method=teacache")
    pipe = load_pipeline(config.model, device_of(config.device))
    found = calibrate(config, pipe)
    folder = weights_folder(config.model)
    if folder is None:
        print(f"put this under calibration.teacache in configs/model/{config.model.name}.yaml:\n{json.dumps(found)}")
        return
    path = folder / "calibration.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    write_json(path, {**known, "teacache": found})
    print(f"written: {path}")


if __name__ == "__main__":
    sys.exit(guarded(main))
