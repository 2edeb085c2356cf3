"""Summaries of the values of samples, with 95 % intervals whose unit is the prompt.

A sample is a prompt with a seed; values stand with prompts outermost and seeds inner. The seeds of a prompt are alike,
so each prompt with its seeds is one draw (a cluster). None, NaN and infinite values, such as the PSNR of equal
pictures, are left out, and a prompt with none left is left out.

An interval is a standard error over prompts times Student's quantile. Where the prompts are skewed, as with ST-LPIPS or
in the worst 5 %, a table whose mean is too good by chance also has a standard error that is too small, and the plain
quantile covers too little. To second order (Hall 1992, The Bootstrap and Edgeworth Expansion) skewness does what fewer
degrees of freedom do, so they are divided by 1 + `SKEWNESS` times the squared skewness of the prompts.
`results/coverage.md` has how often each interval holds the truth.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

SKEWNESS = 1.4
"""0.9 by the expansion, more because few prompts show less skewness than there is; chosen by scripts/coverage.py."""

DRAWN = 1 << 22  # prompts drawn at a time when they are resampled: 32 MB

Values = Sequence[float | None]
Measured = tuple[float, float, float]
"""A figure with the lower and upper end of its interval."""


@dataclass(frozen=True)
class Difference:
    """The mean difference of two methods on the same samples.

    Attributes:
        mean: mean of the first less the second.
        half: half-width of its interval.
        p: two-sided p value of a true mean of 0; it is below 1 - level if, and only if, the interval leaves out 0.
    """

    mean: float
    half: float
    p: float

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return self.mean - self.half

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self.mean + self.half


def _clusters(values: Values, per: int) -> NDArray[Any]:
    """Values as (prompts, samples of a prompt), NaN for what is left out; prompts with none left are gone."""
    found = np.array(values, dtype=np.float64)  # None becomes NaN
    if len(found) % per:
        raise ValueError(f"{len(found)} values are no whole number of prompts with {per} samples each")
    table = np.where(np.isfinite(found), found, np.nan).reshape(-1, per)
    return table[np.isfinite(table).any(1)]


def _error_and_freedom(parts: NDArray[Any]) -> tuple[float, float]:
    """The standard error of a sum of parts of mean 0, one per prompt, and its quantile's degrees of freedom."""
    count, scale = len(parts), np.abs(parts).max()
    if count < 2:
        return float("nan"), 1.0
    if not scale:
        return 0.0, count - 1.0
    unit = parts / scale
    skewness = (unit**3).mean() / (unit**2).mean() ** 1.5
    freedom = max(1.0, (count - 1) / (1 + SKEWNESS * skewness**2))
    return float(scale * np.sqrt((unit**2).sum() * count / (count - 1))), float(freedom)


def _summary(table: NDArray[Any], level: float) -> Difference:
    """Mean, half-width and p value of (prompts, samples of a prompt), NaN for what is left out."""
    if not len(table):
        return Difference(float("nan"), float("nan"), float("nan"))
    mean = float(np.nanmean(table))
    error, freedom = _error_and_freedom(np.nansum(table - mean, 1) / np.isfinite(table).sum())
    half = float(special.stdtrit(freedom, (1 + level) / 2) * error)
    if not error:
        return Difference(mean, half, float(mean == 0))
    return Difference(mean, half, float(2 * special.stdtr(freedom, -abs(mean) / error)))


def interval(values: Values, per: int = 1, level: float = 0.95) -> tuple[float, float]:
    """The mean of some values and the half-width of its interval.

    Args:
        values: one number per sample, prompts outermost.
        per: samples of one prompt.
        level: how often the interval is to hold the mean over all prompts and seeds.

    Returns:
        The mean and the half-width, in the unit of the values. Both are NaN if no value is finite, the half-width if
        they all are of one prompt.

    Raises:
        ValueError: if the values are no whole number of prompts.

    Example:
        >>> mean, half = interval([20.0, 30.0, float("inf")])
        >>> mean, round(half, 1)  # 12.7 standard errors of 5
        (25.0, 63.5)
    """
    found = _summary(_clusters(values, per), level)
    return found.mean, found.half


