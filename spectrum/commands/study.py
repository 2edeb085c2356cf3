"""What one trace says for the paper's own figures: error against distance, and the ablations, offline. Seconds.

python scripts/study.py trace=FILE                              write it to outputs/study/tiny.json
python scripts/study.py trace=FILE to=results/study/tiny.json   write the committed one
"""

from pathlib import Path
from typing import Any

import numpy as np

from spectrum.api import denoisers
from spectrum.bench.replay import Score, by_distance, replay, summary
from spectrum.bench.resolve import resolve
from spectrum.bench.trace import Trace
from spectrum.commands.guard import options, quiet, wants_help
from spectrum.config.compose import compose
from spectrum.core.errors import refuse
from spectrum.core.method import Method, plan_method
from spectrum.models.identity import model_identity
from spectrum.models.pipelines import device_of, load_pipeline
from spectrum.records.files import write_json

FORECASTERS = {
    "reuse": ["method=fora"],
    "Taylor, order 1": ["method=taylorseer"],
    "Taylor, order 2": ["method=taylorseer", "method.forecast.order=2"],
    "Chebyshev, ridge 0.1": ["method=spectrum"],
    "Chebyshev, ridge 0": ["method=spectrum", "method.forecast.ridge=0"],
    "blend 0.5": ["method=spectrum_blend"],
}
GRIDS = {
    "method.forecast.degree": [1, 2, 3, 4],
    "method.forecast.ridge": [0, 0.001, 0.01, 0.1, 1, 10],
    "method.forecast.blend": [0, 0.25, 0.5, 0.75, 1],
    "method.clock": ["step", "timestep", "sigma"],
    "schedule.growth": [0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0],
}
FARTHEST = 15


def method_of(words: list[str]) -> Method:
    """The method of a command line, on Spectrum's schedule unless it says otherwise."""
    return resolve(compose(["schedule=growing_window", *words]))[1]


def distances(trace: Trace, model: Any, runs: list[int]) -> dict[str, list[dict[str, float]]]:
    """By forecaster, the mean errors at each distance past a run, over the run steps that have five before them."""
    found = {}
    for name, words in FORECASTERS.items():
        scores = by_distance(trace, model, method_of(words), runs, FARTHEST)
        at = {d: [s for s in scores if s.distance == d] for d in range(1, FARTHEST + 1)}
        found[name] = [{"distance": d, **_means(some)} for d, some in at.items() if some]
    return found


def _means(scores: list[Score]) -> dict[str, float]:
    return {part: float(np.mean([getattr(s, part) for s in scores])) for part in ("feature", "velocity")}


def ablations(trace: Trace, model: Any) -> dict[str, list[dict[str, Any]]]:
    """By key, its values at 14 and at 10 runs with the means over the skipped steps."""
    found: dict[str, list[dict[str, Any]]] = {}
    for key, values in GRIDS.items():
        found[key] = []
        for runs in (14, 10) if key != "schedule.growth" else (None,):
            for value in values:
                words = ["method=spectrum", f"{key}={value}", *([f"runs={runs}"] if runs else [])]
                ran, scores = replay(trace, model, method_of(words))
                found[key].append({"value": value, "runs": len(next(iter(ran.values()))), **summary(scores)})
    return found


USAGE = "python scripts/study.py trace=FILE [to=FILE]"
OPTIONS = {"trace": "a trace of the embedded model", "to": "the file to write; outputs/study/tiny.json by default"}


def main(words: list[str]) -> None:
    """Compute and write the study of a trace.

    Args:
        words: `trace=FILE`, `to=FILE`.
    """
    if wants_help(words, __doc__ or "", OPTIONS):
        return
    given = options(words, OPTIONS, USAGE)
    if "trace" not in given:
        refuse("which trace? make one with python scripts/trace.py and type trace=FILE")
    trace = Trace.load(Path(given["trace"]))
    config = compose([])
    if model_identity(config.model) != trace.about["model"]:
        refuse(f"{given['trace']} was made with other weights than the embedded model's: run scripts/trace.py again")
    quiet()
    model = denoisers(load_pipeline(config.model, device_of(config.device)))[0]
    runs = plan_method(method_of(["method=spectrum"]), trace.steps).runs or []
    found = {"about": trace.about, "run_steps": runs, "by_distance": distances(trace, model, runs)}
    out = Path(given.get("to", "outputs/study/tiny.json"))
    write_json(out, {**found, "ablations": ablations(trace, model)})
    print(f"study of {trace.steps} steps, {len(trace.about['prompts'])} prompts: {out}")
