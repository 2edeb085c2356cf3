"""Means, intervals and tests of values that come prompt by prompt, each with its seeds. NumPy and SciPy alone."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

DRAWS = 2000
SKEWNESS = 1.4
"""By how much the squared skewness of the prompts cuts the degrees of freedom, as the tables' notes say."""
Values = Sequence[float | None]
Speedup = tuple[float, float, float]
"""A speed-up with the lower and upper end of its interval."""


def finite(values: Values) -> NDArray[Any]:
    """The values that are numbers; None stands for infinity and is left out."""
    found = np.array([np.nan if value is None else value for value in values], dtype=float)
    return found[np.isfinite(found)]


def mean(values: Values) -> float | None:
    """The mean of the finite values."""
    found = finite(values)
    return float(np.sum(found) / found.size) if found.size else None


def worst_mean(values: Values, higher_is_better: bool) -> float | None:
    """The mean of the worst twentieth, at least of one value."""
    found = sorted(finite(values), reverse=not higher_is_better)
    return float(np.mean(found[: max(1, round(len(found) / 20))])) if found else None


def psnr_of_mean_error(values: Values) -> float | None:
    """The PSNR of the mean squared error; None if every pair is equal."""
    errors = [0.0 if value is None else 10.0 ** (-value / 10) for value in values]
    return float(-10 * np.log10(np.mean(errors))) if any(errors) else None


def differences(values: Values, other: Values) -> list[float | None]:
    """`values - other` sample by sample, None where either is infinite."""
    return [None if a is None or b is None else a - b for a, b in zip(values, other, strict=True)]


def _table(values: Values, per: int) -> NDArray[Any]:
    """(prompts, seeds), NaN for what is infinite, without the prompts of which nothing is left."""
    found = np.array([np.nan if value is None else value for value in values], dtype=float).reshape(-1, per)
    return found[np.isfinite(found).any(axis=1)]


def _error(parts: NDArray[Any]) -> tuple[float, float]:
    """Standard error of a sum of one part per prompt, and its degrees of freedom, fewer where prompts are skewed."""
    count = len(parts)
    skewness = stats.skew(parts) if np.any(parts) else 0.0
    error = np.sqrt(np.sum(parts**2) * count / (count - 1))
    return float(error), float(max(1, (count - 1) / (1 + SKEWNESS * skewness**2)))


def test_of_mean(values: Values, per: int) -> tuple[float | None, float | None]:
    """(half of the 95 % interval of the mean, two-sided p value of a mean of 0); the unit is the prompt."""
    table = _table(values, per)
    if len(table) < 2:
        return None, None
    used = np.isfinite(table)
    centre = table[used].mean()
    error, freedom = _error(np.where(used, table - centre, 0).sum(axis=1) / used.sum())
    p = 2 * stats.t.sf(abs(centre) / error, freedom) if error else float(centre == 0)
    return float(stats.t.ppf(0.975, freedom) * error), float(p)


def worst_half(values: Values, per: int, higher_is_better: bool) -> float | None:
    """Half of the 95 % interval of `worst_mean`, from the influence of each prompt; None if the worst are all one."""
    table = _table(values, per) * (1 if higher_is_better else -1)
    if len(table) < 2:
        return None
    used = np.isfinite(table)
    ordered = np.sort(table[used])
    kept = max(1, round(ordered.size / 20))
    if kept == 1 or ordered[0] == ordered[kept - 1]:
        return None
    below = np.where(used, np.minimum(table, ordered[kept - 1]) - ordered[kept - 1], 0)
    influence = below.sum(axis=1) - used.sum(axis=1) * below.sum() / ordered.size
    error, freedom = _error(influence / np.sqrt(kept * (kept - 1)))
    return float(stats.t.ppf(0.975, freedom) * error)


def between(at: Speedup, points: Sequence[tuple[Speedup, Values]], per: int) -> tuple[float, float | None] | None:
    """The mean at a speed-up, on the line between two measured ones, and half of its interval; None outside of them.

    Args:
        at: the speed-up.
        points: speed-ups with the values there, the smallest first.
        per: values of one prompt.
    """
    for (left, first), (right, second) in itertools.pairwise(points):
        slow, fast = left[0], right[0]
        if slow <= at[0] <= fast and slow < fast:
            share = (at[0] - slow) / (fast - slow)
            both = zip(first, second, strict=True)
            mixed = [None if a is None or b is None else a * (1 - share) + b * share for a, b in both]
            half, drop = test_of_mean(mixed, per)[0], mean(differences(second, first))
            middle = mean(mixed)
            if middle is None or half is None or drop is None:
                return None if middle is None else (middle, None)
            slope = drop / (fast - slow) / 2
            ends = [
                slope * (at[2] - at[1]),
                slope * (1 - share) * (left[2] - left[1]),
                slope * share * (right[2] - right[1]),
            ]
            return middle, float(np.sqrt(half**2 + sum(end**2 for end in ends)))
    return None


def holm(p: Sequence[float | None]) -> list[float | None]:
    """P values adjusted by Holm's method; None stays None."""
    known = sorted(value for value in p if value is not None)
    steps = np.maximum.accumulate([min(1.0, (len(known) - rank) * value) for rank, value in enumerate(known)])
    return [None if value is None else float(steps[known.index(value)]) for value in p]


def median_with_ends(values: Sequence[float]) -> tuple[float, float, float]:
    """The median, and the narrowest pair of order statistics that holds the true one with 93 % or more."""
    ordered = np.sort(values)
    inside = [k for k in range((len(ordered) + 1) // 2) if 1 - 2 * stats.binom.cdf(k, len(ordered), 0.5) >= 0.93]
    k = inside[-1] if inside else 0
    return float(np.median(ordered)), float(ordered[k]), float(ordered[-1 - k])


def order_share(rows: Sequence[Values], per: int) -> float:
    """How often the order of the rows' means comes back when the prompts are drawn again."""
    table = np.array([[np.nan if v is None else v for v in row] for row in rows], dtype=float)
    table = table.reshape(len(rows), -1, per)
    order = np.argsort(np.nanmean(table.reshape(len(rows), -1), axis=1), kind="stable")
    picked = np.random.default_rng(54321).integers(0, table.shape[1], (DRAWS, table.shape[1]))
    means = np.stack([np.nanmean(table[order][:, rows_of].reshape(len(rows), -1), axis=1) for rows_of in picked])
    return float(np.mean(np.all(np.diff(means, axis=1) >= 0, axis=1)))