def paired(values: Values, other: Values, per: int = 1, level: float = 0.95) -> Difference:
    """The mean difference between two methods on the same samples, with its interval and p value.

    Args:
        values: one number per sample of the first method, prompts outermost.
        other: one number per sample of the second method, in the same order. A pair in which either value is None, NaN
            or infinite is left out.
        per: samples of one prompt.
        level: how often the interval is to hold the mean difference over all prompts and seeds.

    Returns:
        The difference; all NaN if no pair is left.

    Raises:
        ValueError: if the two are not equally long, or no whole number of prompts.

    Example:
        >>> found = paired([21.0, 34.0, None], [20.0, 31.0, 25.0])
        >>> found.mean, round(found.high, 1), round(found.p, 2)
        (2.0, 14.7, 0.3)
    """
    return _summary(_clusters(_gaps(values, other), per), level)


def _gaps(values: Values, other: Values, shares: tuple[float, float] = (1.0, -1.0)) -> Values:
    """The sum of the two, each times its share, NaN where either is not finite."""
    pairs = np.array([*zip(values, other, strict=True)], dtype=np.float64).reshape(-1, 2)
    one, two = np.where(np.isfinite(pairs).all(1), pairs.T, np.nan)
    return (shares[0] * one + shares[1] * two).tolist()


def worst(
    values: Values, per: int = 1, share: float = 0.05, higher_is_better: bool = True, level: float = 0.95
) -> tuple[float, float]:
    """The mean of the worst values and the half-width of its interval.

    What each prompt contributes is how far its samples lie beyond the best of the worst. That edge is one of the values
    itself, so the standard error is divided by the number of worst values less one.

    Args:
        values: one number per sample, prompts outermost.
        per: samples of one prompt.
        share: how many of them count as the worst: this share, rounded to a whole number, but never fewer than one.
        higher_is_better: whether the lowest values are the worst ones; if False, the highest are.
        level: how often the interval is to hold the mean of the worst share over all prompts and seeds.

    Returns:
        Their mean and the half-width, in the unit of the values. Both are NaN if no value is finite. The half-width is
        also NaN if there is only one worst value, if all worst values are the same, or if all values are of one prompt.

    Raises:
        ValueError: if the values are no whole number of prompts.

    Example:
        >>> worst([30.0, 10.0, 20.0, 40.0], share=0.5)[0]
        15.0
    """
    sign = 1 if higher_is_better else -1
    table = _clusters(values, per) * sign
    ordered = np.sort(table[np.isfinite(table)])
    if not len(ordered):
        return float("nan"), float("nan")
    kept = max(1, round(share * len(ordered)))
    mean, edge = float(ordered[:kept].mean()) * sign, ordered[kept - 1]
    if kept == 1 or ordered[0] == edge:
        return mean, float("nan")
    beyond = np.nansum(np.minimum(table - edge, 0), 1)
    expected = np.isfinite(table).sum(1) * beyond.sum() / len(ordered)
    error, freedom = _error_and_freedom((beyond - expected) / np.sqrt(kept * (kept - 1)))
    return mean, float(special.stdtrit(freedom, (1 + level) / 2) * error)


def holm(p: Sequence[float]) -> list[float]:
    """P values adjusted by Holm's method, so that a false finding among all of them is as rare as the level says.

    Args:
        p: p values; NaN stays NaN and does not count.

    Returns:
        The adjusted ones, in the same order.

    Example:
        >>> holm([0.25, 0.01, float("nan"), 0.125])
        [0.25, 0.03, nan, 0.25]
    """
    adjusted = list(p)
    order = sorted((i for i, value in enumerate(p) if value == value), key=lambda i: p[i])
    least = 0.0
    for rank, i in enumerate(order):
        least = max(least, min(1.0, (len(order) - rank) * p[i]))
        adjusted[i] = least
    return adjusted


