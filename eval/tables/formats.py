"""An experiment's table as Markdown, LaTeX and CSV."""

from typing import Any

from eval.tables.about import about, remarks
from eval.tables.comparison import csv_cells, csv_heads, csv_text, markdown_table, shown_metrics
from eval.tables.differences import clip_difference, psnr_of_mean_error
from eval.tables.latency import same_latency
from eval.tables.tables import ExperimentTable, heads, is_video
from spectrum.records.files import finite
from spectrum.records.record import Record

CSV_MORE = (
    "psnr_of_mean_mse", "psnr_at_latency", "psnr_at_latency_interval", "psnr_difference", "psnr_difference_low",
    "psnr_difference_high", "psnr_difference_p", "psnr_difference_p_holm", "clip_difference",
    "clip_difference_interval", "timing_pass", "timing_forced", "missing_command",
)  # fmt: skip
"""The columns of a table's CSV file behind those of its metrics."""
DIGITS = 12
"""Significant digits of what is worked out for a table: the last ones of a sum differ between machines."""


def markdown(table: ExperimentTable) -> str:
    """The table with what it was made on, and under it its remarks and the commands of what is missing."""
    text = f"{about(table)}\n\n{markdown_table(heads(table), table.lines)}"
    if found := remarks(table):
        text += f"\n{' '.join(found)}\n"
    if table.missing:
        commands = "\n".join(row.command for row in table.missing)
        text += f"\nNot measured yet; these commands make the missing rows:\n\n```bash\n{commands}\n```\n"
    return text


def latex(table: ExperimentTable) -> str:
    """The table as a booktabs tabular, with all that is said around it and the missing rows' commands as comments."""
    escape = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "±": r"$\pm$"}

    def clean(text: str) -> str:
        return "".join(escape.get(letter, letter) for letter in text)

    titles = heads(table)
    lines = [f"% {about(table)}", *(f"% {line}" for line in remarks(table))]
    lines += [rf"\begin{{tabular}}{{l{'r' * (len(titles) - 1)}}}", r"\toprule"]
    lines += [" & ".join(map(clean, titles)) + r" \\", r"\midrule"]
    lines += [" & ".join(map(clean, line)) + r" \\" for line in table.lines]
    lines += [r"\bottomrule", r"\end{tabular}", *(f"% missing: {row.command}" for row in table.missing)]
    return "\n".join(lines) + "\n"


def csv_table(table: ExperimentTable) -> str:
    """The table as CSV: the records' numbers in full, and what is worked out for the table to twelve digits.

    A row without a record has the command that makes it in the last column.
    """
    metrics = shown_metrics(table.records)
    columns = [*csv_heads(metrics), *CSV_MORE]
    blank = [None] * (len(columns) - 2)
    lines = [
        [row.label, *blank, row.command]
        if record is None
        else [*csv_cells(record, metrics), *_more_numbers(table, record), None]
        for row, record in table.rows
    ]
    return csv_text(columns, lines)


def _more_numbers(table: ExperimentTable, record: Record) -> list[Any]:
    """A record's numbers for the columns of `CSV_MORE` but the last, None where it has no such number."""
    psnr = record.metrics.get("psnr")
    mean_error = psnr_of_mean_error(psnr.values) if psnr is not None and psnr.values and not is_video(record) else None
    at_latency = same_latency(record, table.controls) or (None, None)
    own, clip = table.differences.get(record.id), clip_difference(record, table.full)
    gap = own and own.difference
    difference = [gap.mean, gap.low, gap.high, gap.p, own.p] if own and gap else [None] * 5
    timing = record.timing
    passed = (timing.process, timing.conditions.forced) if timing else (None, None)
    numbers = finite([mean_error, *at_latency, *difference, *((clip.mean, clip.half) if clip else (None, None))])
    return [*(None if number is None else float(f"{number:.{DIGITS}g}") for number in numbers), *passed]
