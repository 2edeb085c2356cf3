"""The page of a timing pass: what was timed, on what, with what result; and the comparison with an earlier one."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.tables.comparison import comparison_order, markdown_table
from eval.timing import Measured, agree, hardware_text
from spectrum.core.errors import refuse
from spectrum.records.record import Record, read_records
from spectrum.records.timing import Timing

HEADS = ("record", "method", "NFE", "latency", "speed-up", "end to end", "efficiency")
TITLE = "# Timing"
EXPLAINED = (
    "All rows were timed in one process. A round takes one batch of samples, another in each round: the uncached run, "
    "the first method, the uncached run, the second method, and so on to a last uncached run. The speed-up of a round "
    "is the mean of the uncached runs before and after a method over the method, for denoising; the table has the "
    "median over the rounds with its 95 % interval from order statistics. NFE and efficiency (speed-up x NFE / steps) "
    "are of the timed calls themselves. The row of the uncached run shows the noise."
)
FORCED = "**The machine was loaded, and the pass was forced: do not quote these figures.**"
_SPEED = re.compile(r"^([\d.]+)x \[([\d.]+), ([\d.]+)\]$")


@dataclass(frozen=True)
class Pass:
    """What an earlier timing found.

    Attributes:
        hardware: what it ran on, see `hardware_text`.
        speedups: by record id, the speed-up with its interval.
    """

    hardware: str
    speedups: dict[str, Measured]


def measured(timing: Timing) -> Measured:
    """The speed-up of a timing with the lower and upper end of its interval."""
    low, high = timing.speedup_interval
    return timing.speedup, low, high


def row_cells(record: Record) -> list[str]:
    """A timed record as text, for the columns of `HEADS`."""
    timing = record.timing
    assert timing is not None
    speedup, low, high = measured(timing)
    milliseconds = 1000 * timing.seconds_per_sample["candidate"]["denoise"]
    cells = [f"`{record.id}`", record.label, f"{timing.nfe:.4g} / {record.steps}", f"{milliseconds:.0f} ms"]
    cells += [f"{speedup:.3f}x [{low:.3f}, {high:.3f}]", f"{timing.speedup_end_to_end:.3f}x"]
    return [*cells, f"{100 * (record.efficiency or 0):.1f} %"]


def timing_page(records: Sequence[Record]) -> str:
    """The page of a pass, a function of its records alone.

    Args:
        records: those that were timed together.

    Returns:
        Markdown: the conditions, and a row for each record.
    """
    ordered = sorted(records, key=comparison_order)
    timing = ordered[0].timing
    assert timing is not None
    where = timing.conditions
    loads = [f"{load:.2f}" for load in where.load]
    clocks = "unknown" if where.clocks_mhz is None else " to ".join(f"{clock:.0f}" for clock in where.clocks_mhz)
    about = {
        "hardware": hardware_text(timing.hardware),
        "date": where.date,
        "commit": f"{where.git['commit']}{', with files of the code changed' if where.git['dirty'] else ''}",
        "command": f"`{where.command}`",
        "process": timing.process,
        "rounds": f"{len(timing.rounds)}, after a warm-up that was thrown away",
        "batch": str(timing.batch),
        "load": f"{' before, '.join(loads)} after, with the pass itself in it" if loads else "unknown",
        "clocks": f"{clocks} MHz",
    }
    facts = "\n".join([TITLE, "", "| | |", "| --- | --- |", *(f"| {key} | {text} |" for key, text in about.items())])
    rows = markdown_table(HEADS, [row_cells(record) for record in ordered])
    return "\n\n".join([facts, *([FORCED] if where.forced else []), EXPLAINED, rows])


def read_pass(path: Path) -> Pass:
    """What an earlier pass found.

    Args:
        path: its page, or a folder of records.

    Raises:
        SpectrumError: if there is no timing in it.
    """
    if path.is_dir():
        timed = {record.id: record.timing for record in read_records(path) if record.timing is not None}
        machines = sorted({hardware_text(timing.hardware) for timing in timed.values()})
        found = Pass(" and ".join(machines), {name: measured(timing) for name, timing in timed.items()})
    else:
        found = _read_page(path)
    return found if found.speedups else refuse(f"compare={path} has no timing in it: type compare=FILE, a page of to=")


def _read_page(path: Path) -> Pass:
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        return refuse(f"compare={path} cannot be read ({error}): type compare=FILE, a page that to= wrote")
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("| ")]
    hardware = next((row[1] for row in rows if row[0] == "hardware"), "unknown")
    speedups = {}
    for row in (row for row in rows if len(row) == len(HEADS)):
        speed = _SPEED.match(row[HEADS.index("speed-up")])
        if speed:
            speedups[row[0].strip("`")] = float(speed[1]), float(speed[2]), float(speed[3])
    return Pass(hardware, speedups)


@dataclass(frozen=True)
class Agreement:
    """One row of a comparison of two passes; `other` is None where the earlier pass lacks the record."""

    record: Record
    own: Measured
    other: Measured | None

    @property
    def agrees(self) -> bool:
        """Whether the two agree within their intervals; true where there is nothing to compare."""
        return self.other is None or agree(self.own, self.other)


def compared(records: Sequence[Record], earlier: Pass) -> list[Agreement]:
    """The rows of a pass beside those of an earlier one.

    Args:
        records: timed records.
        earlier: what an earlier pass found.
    """
    ordered = sorted((r for r in records if r.timing is not None), key=comparison_order)
    return [Agreement(r, measured(r.timing), earlier.speedups.get(r.id)) for r in ordered if r.timing is not None]
