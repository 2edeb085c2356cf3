"""Score forecasters and schedules on a trace, in seconds and without sampling. Commas make lists, as in a sweep.

python scripts/replay.py trace=FILE method=spectrum,taylorseer,fora schedule=growing_window schedule.growth=0.75,3.0
python scripts/replay.py trace=FILE method=spectrum method.forecast.ridge=0,0.01,0.1,1 format=json
python scripts/replay.py trace=FILE records=results/records     every stored run's method, and how well the ranks agree
"""

import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from rich import box
from rich.console import Console
from rich.table import Table

from spectrum.api import denoisers
from spectrum.bench.replay import replay, summary
from spectrum.bench.resolve import label, resolve
from spectrum.bench.trace import Trace
from spectrum.commands.guard import quiet, split_options
from spectrum.commands.help import config_help
from spectrum.config.compose import compose
from spectrum.config.methods import build_method
from spectrum.config.schema import ModelConfig, method_from
from spectrum.config.targets import shipped_targets
from spectrum.core.errors import SpectrumError, refuse
from spectrum.core.method import Method
from spectrum.models.fitted import fits_of
from spectrum.models.identity import model_identity
from spectrum.models.pipelines import device_of, load_pipeline
from spectrum.records.record import Record, read_records

OPTIONS = {
    "trace": "a trace, made by scripts/trace.py",
    "records": "a folder of records whose methods are scored",
    "format": "text, or json",
}


def expand(words: list[str]) -> list[list[str]]:
    """Every combination of the lists in command-line overrides."""
    choices = []
    for override in OverridesParser.create().parse_overrides(words):
        values = override.sweep_string_iterator() if override.is_sweep_override() else [override.get_value_string()]
        choices.append([f"{override.get_key_element()}={value}" for value in values])
    return [list(job) for job in itertools.product(*choices)]


def score(name: str, trace: Trace, model: Any, method: Method) -> dict[str, Any]:
    """One line of the table: runs and the means of `spectrum.bench.replay.summary`, |w|_1 at its largest."""
    runs, scores = replay(trace, model, method)
    mean = sum(map(len, runs.values())) / len(runs)
    return {"name": name, "runs": mean, **summary(scores), "l1": max((s.l1 for s in scores), default=1.0)}


def print_scores(rows: list[dict[str, Any]], title: str) -> None:
    """Print the rows, best velocity first."""
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("method", min_width=16, overflow="fold")
    for name in ("runs", "distance", "feature", "velocity", "sum w", "|w|_1"):
        table.add_column(name, justify="right", no_wrap=True)
    for r in sorted(rows, key=lambda r: r["velocity"]):
        numbers = [f"{r['feature']:.4f}", f"{r['velocity']:.4f}", f"{r['total']:.3f}", f"{r['l1']:.3g}"]
        table.add_row(r["name"], f"{r['runs']:g}", f"{r['distance']:.2f}", *numbers)
    Console().print(table)


def of_records(folder: Path, trace: Trace, model: Any, config: ModelConfig) -> list[dict[str, Any]]:
    """A row for each record of a caching method on the traced model, with its reference and closed-loop PSNR.

    Records of another number of steps are not counted. A record that a trace cannot score is left out with a
    line that says why. What a record names is not imported unless a shipped config names it too.

    Raises:
        SpectrumError: if no record is left.
    """
    rows = []
    for record in read_records(folder):
        same = record.model_identity == trace.about["model"] and record.model["name"] == config.name
        same = same and record.steps == trace.steps
        if not (same and record.caches):
            continue
        closed = {"reference": record.reference, "psnr": record.metric("psnr")}
        try:
            method = method_of_record(record, fits_of(config))
            rows.append(score(record.label, trace, model, method) | closed)
        except SpectrumError as error:
            print(f"left out: {record.id}: {error}", file=sys.stderr)
    return rows or refuse(f"{folder} has no record of a caching method on the traced weights that can be scored")


def method_of_record(record: Record, fits: Mapping[str, Any]) -> Method:
    """The method that made a record, from functions that shipped configs name.

    Raises:
        SpectrumError: if the record names others, or its settings are no method's.
    """
    try:
        settings = method_from(record.method)
    except (TypeError, ValueError) as error:
        return refuse(f"its method cannot be read ({error})")
    return build_method(settings, record.schedule, fits, allowed=shipped_targets())


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's rank correlation, with the mean rank for equal values.

    Example:
        >>> round(rank_correlation([1, 2, 3], [10, 20, 15]), 3)
        0.5
    """
    import torch
    from torchmetrics.functional import spearman_corrcoef

    pair = torch.tensor([list(x), list(y)], dtype=torch.float64)
    return spearman_corrcoef(pair[0], pair[1]).item()


def agreement(rows: list[dict[str, Any]]) -> list[tuple[int, float]]:
    """(how many, Spearman's rank correlation of velocity error and lost PSNR) of the rows of each reference."""
    found = []
    for reference in sorted({r["reference"] for r in rows}):
        same = [r for r in rows if r["reference"] == reference and r["psnr"] is not None]
        if len(same) > 2:
            found.append((len(same), rank_correlation([-r["velocity"] for r in same], [r["psnr"] for r in same])))
    return found


def main(words: list[str]) -> None:
    """Replay what is asked for, and print it as a table or as JSON.

    Args:
        words: `trace=FILE`, `records=FOLDER`, `format=json`, and the config's overrides, in which commas make lists.
    """
    if any(word in ("-h", "--help") for word in words):
        print(config_help(__doc__ or "", OPTIONS))
        return
    given, words = split_options(words, OPTIONS, "python scripts/replay.py trace=FILE [key=value ...]")
    if "trace" not in given:
        refuse("which trace? make one with python scripts/trace.py and type trace=FILE")
    if given.get("format", "text") not in ("text", "json"):
        refuse(f"format={given['format']} is unknown: type format=text or format=json")
    trace = Trace.load(Path(given["trace"]))
    jobs = [compose(job) for job in expand(words)]
    model = jobs[0].model
    if model_identity(model) != trace.about["model"]:
        refuse(f"{given['trace']} was made with other weights than model={model.name} has: run scripts/trace.py again")
    quiet()
    denoiser = denoisers(load_pipeline(model, device_of(jobs[0].device)))[0]
    if "records" in given:
        rows = of_records(Path(given["records"]), trace, denoiser, model)
    else:
        rows = [score(label(config), trace, denoiser, method) for config, method in map(resolve, jobs)]
    if given.get("format") == "json":
        print(json.dumps(rows))
        return
    title = f"{model.name}, {len(trace.about['prompts'])} prompts: mean relative L2 errors over the skipped steps"
    print_scores(rows, title)
    for count, rank in agreement(rows) if "records" in given else []:
        print(f"{count} records of one reference: rank correlation with the closed loop's PSNR {rank:.3f}")
