"""The comparison of a few records as a table: in the terminal, in Markdown, and with full numbers as CSV."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from eval.metrics.columns import METRICS
from spectrum.records.record import Record

WIDE = 130
"""Below this width in letters the terminal shows the first two metrics alone."""
BASE = ("method", "NFE", "latency", "speed-up", "efficiency")
"""The columns that every table has, before those of the metrics."""
CSV_BASE = ("method", "id", "nfe", "steps", "seconds", "speedup", "efficiency")
CSV_PARTS = ("mean", "interval", "worst_5_percent")
"""The columns that a CSV file has for each metric."""


def shown_metrics(records: Sequence[Record]) -> list[str]:
    """The metrics that any of the records holds, in the order of `eval.metrics.columns`."""
    return [name for name in METRICS if any(name in record.metrics for record in records)]


def column_titles(records: Sequence[Record]) -> tuple[str, ...]:
    """Column heads of the records' table."""
    return (*BASE, *(METRICS[name].title for name in shown_metrics(records)))


def metric_cell(name: str, record: Record) -> str:
    """A metric's mean ± half of its interval; `same` for the reference itself, empty where it was not computed."""
    entry = record.metrics.get(name)
    if entry is None:
        return ""
    if record.is_reference and METRICS[name].identical is not None:
        return "same"
    digits, mean, spread = METRICS[name].digits, entry.mean, entry.interval
    if mean is None:
        return "same"
    return f"{mean:.{digits}f}" + ("" if spread is None else f" ± {spread:.{digits}f}")


def record_cells(record: Record, metrics: Sequence[str]) -> tuple[str, ...]:
    """A record as text, for the columns of `BASE` and of some metrics.

    Args:
        record: the record.
        metrics: the metrics' names.
    """
    timing = record.timing
    cells = [record.label, f"{record.nfe:.3g} / {record.steps}"]
    if timing:
        latency = timing.seconds_per_sample["candidate"]["denoise"]
        text = f"{1000 * latency:.0f} ms" if latency < 1 else f"{latency:.2f} s"
        cells += [text, f"{timing.speedup:.2f}x", f"{100 * (record.efficiency or 0):.0f} %"]
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
    """Print the comparison of records of one model; a narrow terminal gets the first two metrics alone."""
    console = console or Console()
    first, metrics = records[0], shown_metrics(records)
    hidden = metrics[2:] if console.width < WIDE else []
    metrics = [name for name in metrics if name not in hidden]
    title = f"{first.model['name']} ({first.model_kind}), {first.samples} samples, {first.hardware['device']}"
    more = f" Also in the record: {', '.join(METRICS[name].title for name in hidden)}." if hidden else ""
    caption = "To the uncached run: mean ± half of its 95 % interval. Latency: denoising, per image." + more
    table = Table(title=title, caption=caption, box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    heads = (*BASE, *(METRICS[name].title for name in metrics))
    table.add_column(heads[0], min_width=15, overflow="fold")
    for name in heads[1:]:
        table.add_column(name.replace("efficiency", "eff."), justify="right", no_wrap=True)
    for record in records:
        table.add_row(*record_cells(record, metrics))
    console.print(table)


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
    """The columns of a CSV file: those of `CSV_BASE`, and for each metric its mean, half-interval and worst 5 %."""
    return [*CSV_BASE, *(f"{name}_{part}" for name in metrics for part in CSV_PARTS)]


def csv_cells(record: Record, metrics: Sequence[str]) -> list[Any]:
    """A record with full numbers, for the columns of `csv_heads`; None where it has no such number."""
    _, seconds, speedup, efficiency = record_numbers(record, ())
    values = [getattr(record.metrics.get(name), part, None) for name in metrics for part in CSV_PARTS]
    return [record.label, record.id, record.nfe, record.steps, seconds, speedup, efficiency, *values]


def csv_text(heads: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    """Lines of values as CSV. None becomes an empty cell."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([heads, *lines])
    return out.getvalue()


def comparison_csv(records: Sequence[Record]) -> str:
    """The comparison with full numbers as CSV."""
    metrics = shown_metrics(records)
    return csv_text(csv_heads(metrics), [csv_cells(record, metrics) for record in records])
