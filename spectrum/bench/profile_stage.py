"""The stage of a job that profiles it: `profile=true` of `run.py`."""

from collections.abc import Callable
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from spectrum.bench.job import Job
from spectrum.bench.profiling import LEDGER, PAGE, here_of, profile, stored, trace_line
from spectrum.bench.time_ledger import READING, conclusion, heads_and_rows, machine_line


def profile_of(loaded: Callable[[], Any], job: Job, console: Console) -> dict[str, Any]:
    """The profile of a job: the one in its folder, made on this machine by this code, or a new one.

    `redo=[profile]` makes a new one too.

    Args:
        loaded: returns the job's pipeline.
        job: the job.
        console: told that it is made.

    Returns:
        What `ledger.json` holds.
    """
    there = None if "profile" in job.config.redo else stored(job.folder, here_of(job))
    if there is not None:
        return there
    console.print("profiling: one batch is sampled again, with marks and then with torch's profiler", highlight=False)
    return profile(loaded(), job)


def print_profile(content: dict[str, Any], console: Console) -> None:
    """Print a profile's table, 80 columns wide, and what follows from it.

    Args:
        content: what `ledger.json` holds.
        console: where.
    """
    heads, rows = heads_and_rows(content, most=2)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for number, head in enumerate(heads):
        table.add_column(head, justify="right" if number else "left", overflow="fold", no_wrap=bool(number))
    for row in rows[:-1]:
        table.add_row(*row)
    table.add_section()
    table.add_row(*rows[-1])
    console.print(table)
    files = f"{LEDGER}, {PAGE}; {trace_line(content)}"
    for line in (READING, conclusion(content), machine_line(content), content["note"], files):
        console.print(line, highlight=False, width=min(80, console.width), soft_wrap=False)
