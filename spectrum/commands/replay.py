"""Score forecasters and schedules on a trace, in seconds and without sampling. Commas make lists, as in a sweep.

python scripts/replay.py trace=FILE method=spectrum,taylorseer,fora schedule=growing_window schedule.growth=0.75,3.0
python scripts/replay.py trace=FILE method=spectrum method.forecast.ridge=0,0.01,0.1,1 format=json
python scripts/replay.py trace=FILE records=results/records     every stored run's method, and how well the ranks agree
"""

import itertools
import json
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from rich import box
from rich.console import Console
from rich.table import Table

from spectrum.api import denoisers
from spectrum.bench.resolve import label, resolve
from spectrum.bench.scores import agreement, score, scores_of_records
from spectrum.bench.trace import Trace
from spectrum.commands.guard import quiet, split_options
from spectrum.commands.help import config_help
from spectrum.config.compose import compose
from spectrum.core.errors import refuse
from spectrum.models.identity import model_identity
from spectrum.models.pipelines import device_of, load_pipeline

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
        rows = scores_of_records(Path(given["records"]), trace, denoiser, model)
    else:
        rows = [score(label(config), trace, denoiser, method) for config, method in map(resolve, jobs)]
    if given.get("format") == "json":
        print(json.dumps(rows))
        return
    title = f"{model.name}, {len(trace.about['prompts'])} prompts: mean relative L2 errors over the skipped steps"
    print_scores(rows, title)
    for count, rank in agreement(rows) if "records" in given else []:
        print(f"{count} records of one reference: rank correlation with the closed loop's PSNR {rank:.3f}")
