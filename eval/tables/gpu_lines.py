"""What a GPU benchmark's sides came to: pure functions of the files in results/gpu, without torch."""

import itertools
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STEPS = 50
WHAT = {
    "flux": "FLUX.1-dev, 1024x1024",
    "peers": "FLUX.1-dev, beside the caches of diffusers",
    "cachedit": "FLUX.1-dev, cache-dit",
    "blocks": "FLUX.1-dev, blocks compiled",
    "whole": "FLUX.1-dev, compiled whole",
    "sd35_run": "SD3.5-Large, 1024x1024, two branches in a batch",
    "sdxl": "SDXL, 1024x1024, two branches in a batch",
}
"""The parts with whole trajectories, in the order of the page."""
RAN = 0.75
"""The share of an uncached step's time above which a step counts as one that ran; peers do not say
which did."""


@dataclass(frozen=True)
class Line:
    """What a side of a part came to.

    Attributes:
        part: the part's name.
        side: the method or peer, with its number of runs.
        runs: steps at which the blocks ran.
        seconds: of a trajectory, median over the rounds.
        speedups: of each round: the uncached runs before and after it, their mean, over the side.
        run_ms: the device's milliseconds in a step that ran, median; None if there is none.
        skip_ms: the same for skipped steps.
        memory: bytes by which the peak of a call lay above that of the uncached call.
    """

    part: str
    side: str
    runs: int
    seconds: float
    speedups: tuple[float, ...]
    run_ms: float
    skip_ms: float | None
    memory: int

    @property
    def speedup(self) -> float:
        """The median over the rounds."""
        return statistics.median(self.speedups)

    @property
    def efficiency(self) -> float:
        """The share of the ideal speed-up, steps over runs."""
        return self.speedup * self.runs / STEPS


def read_parts(folder: Path) -> dict[str, dict[str, Any]]:
    """The parts that were measured in full at full size.

    Args:
        folder: that of their files; it need not be there.

    Returns:
        What each file holds, by the part's name.
    """
    found = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    return {name: part for name, part in found.items() if part["whole"] and part["weights"] == "random"}


def _groups(part: Mapping[str, Any]) -> Iterator[tuple[Sequence[Mapping[str, Any]], Sequence[float]]]:
    """The rounds of a part that were timed together, each with the seconds of the uncached runs around them."""
    if "uncached" in part:
        yield part["rounds"], [part["uncached"][0]["seconds"]] * (len(part["rounds"]) + 1)
        return
    for group in (part, part.get("other", {})):
        rounds = group.get("rounds", [])
        if rounds:
            yield rounds, [one["full"]["seconds"] for one in (*rounds, group["last"])]


def lines_of(name: str, part: Mapping[str, Any]) -> list[Line]:
    """The lines of a part with whole trajectories.

    Args:
        name: the part's name.
        part: what its file holds.

    Returns:
        A line for each side, the uncached run first.
    """
    found: list[Line] = []
    for rounds, around in _groups(part):
        full = rounds[0].get("full") or part["uncached"][0]
        for side in rounds[0]:
            rows = [one[side] for one in rounds if "seconds" in one[side]]
            if not rows or (side == "full" and found):
                continue
            ideal = [(before + after) / 2 for before, after in itertools.pairwise(around)]
            speedups = [level / row["seconds"] for level, row in zip(ideal, rows, strict=True)]
            level = 0 if side == "full" else RAN * statistics.median(full["ms"]["step"])
            found.append(_line(name, side, rows, tuple(speedups), level, full["grown"]))
    return found


def _line(
    name: str, side: str, rows: Sequence[Mapping[str, Any]], speedups: tuple[float, ...], level: float, base: int
) -> Line:
    run, skipped = [], []
    for row in rows:
        for step, spent in enumerate(row["ms"]["step"]):
            ran = step in row["run_steps"] if row["cache_bytes"] else spent > level
            (run if ran else skipped).append(spent)
    return Line(
        part=name,
        side=side,
        runs=round(len(run) / len(rows)),
        seconds=statistics.median(row["seconds"] for row in rows),
        speedups=speedups,
        run_ms=statistics.median(run),
        skip_ms=statistics.median(skipped) if skipped else None,
        memory=max(row["grown"] for row in rows) - base,
    )
