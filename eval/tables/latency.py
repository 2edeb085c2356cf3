"""What plain sampling with fewer steps reaches in the time that a method takes."""

import math
from collections.abc import Sequence

from eval import statistics
from eval.statistics import Measured
from eval.tables.comparison import with_half
from eval.tables.differences import has_values
from spectrum.records.record import Record
from spectrum.records.timing import Timing


def same_latency(record: Record, controls: Sequence[Record]) -> tuple[float, float] | None:
    """PSNR of plain sampling with fewer steps at the record's speed-up, on the line between its measured points.

    Speed-ups are ratios within each record's own process, so points of different runs may be joined.

    Args:
        record: the record.
        controls: records of plain sampling with fewer steps on the same samples.

    Returns:
        The mean in dB and the half-width of its interval, which carries those of the speed-ups; None where the speed-up
        lies outside the points, and where it says nothing.
    """
    points = _points(controls)
    if not _says_something(record, points) or record.timing is None:
        return None
    return statistics.interpolated(_measured(record.timing), points, len(record.seeds))


def same_latency_cell(record: Record, controls: Sequence[Record]) -> str:
    """`same_latency` as a table shows it.

    Args:
        record: the record.
        controls: records of plain sampling with fewer steps on the same samples.

    Returns:
        The PSNR with its interval; `above` or `below` that of the nearest point where the speed-up lies outside them;
        empty where it says nothing.
    """
    points = _points(controls)
    if not _says_something(record, points) or record.timing is None:
        return ""
    found = same_latency(record, controls)
    if found is not None:
        return with_half(*found, digits=2)
    beyond = record.timing.speedup > points[-1][0][0]
    mean, _ = statistics.interval(points[-1 if beyond else 0][1], len(record.seeds))
    return f"{'below' if beyond else 'above'} {mean:.2f}"


def _measured(timing: Timing) -> Measured:
    low, high = timing.speedup_interval
    return timing.speedup, low, high


def _points(controls: Sequence[Record]) -> list[tuple[Measured, list[float | None]]]:
    """Speed-up with its interval, and PSNR of each sample of the controls that have both, the slowest first."""
    found = [
        (_measured(record.timing), record.metrics["psnr"].values or [])
        for record in controls
        if record.timing is not None and has_values(record, "psnr")
    ]
    return sorted(found, key=lambda point: point[0])


def _says_something(record: Record, points: Sequence[tuple[Measured, list[float | None]]]) -> bool:
    timed = record.timing is not None and math.isfinite(record.timing.speedup)
    return timed and record.name not in ("none", "fewer_steps") and len(points) > 1
