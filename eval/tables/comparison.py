"""The comparison of a few records as a table: in the terminal, and in Markdown."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from eval.metrics.columns import METRICS
from spectrum.records.record import Record

WIDE = 130
BASE = ("method", "NFE", "latency", "speed-up", "efficiency")


def shown_metrics(records: Sequence[Record]) -> list[str]:
    """The metrics that any of the records holds, in the order of `eval.columns`."""
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
    """A record as the cells of `BASE` and of `metrics`."""
    timing = record.timing
    cells = [record.label, f"{record.nfe:.3g} / {record.steps}"]
    if timing:
        latency = timing.seconds_per_sample["candidate"]["denoise"]
        shown = f"{1000 * latency:.0f} ms" if latency < 1 else f"{latency:.2f} s"
        cells += [shown, f"{timing.speedup:.2f}x", f"{100 * (record.efficiency or 0):.0f} %"]
    else:
        cells += ["", "", ""]
    return (*cells, *(metric_cell(name, record) for name in metrics))


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
