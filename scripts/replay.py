"""Score forecasters and schedules on a trace, in seconds and without sampling. Commas make lists, as in a sweep.

python scripts/replay.py trace=FILE method=spectrum,taylorseer,fora schedule=growing_window schedule.growth=0.75,3.0
python scripts/replay.py trace=FILE method=spectrum method.ridge=0,0.01,0.1,1 format=json
python scripts/replay.py trace=FILE records=results/records     every stored run's method, and how well the ranks agree
"""

import itertools
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from rich import box
from rich.console import Console
from rich.table import Table
from torchmetrics.functional import spearman_corrcoef

from spectrum import trace as traces
from spectrum.config import ModelConfig, build_method, compose
from spectrum.errors import refuse
from spectrum.library import denoisers
from spectrum.main import guarded, pairs
from spectrum.method import Method
from spectrum.pipeline import calibration, device_of, load_pipeline, model_identity
from spectrum.prepare import label, resolve
from spectrum.store import read_records

OPTIONS = ("trace", "format", "records")


def expand(words: list[str]) -> list[list[str]]:
    """Every combination of the lists in command-line overrides."""
    choices = []
    for override in OverridesParser.create().parse_overrides(words):
        values = override.sweep_string_iterator() if override.is_sweep_override() else [override.get_value_string()]
        choices.append([f"{override.get_key_element()}={value}" for value in values])
    return [list(job) for job in itertools.product(*choices)]


def row(name: str, trace: traces.Trace, model: Any, method: Method) -> dict[str, Any]:
    """One line of the table: runs and the means of `traces.summary`, |w|_1 at its largest."""
    runs, scores = traces.replay(trace, model, method)
    mean = sum(map(len, runs.values())) / len(runs)
    return {"name": name, "runs": mean, **traces.summary(scores), "l1": max((s.l1 for s in scores), default=1.0)}


def show(rows: list[dict[str, Any]], title: str) -> None:
    """Print the rows, best velocity first."""
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("method", min_width=16, overflow="fold")
    for name in ("runs", "distance", "feature", "velocity", "sum w", "|w|_1"):
        table.add_column(name, justify="right", no_wrap=True)
    for r in sorted(rows, key=lambda r: r["velocity"]):
        numbers = [f"{r['feature']:.4f}", f"{r['velocity']:.4f}", f"{r['total']:.3f}", f"{r['l1']:.3g}"]
        table.add_row(r["name"], f"{r['runs']:g}", f"{r['distance']:.2f}", *numbers)
    Console().print(table)


def of_records(folder: Path, trace: traces.Trace, model: Any, config: ModelConfig) -> list[dict[str, Any]]:
    """A row for every record of a caching method on the traced model, with its reference and closed-loop PSNR.

    The same weights on another grid of steps are another model.
    """
    rows = []
    for stored in read_records(folder):
        same = stored["model_identity"] == trace.about["model"] and stored["model"]["name"] == config.name
        if same and stored["method"]["forecast"]:
            method = build_method(stored["method"], stored["schedule"], calibration(config))
            closed = {"reference": stored["reference"], "psnr": stored["metrics"]["psnr"]["mean"]}
            rows.append(row(stored["label"], trace, model, method) | closed)
    return rows or refuse(f"{folder} has no record of a caching method on the traced weights")


def agreement(rows: list[dict[str, Any]]) -> list[tuple[int, float]]:
    """(how many, Spearman's rank correlation of velocity error and lost PSNR) of the rows of each reference."""
    found = []
    for reference in sorted({r["reference"] for r in rows}):
        same = [r for r in rows if r["reference"] == reference]
        if len(same) > 2:
            pair = torch.tensor([[-r["velocity"], r["psnr"]] for r in same], dtype=torch.float64)
            found.append((len(same), spearman_corrcoef(pair[:, 0], pair[:, 1]).item()))
    return found


def main() -> None:
    """Replay what is asked for, and print it as a table or as JSON."""
    words = sys.argv[1:]
    given = pairs((word for word in words if word.partition("=")[0] in OPTIONS), OPTIONS, "trace=FILE")
    if "trace" not in given:
        refuse("which trace? make one with python scripts/trace.py and type trace=FILE")
    trace = traces.Trace.load(Path(given["trace"]))
    jobs = [compose(job) for job in expand([w for w in words if w.partition("=")[0] not in given])]
    model = jobs[0].model
    if model_identity(model) != trace.about["model"]:
        refuse(f"{given['trace']} was made with other weights than model={model.name} has: run scripts/trace.py again")
    denoiser = denoisers(load_pipeline(model, device_of(jobs[0].device)))[0]
    if "records" in given:
        rows = of_records(Path(given["records"]), trace, denoiser, model)
    else:
        rows = [row(label(config), trace, denoiser, method) for config, method in map(resolve, jobs)]
    if given.get("format") == "json":
        print(json.dumps(rows))
        return
    show(rows, f"{model.name}, {len(trace.about['prompts'])} prompts: mean relative L2 errors over the skipped steps")
    for count, rank in agreement(rows) if "records" in given else []:
        print(f"{count} records of one reference: rank correlation with the closed loop's PSNR {rank:.3f}")


if __name__ == "__main__":
    sys.exit(guarded(main))
