"""Tables of records, as Markdown, LaTeX and CSV. Pure functions of records; torch is not imported."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eval import statistics
from eval.metrics.columns import METRICS
from eval.tables.comparison import (
    column_titles,
    csv_cells,
    csv_heads,
    csv_text,
    markdown_table,
    record_cells,
    shown_metrics,
)
from eval.tables.experiments import Experiment, Row, find_record, made_on_same_data
from spectrum.records.record import Record

PUBLISHED = {
    "speedup": "speed-up", "psnr": "PSNR (dB)", "ssim": "SSIM", "lpips": "LPIPS", "image_reward": "ImageReward",
    "vbench_quality": "VBench quality", "fid": "FID",
}  # fmt: skip
NONE = "-"
EXPLAINED = (
    "Fidelity is to the uncached run on the same noise. Mean ± half of the 95 % bootstrap interval over samples, "
    "differences with their paired interval. Latency is denoising per image, speed-up its ratio to the uncached run in "
    "the same process, efficiency the speed-up over steps / runs. Euler at this latency is the PSNR of plain sampling "
    "with as many steps as take the same time, between the measured controls."
)


@dataclass(frozen=True)
class ExperimentTable:
    """An experiment with the record of each of its rows.

    Attributes:
        experiment: the experiment.
        rows: each row with its record, None where there is none.
        controls: every record of plain sampling with fewer steps on the same data, also at runs that are no row.
    """

    experiment: Experiment
    rows: list[tuple[Row, Record | None]]
    controls: list[Record]

    @property
    def records(self) -> list[Record]:
        """The records of the rows that have one."""
        return [record for _, record in self.rows if record is not None]

    @functools.cached_property
    def lines(self) -> list[list[str]]:
        """The cells of each row as text. Made once: the intervals of differences take time."""
        return [cells(self, *match) for match in self.rows]

    @property
    def missing(self) -> list[Row]:
        """The rows that have no record."""
        return [row for row, record in self.rows if record is None]


def match_rows(experiment: Experiment, records: Sequence[Record]) -> ExperimentTable:
    """Find the record of each row of an experiment.

    Args:
        experiment: the experiment.
        records: any records.

    Returns:
        Its rows with their records: the uncached run first, then those with most runs, as the experiment lists them.
    """
    same = made_on_same_data(records, experiment.data)
    matched = [(row, find_record(row, same)) for row in experiment.rows]

    def order(match: tuple[Row, Record | None]) -> tuple[bool, float]:
        row, record = match
        return row.keys["method"] != "none", -float(row.keys.get("runs") or (record.nfe if record else 0))

    controls = [r for r in same if r.name == "fewer_steps"]
    return ExperimentTable(experiment, sorted(matched, key=order), controls)


def heads(table: ExperimentTable) -> list[str]:
    """Column heads: method, cost, each metric, worst cases, the paired difference, published figures."""
    found = list(column_titles(table.records))
    if table.records:
        found += ["PSNR, worst 5 %", "Euler at this latency"]
        found += [f"PSNR less {table.experiment.against}'s"] if table.experiment.against else []
    return found + [f"published {PUBLISHED[key]}" for key in _published(table)]


def _published(table: ExperimentTable) -> list[str]:
    return [key for key in PUBLISHED if any(row.published.get(key) for row, _ in table.rows)]


def cells(table: ExperimentTable, row: Row, record: Record | None) -> list[str]:
    """One row of the table as text, for the columns of `heads`.

    Args:
        table: the table.
        row: one of its rows.
        record: the record of that row.
    """
    metrics = shown_metrics(table.records)
    if record is None:
        own = [row.label, *[NONE] * (len(heads(table)) - 1 - len(_published(table)))]
    else:
        own = [cell or NONE for cell in record_cells(record, metrics)]
        own += [_worst(record), same_latency(record, table.controls)]
        own += [difference(table, row, record)] if table.experiment.against else []
    return own + [row.published.get(key) or NONE for key in _published(table)]


def _worst(record: Record) -> str:
    value = record.metrics["psnr"].worst_5_percent if "psnr" in record.metrics else None
    return NONE if value is None else f"{value:.2f}"


def same_latency(record: Record, controls: Sequence[Record]) -> str:
    """PSNR of plain sampling with fewer steps at the record's speed-up, interpolated between its measured points.

    Speed-ups are ratios within each record's own process, so points of different runs may be joined.

    Args:
        record: the record.
        controls: records of plain sampling with fewer steps.

    Returns:
        The PSNR; `above` or `below` that of the nearest point where the speed-up lies outside them; `-` where it says
        nothing.
    """
    points = sorted(
        (r.timing.speedup, psnr) for r in controls if r.timing is not None and (psnr := r.metric("psnr")) is not None
    )
    if record.name in ("none", "fewer_steps") or record.timing is None or len(points) < 2:
        return NONE
    at, speeds = record.timing.speedup, [speed for speed, _ in points]
    if not speeds[0] <= at <= speeds[-1]:
        return f"below {points[-1][1]:.2f}" if at > speeds[-1] else f"above {points[0][1]:.2f}"
    return f"{np.interp(at, speeds, [value for _, value in points]):.2f}"


def difference(table: ExperimentTable, row: Row, record: Record) -> str:
    """Mean PSNR less that of the method that the experiment compares with, at the same runs.

    Args:
        table: the table.
        row: one of its rows.
        record: the record of that row.

    Returns:
        The difference with its paired 95 % interval, or `-`.
    """
    rivals = [
        other
        for r, other in table.rows
        if other is not None
        and "psnr" in other.metrics
        and r.keys["method"] == table.experiment.against
        and _setting(r) == _setting(row)
    ]
    own = record.metrics["psnr"].values if "psnr" in record.metrics else None
    if not rivals or rivals[0] is record or not own or not any(v is not None for v in own):
        return NONE
    mean, low, high = statistics.paired(own, rivals[0].metrics["psnr"].values or [])
    return f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"


def _setting(row: Row) -> dict[str, Any]:
    return {key: value for key, value in row.keys.items() if key != "method" and not key.startswith("method.")}


def about(table: ExperimentTable) -> str:
    """What the measured rows were made on, one paragraph."""
    if not table.records:
        return "No row of this table has been measured; published figures stand alone."
    first = table.records[0]
    kinds = sorted({r.model_kind for r in table.records})
    chips = sorted({f"{t.hardware['cpu']} with {t.hardware['threads']} threads" if "gpu" not in t.hardware
                    else t.hardware["gpu"] for t in (r.timing for r in table.records) if t})  # fmt: skip
    commits = sorted({str(r.git["commit"])[:9] for r in table.records})
    batches = sorted({str(r.timing.batch) for r in table.records if r.timing})
    timed = f" Timed on {', '.join(chips)}, {first.model['dtype']}, batch {', '.join(batches)}." if chips else ""
    notes = sorted({f"{METRICS[n].title}: {m.warning}." for r in table.records for n, m in r.metrics.items()
                    if m.warning})  # fmt: skip
    made = (
        f"Model `{first.model['name']}` ({', '.join(kinds)}), {first.samples} samples "
        f"({len(first.prompts)} prompts x {len(first.seeds)} seeds), {first.steps} steps.{timed} "
        f"torch {first.packages['torch']}, commit {', '.join(commits)}. "
    )
    return " ".join([made + EXPLAINED, *notes])


def markdown(table: ExperimentTable) -> str:
    """The table with what it was made on, and under it the commands of what is missing."""
    text = f"{about(table)}\n\n{markdown_table(heads(table), table.lines)}"
    if table.missing:
        commands = "\n".join(row.command for row in table.missing)
        text += f"\nNot measured yet; these commands make the missing rows:\n\n```bash\n{commands}\n```\n"
    return text


def latex(table: ExperimentTable) -> str:
    """The table as a booktabs tabular, with the missing rows' commands as comments."""
    escape = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "±": r"$\pm$"}

    def clean(text: str) -> str:
        return "".join(escape.get(letter, letter) for letter in text)

    titles = heads(table)
    lines = [f"% {about(table)}", rf"\begin{{tabular}}{{l{'r' * (len(titles) - 1)}}}", r"\toprule"]
    lines += [" & ".join(map(clean, titles)) + r" \\", r"\midrule"]
    lines += [" & ".join(map(clean, line)) + r" \\" for line in table.lines]
    lines += [r"\bottomrule", r"\end{tabular}", *(f"% missing: {row.command}" for row in table.missing)]
    return "\n".join(lines) + "\n"


def csv_table(table: ExperimentTable) -> str:
    """The table as CSV with full numbers. A row without a record has the command that makes it in the last column."""
    metrics = shown_metrics(table.records)
    columns = csv_heads(metrics)
    blank = [None] * (len(columns) - 1)
    lines = [
        [row.label, *blank, row.command] if record is None else [*csv_cells(record, metrics), None]
        for row, record in table.rows
    ]
    return csv_text([*columns, "missing_command"], lines)
