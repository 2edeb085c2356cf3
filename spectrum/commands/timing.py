"""Time all rows of tables together: in one process, in turn with the uncached run, and write it into their records.

python scripts/timing.py experiment=tiny_table,tiny_baselines to=results/timing.md    time the committed tables
python scripts/timing.py experiment=tiny_table compare=results/timing.md              and compare with an earlier pass

The records have to be there already: python run.py experiment=NAME makes them. The exit code is 1 if compare= finds a
row whose speed-up does not agree with the earlier one.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from eval.reports.timing_page import Agreement, Pass, compared, read_pass, row_cells, timing_page
from eval.tables.comparison import comparison_order
from eval.tables.experiments import Row, load_experiment
from eval.tables.tables import match_rows
from eval.timing import hardware_text
from spectrum.bench import timing
from spectrum.bench.job import Job
from spectrum.bench.loading import pipeline_of
from spectrum.bench.machine import COMMAND, ROUNDS, check_idle, conditions, load_at_start, note_start
from spectrum.bench.progress import Progress
from spectrum.bench.provenance import hardware
from spectrum.commands.guard import options, quiet, records_folder, wants_help
from spectrum.config.compose import compose
from spectrum.config.reader import RESULTS
from spectrum.config.sampling import Sampling
from spectrum.core.errors import refuse
from spectrum.models.pipelines import device_of
from spectrum.records.files import json_bytes, writable, write_together
from spectrum.records.record import Record, read_records, record_content

USAGE = f"{COMMAND} experiment=NAME[,NAME] [rounds=9] [records=FOLDER] [to=FILE] [compare=FILE] [force=true]"
OPTIONS = {
    "experiment": "the tables whose rows are timed, with commas between them",
    "rounds": f"how often each row is timed, at least {ROUNDS}; 9 by default",
    "records": "the folder of the records, which get the timing; results/records by default",
    "to": "the page to write; outputs/timing.md by default, results/timing.md is the committed one",
    "compare": "the page of an earlier pass, or a folder of records: does every row agree with it?",
    "force": "true times on a loaded machine too; records, page and tables then say so",
}


def main(words: list[str]) -> int:
    """Time the rows of experiments.

    Args:
        words: `key=value` words, see `OPTIONS`.

    Returns:
        0; 1 if a row disagrees with the pass that `compare=` names.
    """
    if wants_help(words, __doc__ or "", OPTIONS):
        return 0
    given = options(words, OPTIONS, USAGE)
    rounds, force = _checked(given)
    note_start()
    load = load_at_start()
    folder = records_folder(Path(given.get("records", RESULTS / "records")))
    earlier = read_pass(Path(given["compare"])) if "compare" in given else None
    to = Path(given.get("to", "outputs/timing.md"))
    writable(to.parent, "to")
    if not force:
        check_idle(load, "force=true")
    quiet()
    jobs = jobs_of(given["experiment"].split(","), folder)
    console = Console()
    found = _timed(list(jobs.values()), rounds, console)
    texts = {folder / f"{record.id}.json": json_bytes(record_content(record)) for record in found}
    write_together({**texts, to: timing_page(found).encode()})
    _print(found, console)
    console.print(f"written: {to}, and the timing in {len(found)} records of {folder}", highlight=False, soft_wrap=True)
    return _compare(found, earlier, given["compare"], console) if earlier else 0


def _checked(given: dict[str, str]) -> tuple[int, bool]:
    """The number of rounds, and whether a loaded machine is no reason to stop."""
    if not given.get("experiment"):
        refuse(f"which tables? type {USAGE}")
    rounds, force = given.get("rounds", "9"), given.get("force", "false")
    if not rounds.isdecimal() or int(rounds) < ROUNDS:
        refuse(f"rounds={rounds}: a record is timed in at least {ROUNDS} rounds: type rounds={ROUNDS} or more")
    if force not in ("true", "false"):
        refuse(f"force={force} is unknown: type force=true or leave it out")
    if Path(given.get("to", "")).is_dir() and given.get("to"):
        refuse(f"to={given['to']} is a folder: type to=FILE")
    return int(rounds), force == "true"


def jobs_of(names: Sequence[str], folder: Path) -> dict[str, tuple[Record, Job]]:
    """The record and the job of every row of some experiments, by the record's id.

    Args:
        names: of the experiments.
        folder: the folder of the records.

    Raises:
        SpectrumError: if a row has no record, a record is not what its row makes, or the rows have no uncached run in
            common.
    """
    records = read_records(folder)
    found: dict[str, tuple[Record, Job]] = {}
    for name in names:
        table = match_rows(load_experiment(name), records)
        if table.missing:
            refuse(
                f"{len(table.missing)} of {len(table.rows)} rows of {name} have no record in {folder}: type "
                f"python run.py experiment={name} records={folder}"
            )
        for row, record in table.rows:
            if record is not None and record.id not in found:
                found[record.id] = record, _job(name, row, record, folder)
    references = {job.base_folder.name for _, job in found.values()}
    if len(references) > 1:
        refuse(f"{','.join(names)} have {len(references)} uncached runs: time those with one and the same together")
    return dict(sorted(found.items(), key=lambda item: comparison_order(item[1][0])))


def _job(name: str, row: Row, record: Record, folder: Path) -> Job:
    """The job that made a record, from the overrides of its row."""
    keys = {key: "null" if value is None else value for key, value in row.keys.items()}
    job = Job.of(compose([f"experiment={name}", *(f"{key}={value}".replace(", ", ",") for key, value in keys.items())]))
    if job.folder.name != record.id or job.base_folder.name != record.reference:
        refuse(
            f"the record {record.id} is not what its row in {name} makes now, which is {job.folder.name} beside "
            f"{job.base_folder.name}: type python run.py experiment={name} records={folder}"
        )
    return job


def _timed(rows: list[tuple[Record, Job]], rounds: int, console: Console) -> list[Record]:
    """The records with the timing of one pass over all of them."""
    job = rows[0][1]
    pipe = pipeline_of(job, console)
    reference = timing.Side(job.uncached, Sampling.of(job.base))
    sides = [timing.Side(own.method, Sampling.of(own.config)) for _, own in rows]
    batches = timing.batches_of(job.samples, job.batch, rounds)
    console.print(f"timing {len(rows)} rows in {rounds} rounds of batch {job.batch}", highlight=False)
    with Progress(console) as progress:
        advance = progress.start("timing", timing.sample_steps(reference, sides, batches))
        timed = timing.timed_rounds(pipe, reference, sides, batches, advance)
    where, machine = conditions(load_at_start()), hardware(device_of(job.config.device), job.config.offload)
    process = timing.process_id(where)
    return [
        dataclasses.replace(record, timing=timing.timing_of(record.id, own, machine, where, process))
        for (record, _), own in zip(rows, timed, strict=True)
    ]


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    table.add_column(heads[0], min_width=15, overflow="fold")
    for head in heads[1:]:
        table.add_column(head, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _print(records: Sequence[Record], console: Console) -> None:
    """Print a row for each timed record."""
    machine = hardware_text(records[0].timing.hardware) if records[0].timing else ""
    heads = ("method", "NFE", "latency", "speed-up", "whole call", "eff.")
    console.print(_table(machine, heads, [row_cells(record)[1:] for record in records]))


def _compare(records: Sequence[Record], earlier: Pass, name: str, console: Console) -> int:
    """Print the rows of two passes beside each other; 1 if any row disagrees."""
    rows = compared(records, earlier)
    if all(row.other is None for row in rows):
        refuse(f"compare={name} has none of these records: type the page of a pass over the same experiments")
    lines = [(row.record.label, _speed(row.own), _speed(row.other), _verdict(row)) for row in rows]
    console.print(_table(f"Compared with {name}", ("method", "now", "then", ""), lines))
    machine = hardware_text(records[0].timing.hardware) if records[0].timing else ""
    if machine != earlier.hardware:
        console.print(f"{name} was timed on {earlier.hardware}, this on {machine}", highlight=False, soft_wrap=True)
    wrong = sum(not row.agrees for row in rows)
    count = sum(row.other is not None for row in rows)
    console.print(f"{count - wrong} of {count} rows agree within their intervals", highlight=False)
    return 1 if wrong else 0


def _speed(measured: Any) -> str:
    return "-" if measured is None else "{:.3f}x [{:.3f}, {:.3f}]".format(*measured)


def _verdict(row: Agreement) -> str:
    if row.other is None:
        return "is new"
    return "agrees" if row.agrees else "DISAGREES"