def order_stability(rows: Sequence[Values], per: int = 1, resamples: int = 1000) -> float:
    """How often the order of some methods by their means comes back when the prompts are drawn again.

    Args:
        rows: the values of each method on the same samples, prompts outermost.
        per: samples of one prompt.
        resamples: how often the prompts are drawn.

    Returns:
        The share of the resamples, 0 to 1, in which all methods stand in the order of the whole data; NaN if a method
        has no finite value.

    Raises:
        ValueError: if the methods' values differ in number, or are no whole number of prompts.

    Example:
        >>> order_stability([[1.0, 2.0, 3.0], [1.5, 2.5, 3.5]])
        1.0
    """
    table = np.array(rows, dtype=np.float64)
    table = np.where(np.isfinite(table), table, np.nan).reshape(len(rows), -1, per)
    sums, sizes = np.nansum(table, 2).T, np.isfinite(table).sum(2).T
    if not sizes.sum(0).all():
        return float("nan")
    order = np.argsort(sums.sum(0) / sizes.sum(0), kind="stable")
    count, generator, kept = len(sums), np.random.default_rng(0), 0
    at_once = max(1, DRAWN // count)
    for begin in range(0, resamples, at_once):
        drawn = generator.multinomial(count, np.full(count, 1 / count), min(at_once, resamples - begin))
        draws = drawn.astype(np.float64)
        with np.errstate(invalid="ignore"):
            means = (draws @ sums / (draws @ sizes))[:, order]
        kept += int((np.diff(means) >= 0).all(1).sum())
    return kept / resamples


def median_interval(values: Values, level: float = 0.95) -> tuple[float, float, float]:
    """The median of some values, and two of them that hold the true median.

    Args:
        values: independent measurements, such as the speed-up of each round.
        level: how often the interval is to hold the true median, whatever the distribution; up to 0.02 less is taken,
            because only certain levels can be had.

    Returns:
        (median, low, high), in the unit of the values. Of 9 values the ends are the second and the eighth (96.1 %).
        From fewer than 6 they are the smallest and the largest, which hold it less often. All NaN if none is finite.

    Example:
        >>> median_interval([3.0, 1.0, 2.0, 5.0, 4.0, 9.0, 7.0, 8.0, 6.0])
        (5.0, 2.0, 8.0)
    """
    finite = np.sort([v for v in values if v is not None and np.isfinite(v)])
    count = len(finite)
    if not count:
        return float("nan"), float("nan"), float("nan")
    inner = [k for k in range((count - 1) // 2 + 1) if 1 - 2 * special.bdtr(k, count, 0.5) >= level - 0.02]
    k = max(inner, default=0)
    return float(np.median(finite)), float(finite[k]), float(finite[count - 1 - k])


def interpolated(
    at: Measured, points: Sequence[tuple[Measured, Values]], per: int = 1, level: float = 0.95
) -> tuple[float, float] | None:
    """The mean that a control has at a given speed-up, on the line between its two measured neighbours.

    Args:
        at: the speed-up with its interval.
        points: speed-up with its interval and values of each measured control, all on the same samples, by rising
            speed-up.
        per: samples of one prompt.
        level: how often the interval is to hold the mean over all prompts and seeds.

    Returns:
        The mean and the half-width of its interval, in the unit of the values: what the samples leave open, and what
        the three speed-ups do, through the slope between the neighbours. None if `at` lies outside the points.

    Example:
        >>> at = interpolated((2.5, 2.4, 2.6), [((2.0, 2.0, 2.0), [30.0] * 2), ((3.0, 3.0, 3.0), [20.0] * 2)])
        >>> at and (at[0], round(at[1], 3))  # 0.1 x 10 dB
        (25.0, 1.0)
    """
    for (slow, above), (fast, below) in itertools.pairwise(points):
        if slow[0] <= at[0] <= fast[0] and slow[0] < fast[0]:
            share = (at[0] - slow[0]) / (fast[0] - slow[0])
            mean, half = interval(_gaps(above, below, (1 - share, share)), per, level)
            slope = paired(below, above, per).mean / (fast[0] - slow[0])
            widths = [part * (high - low) / 2 for part, (_, low, high) in ((1, at), (1 - share, slow), (share, fast))]
            return mean, float(np.linalg.norm([half, *(slope * width for width in widths)]))
    return None
