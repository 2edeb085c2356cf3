"""The table of how well scores without sampling rank schedules: a pure function of the values, without torch."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from eval.tables.comparison import markdown_table

RESAMPLES = 2000


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> tuple[float, float, float]:
    """Spearman's correlation with its 95 % interval by resampling pairs.

    Args:
        one: a score of each schedule.
        other: another.

    Returns:
        (the correlation, the lower end, the upper end).

    Example:
        >>> rank_correlation([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 5.0])[0]
        1.0
    """
    pairs = np.array([one, other], dtype=np.float64)
    random = np.random.default_rng(0)
    rows = random.integers(0, pairs.shape[1], (RESAMPLES, pairs.shape[1]))
    ranks = stats.rankdata(pairs[:, rows], axis=2)
    low, high = np.nanquantile(_correlation(ranks[0], ranks[1]), [0.025, 0.975])
    whole = stats.rankdata(pairs, axis=1)
    return float(_correlation(whole[:1], whole[1:])[0]), float(low), float(high)


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pearson's correlation, row by row; NaN for a row without spread."""
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line for each score, a column for each number of runs and way of drawing.

    Args:
        rows: see `scripts/inner_score.py`.

    Returns:
        Markdown.
    """
    heads = ["score", *(f"{row['runs']} runs, {row['drawn']}" for row in rows)]
    lines = []
    for name in rows[0]["scores"]:
        cells = [rank_correlation(row["sampled"], row["scores"][name]) for row in rows]
        lines.append([name, *(f"{mean:.2f} [{low:.2f}, {high:.2f}]" for mean, low, high in cells)])
    return markdown_table(heads, lines)


def read(path: Path) -> dict[str, Any] | None:
    """The values that `scripts/inner_score.py` kept.

    Args:
        path: their file.

    Returns:
        None if there is none.
    """
    return json.loads(path.read_text()) if path.exists() else None


def page(found: Mapping[str, Any]) -> str:
    """The whole page.

    Args:
        found: see `read`.

    Returns:
        Markdown.
    """
    count = len(found["rows"][0]["sampled"])
    return (
        "# Scores of schedules that cost no sampling\n\n"
        f"Model: {found['model']} ({found['model_kind']}). Spearman's correlation [95 %] between a score and the PSNR "
        f"of the final latents when {found['prompts']} calibration prompts are sampled with the schedule, the weights "
        f"fitted in the loop; over {count} schedules each: *anywhere* has any steps beside the first, *near* lies "
        "three moves from the schedule that the planner finds. `fitted`, `displacement`, `reuse` and `taylor` say how "
        "a gap replaces the velocity. The error of a gap is multiplied by how much it grows until the end; with *no "
        "gain* it is not. "
        "`python scripts/inner_score.py` measures it.\n\n" + table(found["rows"])
    )
