"""The comparison of a few records as a table: in the terminal, in Markdown, and with full numbers as CSV."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from eval.metrics.columns import METRICS
from spectrum.records.record import Record

LEAST_METRICS = 2
"""The metrics that a terminal shows however narrow it is."""
METHOD_WIDTH = 15
"""The letters that a terminal leaves for the names of methods; longer ones are folded."""
BASE = ("method", "NFE", "latency", "speed-up", "efficiency")
"""The columns that every table has, before those of the metrics."""
CSV_BASE = (
    "method", "id", "nfe", "steps", "seconds", "speedup", "speedup_low", "speedup_high", "timed_nfe", "efficiency",
)  # fmt: skip
CSV_PARTS = ("mean", "interval", "worst_5_percent", "worst_interval")
"""The columns that a CSV file has for each metric."""


def shown_metrics(records: Sequence[Record]) -> list[str]:
    """The metrics that any of the records holds, in the order of `eval.metrics.columns`."""
    return [name for name in METRICS if any(name in record.metrics for record in records)]


def column_titles(records: Sequence[Record]) -> tuple[str, ...]:
    """Column heads of the records' table."""
    return (*BASE, *(METRICS[name].title for name in shown_metrics(records)))


def with_half(mean: float, half: float | None, digits: int) -> str:
    """A figure as `mean ± half`; the mean alone where there is no interval.

    Args:
        mean: the figure.
        half: half of its interval; None or NaN for none.
        digits: decimals of both.

    Example:
        >>> with_half(31.114, 0.826, 2), with_half(7.5, None, 2)
        ('31.11 ± 0.83', '7.50')
    """
    return f"{mean:.{digits}f}" + ("" if half is None or math.isnan(half) else f" ± {half:.{digits}f}")


def metric_cell(name: str, record: Record) -> str:
    """A metric's mean ± half of its interval; `same` for what equals the reference, empty where there is no figure."""
    entry = record.metrics.get(name)
    if entry is None:
        return ""
    identical = METRICS[name].identical
    if (record.is_reference and identical is not None) or (entry.mean is None and identical == math.inf):
        return "same"
    if entry.mean is None:
        return ""
    return with_half(entry.mean, entry.interval, METRICS[name].digits)


def speedup_cell(record: Record, brief: bool = False) -> str:
    """A speed-up with its interval, and whether it was timed on a loaded machine; empty without a timing.

    Args:
        record: the record.
        brief: leave the interval out.
    """
    timing = record.timing
    if timing is None:
        return ""
    low, high = timing.speedup_interval
    interval = "" if brief else f" [{low:.2f}, {high:.2f}]"
    return f"{timing.speedup:.2f}x{interval}" + (" forced" if timing.conditions.forced else "")


def record_cells(record: Record, metrics: Sequence[str], brief: bool = False) -> tuple[str, ...]:
    """A record as text, for the columns of `BASE` and of some metrics.

    Args:
        record: the record.
        metrics: the metrics' names.
        brief: leave the interval of the speed-up out.
    """
    timing = record.timing
    cells = [record.label, f"{record.nfe:.3g} / {record.steps}"]
    if timing:
        latency = timing.seconds_per_sample["candidate"]["denoise"]
        text = f"{1000 * latency:.0f} ms" if latency < 1 else f"{latency:.2f} s"
        cells += [text, speedup_cell(record, brief), f"{100 * (record.efficiency or 0):.0f} %"]
    else:
        cells += ["", "", ""]
    return (*cells, *(metric_cell(name, record) for name in metrics))


def record_numbers(record: Record, metrics: Sequence[str]) -> tuple[float | None, ...]:
    """The number behind each of `record_cells` but the first, None where the record has none.

    Args:
        record: the record.
        metrics: the metrics' names.
    """
    timing = record.timing
    seconds = timing.seconds_per_sample["candidate"]["denoise"] if timing else None
    cost = record.nfe, seconds, timing.speedup if timing else None, record.efficiency
    return (*cost, *(record.metric(name) for name in metrics))


