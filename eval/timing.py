"""What follows from the timed rounds of a record. The pass that times and the check of the tables both call it."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import Any

from eval.statistics import median_interval
from spectrum.records.timing import TimedRound

PARTS = ("denoise", "total")
IDLE = 0.5
"""The highest 1-minute load average at which a timing pass begins without force."""
ROUNDS = 7
"""The fewest rounds of a timing in a folder of all records, and in a table."""


def ratios(rounds: Sequence[TimedRound], part: str = "denoise") -> list[float]:
    """The speed-up of each round: the mean of the uncached runs before and after, over the method.

    Args:
        rounds: the timed rounds.
        part: `denoise`, or `total` for the whole call.
    """
    return [(timed.before[part] + timed.after[part]) / 2 / timed.candidate[part] for timed in rounds]


def summary(rounds: Sequence[TimedRound], batch: int) -> dict[str, Any]:
    """The fields of a `Timing` that follow from its rounds.

    Args:
        rounds: the timed rounds, without the warm-up; at least one.
        batch: samples per call.

    Returns:
        `nfe`, `seconds_per_sample`, `speedup`, `speedup_interval` and `speedup_end_to_end`, as `Timing` describes them.

    Example:
        >>> full, cached = {"denoise": 4.0, "total": 5.0}, {"denoise": 2.0, "total": 3.0}
        >>> one = TimedRound(["00000-s0.png"], full, cached, full, [{"cond": [0, 2]}], [{"cond": 4}], 2.0)
        >>> found = summary([one], batch=1)
        >>> found["speedup"], found["speedup_interval"], found["nfe"]
        (2.0, [2.0, 2.0], 2.0)
    """
    speedup, low, high = median_interval(ratios(rounds))
    sides = {
        "baseline": {part: [(r.before[part] + r.after[part]) / 2 for r in rounds] for part in PARTS},
        "candidate": {part: [r.candidate[part] for r in rounds] for part in PARTS},
    }
    return {
        "nfe": fmean(timed.nfe for timed in rounds),
        "seconds_per_sample": {
            side: {part: median(seconds) / batch for part, seconds in times.items()} for side, times in sides.items()
        },
        "speedup": speedup,
        "speedup_interval": [low, high],
        "speedup_end_to_end": median(ratios(rounds, "total")),
    }


Measured = tuple[float, float, float]
"""A speed-up with the lower and upper end of its interval."""


def agree(one: Measured, other: Measured) -> bool:
    """Whether two timing passes agree on a speed-up: their logarithms differ by no more than both half-widths together.

    Args:
        one: the speed-up of one pass with its interval.
        other: that of the other pass.

    Example:
        >>> agree((3.0, 2.9, 3.1), (3.15, 3.05, 3.25)), agree((3.0, 2.9, 3.1), (3.3, 3.2, 3.4))
        (True, False)
    """
    halves = [math.log(high / low) / 2 for _, low, high in (one, other)]
    return abs(math.log(one[0] / other[0])) <= sum(halves)


def hardware_text(hardware: Mapping[str, Any]) -> str:
    """The machine of a timing on one line.

    Example:
        >>> hardware_text({"device": "cpu", "cpu": "AMD EPYC", "threads": 2})
        'AMD EPYC with 2 threads'
    """
    kernels = f" ({hardware['kernels']})" if "kernels" in hardware else ""
    threads = "1 thread" if hardware["threads"] == 1 else f"{hardware['threads']} threads"
    cpu = f"{hardware['cpu']}{kernels} with {threads}"
    text = f"{hardware['gpu']}, {cpu}" if "gpu" in hardware else cpu
    return f"{text}, offload={hardware['offload']}" if "offload" in hardware else text
