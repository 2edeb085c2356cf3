"""Score forecasters and schedules on a trace, in seconds and without sampling. Commas make lists, as in a sweep.

python scripts/replay.py trace=FILE method=spectrum,taylorseer,fora schedule=growing_window schedule.growth=0.75,3.0
python scripts/replay.py trace=FILE method=spectrum method.forecast.ridge=0,0.01,0.1,1 format=json
python scripts/replay.py trace=FILE records=results/records     every stored run's method, and how well the ranks agree
"""

import dataclasses
import functools
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from rich import box
from rich.console import Console
from rich.table import Table

from spectrum.api import denoisers
from spectrum.bench.prompts import read_prompts
from spectrum.bench.resolve import label, resolve
from spectrum.bench.scores import Row, agreement, score, scores_of_records
from spectrum.bench.trace import Trace
from spectrum.commands.guard import quiet, records_folder, split_options
from spectrum.commands.help import wants_config_help
from spectrum.config.compose import compose
from spectrum.config.overrides import check_overrides, listed_values
from spectrum.config.schema import RunConfig
from spectrum.core.errors import refuse
from spectrum.models.identity import model_identity
from spectrum.models.offload import check_whole
from spectrum.models.pipelines import device_of, load_pipeline

OPTIONS = {
    "trace": "a trace, made by scripts/trace.py",
    "records": "a folder of records whose methods are scored",
    "format": "text, or json",
}


def expand(words: list[str]) -> list[list[str]]:
    """Every combination of the lists in command-line overrides.

    Args:
        words: the overrides.

    Returns:
        The overrides of each job.

    Raises:
        SpectrumError: for a word that no job can have.
        hydra.errors.HydraException: for a word that is no override.
    """
    check_overrides(words)
    choices = []
    for override in OverridesParser.create().parse_overrides(words):
        each = [f"{override.get_key_element()}={value}" for value in listed_values(override)]
        choices.append(each or [str(override.input_line)])
    return [list(job) for job in itertools.product(*choices)]


def job_of(words: Sequence[str], trace: Trace) -> RunConfig:
    """The config of a job on a trace: its steps are those of the trace unless they are typed.

    Args:
        words: the job's overrides.
        trace: the trace that it is scored on.

    Raises:
        SpectrumError: for every setting that cannot be run, and for a job of another model, other steps, seeds or
            prompts than the trace's.
    """
    typed = {word.partition("=")[0].lstrip("+") for word in words}
    config = compose([f"model.steps={trace.steps}", *words])
    for differs, key in _differences(config, trace, typed):
        refuse(f"{differs}: leave {key}= out, or make such a trace with python scripts/trace.py {key}=...")
    return config


def _differences(config: RunConfig, trace: Trace, typed: set[str]) -> Iterator[tuple[str, str]]:
    """(what a job has otherwise than a trace, its key). Prompts and seeds that were not typed are the trace's own."""
    model, seeds = config.model, trace.about.get("seeds", config.seeds)
    if model_identity(model) != trace.about["model"]:
        refuse(
            f"the trace was made with other weights than model={model.name} has: type the model= that made it, or make "
            f"another with python scripts/trace.py model={model.name}"
        )
    if model.steps != trace.steps:
        yield f"the trace has {trace.steps} steps, not model.steps={model.steps}", "model.steps"
    if "seeds" in typed and config.seeds != seeds:
        yield f"the trace is of seeds={seeds}, not seeds={config.seeds}", "seeds"
    if any(key.partition(".")[0] == "prompts" for key in typed):
        prompts, own = read_prompts(config.prompts), trace.about["prompts"]
        if prompts != own:
            yield f"the trace is of {len(own)} prompts, not of the {len(prompts)} that were typed", "prompts"


def print_scores(rows: Sequence[Row], title: str) -> None:
    """Print the rows, best velocity first."""
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("method", min_width=16, overflow="fold")
    for name in ("runs", "distance", "feature", "velocity", "sum w", "|w|_1"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in sorted(rows, key=lambda row: row.velocity):
        numbers = [f"{row.feature:.4f}", f"{row.velocity:.4f}", f"{row.total:.3f}", f"{row.l1:.3g}"]
        table.add_row(row.name, f"{row.runs:g}", f"{row.distance:.2f}", *numbers)
    Console().print(table)


def main(words: list[str]) -> None:
    """Replay what is asked for, and print it as a table or as JSON.

    Args:
        words: `trace=FILE`, `records=FOLDER`, `format=json`, and the config's overrides, in which commas make lists.
    """
    if wants_config_help(words, __doc__ or "", OPTIONS):
        return
    given, words = split_options(words, OPTIONS, "python scripts/replay.py trace=FILE [key=value ...]")
    if "trace" not in given:
        refuse("which trace? make one with python scripts/trace.py and type trace=FILE")
    if given.get("format", "text") not in ("text", "json"):
        refuse(f"format={given['format']} is unknown: type format=text or format=json")
    records = records_folder(Path(given["records"])) if "records" in given else None
    trace = Trace.load(Path(given["trace"]))
    jobs = [job_of(job, trace) for job in expand(words)]
    check_whole(jobs[0])
    model = jobs[0].model
    quiet()
    denoiser = denoisers(load_pipeline(model, device_of(jobs[0].device)))[0]
    if records is not None:
        rows = scores_of_records(records, trace, denoiser, model, functools.partial(print, file=sys.stderr))
    else:
        rows = [score(label(config), trace, denoiser, method) for config, method in map(resolve, jobs)]
    if given.get("format") == "json":
        print(json.dumps([dataclasses.asdict(row) for row in rows]))
        return
    title = f"{model.name}, {len(trace.about['prompts'])} prompts: mean relative L2 errors over the skipped steps"
    print_scores(rows, title)
    for count, rank in agreement(rows) if records is not None else []:
        print(f"{count} records of one reference: rank correlation with the closed loop's PSNR {rank:.3f}")