def comparison_order(record: Record) -> tuple[Any, ...]:
    """Sort key of a comparison: uncached first, then by runs, most first, then by name."""
    return (record.name != "none", -record.nfe, record.label)


def print_table(records: list[Record], console: Console | None = None) -> None:
    """Print the comparison of records of one model.

    A terminal too narrow for all of it gets the speed-ups without their intervals, and as many metrics as fit, the
    first two in any case.
    """
    console = console or Console()
    first, metrics = records[0], shown_metrics(records)
    brief = width_of(records, metrics) > console.width
    fits = [n for n in range(len(metrics), LEAST_METRICS, -1) if width_of(records, metrics[:n], brief) <= console.width]
    shown = metrics[: fits[0] if fits else LEAST_METRICS]
    hidden = metrics[len(shown) :]
    title = f"{first.model['name']} ({first.model_kind}), {first.samples} samples, {first.hardware['device']}"
    more = f" Also in the record: {', '.join(METRICS[name].title for name in hidden)}." if hidden else ""
    caption = "To the uncached run: mean ± half of its 95 % interval. Latency: denoising, per image." + more
    table = Table(title=title, caption=caption, box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    heads, lines = _printed(records, shown, brief)
    table.add_column(heads[0], min_width=METHOD_WIDTH, overflow="fold")
    for name in heads[1:]:
        table.add_column(name, justify="right", no_wrap=True)
    for line in lines:
        table.add_row(*line)
    console.print(table)


def _printed(records: Sequence[Record], metrics: Sequence[str], brief: bool) -> tuple[list[str], list[Sequence[str]]]:
    """Column heads and lines of a table in the terminal."""
    heads = [*BASE, *(METRICS[name].title for name in metrics)]
    return [head.replace("efficiency", "eff.") for head in heads], [record_cells(r, metrics, brief) for r in records]


def width_of(records: Sequence[Record], metrics: Sequence[str], brief: bool = False) -> int:
    """The letters that a terminal needs for a table, with the names of methods folded.

    Args:
        records: its rows.
        metrics: the metrics' names.
        brief: whether the speed-ups stand without their intervals.
    """
    heads, lines = _printed(records, metrics, brief)
    widths = [max(map(cell_len, column)) for column in zip(heads, *lines, strict=True)]
    return METHOD_WIDTH + sum(widths[1:]) + len(widths) + 1


def comparison_markdown(records: Sequence[Record]) -> str:
    """The comparison as a Markdown table."""
    metrics = shown_metrics(records)
    return markdown_table(column_titles(records), [record_cells(record, metrics) for record in records])


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its first column left-aligned and the others right."""
    rule = "|" + " --- |" + " ---: |" * (len(heads) - 1)
    lines = ["| " + " | ".join(cells) + " |" for cells in (heads, *rows)]
    return "\n".join([lines[0], rule, *lines[1:]]) + "\n"


def csv_heads(metrics: Sequence[str]) -> list[str]:
    """The columns of a CSV file: those of `CSV_BASE`, and for each metric those of `CSV_PARTS`."""
    return [*CSV_BASE, *(f"{name}_{part}" for name in metrics for part in CSV_PARTS)]


def csv_cells(record: Record, metrics: Sequence[str]) -> list[Any]:
    """A record with full numbers, for the columns of `csv_heads`; None where it has no such number."""
    _, seconds, speedup, efficiency = record_numbers(record, ())
    low, high, nfe = (*record.timing.speedup_interval, record.timing.nfe) if record.timing else (None, None, None)
    values = [getattr(record.metrics.get(name), part, None) for name in metrics for part in CSV_PARTS]
    cost = [record.nfe, record.steps, seconds, speedup, low, high, nfe, efficiency]
    return [record.label, record.id, *cost, *values]


def csv_text(heads: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    """Lines of values as CSV. None becomes an empty cell."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([heads, *lines])
    return out.getvalue()


def comparison_csv(records: Sequence[Record]) -> str:
    """The comparison with full numbers as CSV."""
    metrics = shown_metrics(records)
    return csv_text(csv_heads(metrics), [csv_cells(record, metrics) for record in records])
