"""Differences between the rows of a table on the same samples: PSNR to a rival, CLIP to the uncached run, the order."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval import statistics
from eval.statistics import Difference
from eval.tables.comparison import with_half
from eval.tables.experiments import Row
from spectrum.records.record import Record

LEVEL = 0.05
"""A difference whose adjusted p value is below this is significant."""
ORDERED = 3
"""The fewest rows of which an order is told."""
Matches = Sequence[tuple[Row, Record | None]]
"""The rows of a table with their records."""


@dataclass(frozen=True)
class Comparison:
    """One row's PSNR less its rival's.

    Attributes:
        difference: on the same samples, with its own interval and p value.
        p: the p value adjusted for all comparisons of the table, by Holm's method.
    """

    difference: Difference
    p: float

    @property
    def significant(self) -> bool:
        """Whether it stands up among all comparisons of the table."""
        return self.p < LEVEL

    @property
    def cell(self) -> str:
        """The difference as a table shows it: with its interval, and in parentheses where it is not significant.

        Example:
            >>> Comparison(Difference(1.0, 0.5, 0.0), 0.01).cell, Comparison(Difference(0.2, 0.5, 0.4), 0.8).cell
            ('+1.00 [+0.50, +1.50]', '(+0.20 [-0.30, +0.70])')
        """
        own = self.difference
        if math.isnan(own.half):
            return f"({own.mean:+.2f})"
        text = f"{own.mean:+.2f} [{own.low:+.2f}, {own.high:+.2f}]"
        return text if self.significant else f"({text})"


def seeds_in(record: Record, metric: str) -> int:
    """How many values of a metric belong to one prompt: its seeds, or one where the metric has one value a prompt."""
    values = record.metrics[metric].values
    return len(record.seeds) if values is not None and len(values) == record.samples else 1


def has_values(record: Record | None, metric: str) -> bool:
    """Whether a row has a finite value of a metric for any sample."""
    return record is not None and metric in record.metrics and any(
        value is not None for value in record.metrics[metric].values or []
    )  # fmt: skip


def less(record: Record, other: Record, metric: str) -> Difference | None:
    """A metric of one record less that of another on the same samples; None where either has no values.

    Args:
        record: the record.
        other: a record of the same prompts and seeds.
        metric: the metric's name.
    """
    if not (has_values(record, metric) and has_values(other, metric)):
        return None
    own, theirs = (r.metrics[metric].values or [] for r in (record, other))
    found = statistics.paired(own, theirs, seeds_in(record, metric))
    return None if math.isnan(found.mean) else found


def psnr_differences(rows: Matches, against: str | None) -> dict[str, Comparison]:
    """Each row's PSNR less that of the method that the table compares with, at the same runs.

    Args:
        rows: the rows with their records.
        against: the method that differences are taken to; None for none.

    Returns:
        The comparisons by the record's id, with p values adjusted over all of them. A row without a rival, without
        values, and the rival itself have none.
    """
    found: dict[str, Difference] = {}
    for row, record in rows:
        rival = None if against is None else _rival(rows, row, against)
        own = less(record, rival, "psnr") if record is not None and rival is not None and rival is not record else None
        if record is not None and own is not None:
            found[record.id] = own
    adjusted = statistics.holm([difference.p for difference in found.values()])
    return {name: Comparison(own, p) for (name, own), p in zip(found.items(), adjusted, strict=True)}


def _rival(rows: Matches, row: Row, against: str) -> Record | None:
    """The record of the method `against` with the settings of a row, but for those of the method itself."""
    same = (other for r, other in rows if r.keys["method"] == against and _setting(r) == _setting(row))
    return next((other for other in same if other is not None and "psnr" in other.metrics), None)


def _setting(row: Row) -> Mapping[str, Any]:
    return {key: value for key, value in row.keys.items() if key != "method" and not key.startswith("method.")}


def clip_difference(record: Record, full: Record | None) -> Difference | None:
    """The CLIP score less that of the uncached run on the same samples; None for that run itself, and without values.

    Args:
        record: the record.
        full: that of the uncached run; None if there is none.
    """
    return None if full is None or record.is_reference else less(record, full, "clip_score")


def clip_cell(record: Record, full: Record | None) -> str:
    """`clip_difference` as a table shows it: `+0.12 ± 0.86`; empty where there is none."""
    own = clip_difference(record, full)
    return "" if own is None else ("+" if own.mean >= 0 else "") + with_half(own.mean, own.half, 2)


def psnr_of_mean_error(values: Sequence[float | None]) -> float:
    """The PSNR that belongs to the mean squared error over all samples.

    A few broken pictures weigh on it far more than on the mean PSNR.

    Args:
        values: the PSNR of each sample in dB; None stands for infinity.

    Returns:
        dB; infinite if all pictures are equal.

    Example:
        >>> round(psnr_of_mean_error([10.0, 20.0, None, None]), 3)  # errors of 0.1, 0.01, 0 and 0
        15.607
    """
    error = sum(10 ** (-value / 10) for value in values if value is not None) / len(values)
    return -10 * math.log10(error) if error else math.inf


def orders(rows: Matches) -> list[tuple[Any, int, float]]:
    """For each number of runs: in how many resamples of the prompts the rows' whole order by PSNR comes back.

    Args:
        rows: the rows with their records. Only those that ask for a number of runs are ordered, and only where there
            are three of them.

    Returns:
        For each number of runs: that number, how many rows there are, and the share of the resamples, 0 to 1.
    """
    groups: dict[Any, list[Record]] = {}
    for row, record in rows:
        if record is not None and "runs" in row.keys and has_values(record, "psnr"):
            groups.setdefault(row.keys["runs"], []).append(record)
    found = []
    for runs, records in groups.items():
        if len(records) >= ORDERED:
            values = [record.metrics["psnr"].values or [] for record in records]
            share = statistics.order_stability(values, seeds_in(records[0], "psnr"))
            found.append((runs, len(records), share))
    return found
