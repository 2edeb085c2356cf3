"""The table of an experiment: its rows with their records, and the cells. Pure functions of records, without torch."""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval.metrics.columns import METRICS
from eval.tables.comparison import column_titles, record_cells, shown_metrics, with_half
from eval.tables.differences import (
    Comparison,
    clip_cell,
    has_values,
    orders,
    psnr_differences,
    psnr_of_mean_error,
)
from eval.tables.experiments import Experiment, Row, find_record, made_on_same_data
from eval.tables.latency import same_latency_cell
from spectrum.core.errors import refuse
from spectrum.records.record import Record

PUBLISHED = {
    "speedup": "speed-up", "psnr": "PSNR (dB)", "ssim": "SSIM", "lpips": "LPIPS", "image_reward": "ImageReward",
    "vbench_quality": "VBench quality", "fid": "FID",
}  # fmt: skip
NONE = "-"
MEAN_ERROR = "PSNR of mean MSE"
WORST = "PSNR, worst 5 %"
AT_LATENCY = "Euler at this latency"
CLIP_LESS = "CLIP less the full run's"


@dataclass(frozen=True)
class ExperimentTable:
    """An experiment with the record of each of its rows.

    Attributes:
        experiment: the experiment.
        rows: each row with its record, None where there is none.
        controls: every record of plain sampling with fewer steps on the same data, also at runs that are no row.
        full: the record of the uncached run that all rows are compared with; None where it is not among the records.
    """

    experiment: Experiment
    rows: list[tuple[Row, Record | None]]
    controls: list[Record]
    full: Record | None = None

    @property
    def records(self) -> list[Record]:
        """The records of the rows that have one."""
        return [record for _, record in self.rows if record is not None]

    @functools.cached_property
    def differences(self) -> Mapping[str, Comparison]:
        """Of each record that has a rival, its PSNR less the rival's, by the record's id."""
        return psnr_differences(self.rows, self.experiment.against)

    @functools.cached_property
    def orders(self) -> list[tuple[Any, int, float]]:
        """How often the order of the rows comes back, by number of runs: see `eval.tables.differences.orders`."""
        return orders(self.rows)

    @functools.cached_property
    def compares_clip(self) -> bool:
        """Whether any row has a CLIP score that can be compared with the uncached run's."""
        rows = [record for record in self.records if not record.is_reference]
        return has_values(self.full, "clip_score") and any(has_values(record, "clip_score") for record in rows)

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
        Its rows with their records: the uncached run first, then those with most runs, as the experiment lists them. A
        record with neither metrics nor a timing, such as that of an uncached run which others are checked against,
        does not fill a row.

    Raises:
        SpectrumError: if the records of two rows are compared with different uncached runs.
    """
    same = made_on_same_data(records, experiment.data)
    found = [(row, find_record(row, same)) for row in experiment.rows]
    matched = [(row, record if record and (record.metrics or record.timing) else None) for row, record in found]

    def order(match: tuple[Row, Record | None]) -> tuple[bool, float]:
        row, record = match
        return row.keys["method"] != "none", -float(row.keys.get("runs") or (record.nfe if record else 0))

    shown = [record for _, record in matched if record is not None]
    controls = [r for r in same if r.name == "fewer_steps"] if shown else []
    check_one_reference([*shown, *controls])
    full = next((r for r in same if shown and r.id == shown[0].reference), None)
    return ExperimentTable(experiment, sorted(matched, key=order), controls, full)


def check_one_reference(records: Sequence[Record]) -> None:
    """Refuse records of one table that are compared with different uncached runs.

    Raises:
        SpectrumError: with both ids.
    """
    first = {record.reference: record for record in reversed(records)}
    if len(first) > 1:
        (one, own), (two, other), *_ = first.items()
        refuse(
            f"the records {own.id} and {other.id} stand in one table, and are compared with different uncached runs, "
            f"{one} and {two}: delete those of the older one, and run their commands again"
        )


def heads(table: ExperimentTable) -> list[str]:
    """Column heads: method, cost, each metric, worst cases, differences, published figures."""
    own = measured(table, table.records[0]) if table.records else column_titles([])
    return [*own, *(f"published {PUBLISHED[key]}" for key in _published(table))]


def _published(table: ExperimentTable) -> list[str]:
    return [key for key in PUBLISHED if any(row.published.get(key) for row, _ in table.rows)]


def cells(table: ExperimentTable, row: Row, record: Record | None) -> list[str]:
    """One row of the table as text, for the columns of `heads`.

    Args:
        table: the table.
        row: one of its rows.
        record: the record of that row.
    """
    published = [row.published.get(key) or NONE for key in _published(table)]
    if record is None:
        return [row.label, *[NONE] * (len(heads(table)) - 1 - len(published)), *published]
    return [*(cell or NONE for cell in measured(table, record).values()), *published]


def measured(table: ExperimentTable, record: Record) -> dict[str, str]:
    """What a row shows of its record: text by column head, empty where there is nothing to show.

    Args:
        table: the table.
        record: the record of one of its rows.
    """
    found: dict[str, str] = {}
    shown = record_cells(record, shown_metrics(table.records))
    for title, cell in zip(column_titles(table.records), shown, strict=True):
        found[title] = cell
        if title == METRICS["psnr"].title and not is_video(record):
            found[MEAN_ERROR] = mean_error_cell(record)
    found[WORST] = worst_cell(record)
    found[AT_LATENCY] = same_latency_cell(record, table.controls)
    if table.experiment.against:
        own = table.differences.get(record.id)
        found[f"PSNR less {table.experiment.against}'s"] = own.cell if own else ""
    if table.compares_clip:
        found[CLIP_LESS] = clip_cell(record, table.full)
    return found


def is_video(record: Record) -> bool:
    """Whether the samples are videos; the PSNR of one is the mean of its frames', and does not give a mean error."""
    return (record.model.get("frames") or 1) > 1


def mean_error_cell(record: Record) -> str:
    """The PSNR of the mean squared error over all samples; `same` if all are equal to the reference's."""
    values = record.metrics["psnr"].values if "psnr" in record.metrics else None
    if not values:
        return ""
    found = psnr_of_mean_error(values)
    return "same" if math.isinf(found) else f"{found:.2f}"


def worst_cell(record: Record) -> str:
    """The mean PSNR of the worst 5 % of the samples, ± half of its interval; empty for the reference itself."""
    entry = record.metrics["psnr"] if has_values(record, "psnr") else None
    if entry is None or entry.worst_5_percent is None:
        return ""
    return with_half(entry.worst_5_percent, entry.worst_interval, 2)
