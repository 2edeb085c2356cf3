"""What one trace says for the paper's own figures: error against distance, and the ablations, offline. Seconds.

python scripts/study.py trace=FILE                              write it to outputs/study/tiny.json
python scripts/study.py trace=FILE to=results/study/tiny.json   write the committed one
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from spectrum.api import denoisers
from spectrum.bench.progress import Progress
from spectrum.bench.replay import Score, by_distance, replay, summary
from spectrum.bench.resolve import resolve
from spectrum.bench.trace import Trace
from spectrum.commands.guard import options, quiet, wants_help
from spectrum.config.compose import compose
from spectrum.core.errors import refuse
from spectrum.core.method import Method, plan_method
from spectrum.models.identity import model_identity
from spectrum.models.pipelines import device_of, load_pipeline
from spectrum.records.files import writable, write_json

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


def distances(
    trace: Trace, model: Any, runs: list[int], advance: Callable[[int], None]
) -> dict[str, list[dict[str, float]]]:
    """By forecaster, the mean errors at each distance past a run, over the run steps that have five before them.

    Args:
        trace: a full run.
        model: the denoiser that it was made with.
        runs: the run steps.
        advance: called with 1 after each forecaster.
    """
    found = {}
    for name, words in FORECASTERS.items():
        scores = by_distance(trace, model, method_of(words), runs, FARTHEST)
        at = {d: [s for s in scores if s.distance == d] for d in range(1, FARTHEST + 1)}
        found[name] = [{"distance": d, **_means(some)} for d, some in at.items() if some]
        advance(1)
    return found


def _means(scores: list[Score]) -> dict[str, float]:
    return {part: float(np.mean([getattr(s, part) for s in scores])) for part in ("feature", "velocity")}


def ablation_points() -> list[tuple[str, Any, list[str]]]:
    """(key, value, overrides) of every point of the ablations: each value at 14 and at 10 runs."""
    return [
        (key, value, ["method=spectrum", f"{key}={value}", *([f"runs={runs}"] if runs else [])])
        for key, values in GRIDS.items()
        for runs in ((14, 10) if key != "schedule.growth" else (None,))
        for value in values
    ]


def ablations(trace: Trace, model: Any, advance: Callable[[int], None]) -> dict[str, list[dict[str, Any]]]:
    """By key, its values with the runs and the means over the skipped steps.

    Args:
        trace: a full run.
        model: the denoiser that it was made with.
        advance: called with 1 after each point.
    """
    found: dict[str, list[dict[str, Any]]] = {key: [] for key in GRIDS}
    for key, value, words in ablation_points():
        ran, scores = replay(trace, model, method_of(words))
        found[key].append({"value": value, "runs": len(next(iter(ran.values()))), **summary(scores)})
        advance(1)
    return found


USAGE = "python scripts/study.py trace=FILE [to=FILE]"
OPTIONS = {"trace": "a trace of the embedded model", "to": "the file to write; outputs/study/tiny.json by default"}


def main(words: list[str]) -> None:
    """Compute and write the study of a trace.

    Args:
        words: `trace=FILE`, `to=FILE`.

    Raises:
        SpectrumError: if there is no trace of the embedded model, or the study cannot be written.
    """
    if wants_help(words, __doc__ or "", OPTIONS):
        return
    given = options(words, OPTIONS, USAGE)
    if "trace" not in given:
        refuse("which trace? make one with python scripts/trace.py and type trace=FILE")
    out = Path(given.get("to", "outputs/study/tiny.json"))
    if out.is_dir():
        refuse(f"to={out} is a folder: type to=FILE")
    trace = Trace.load(Path(given["trace"]))
    config = compose([])
    if model_identity(config.model) != trace.about["model"]:
        refuse(f"{given['trace']} was made with other weights than the embedded model's: run scripts/trace.py again")
    writable(out.parent, "to")
    quiet()
    model = denoisers(load_pipeline(config.model, device_of(config.device)))[0]
    runs = plan_method(method_of(["method=spectrum"]), trace.steps).runs or []
    with Progress(Console()) as progress:
        far = distances(trace, model, runs, progress.start("distances", len(FORECASTERS), "forecasters"))
        grids = ablations(trace, model, progress.start("ablations", len(ablation_points()), "settings"))
    write_json(out, {"about": trace.about, "run_steps": runs, "by_distance": far, "ablations": grids})
    print(f"study of {trace.steps} steps, {len(trace.about['prompts'])} prompts: {out}")
