"""Summaries of per-sample values: means, bootstrap intervals, and the mean of the worst ones.

Samples are resampled one by one, whatever prompt and seed they come from. The bootstrap draws from a generator with a
fixed seed, so the same values always give the same interval.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def _resampled(values: NDArray[Any], resamples: int, level: float) -> tuple[float, float]:
    """The lower and upper end of the percentile bootstrap interval of the mean."""
    rows = np.random.default_rng(0).integers(0, len(values), (resamples, len(values)))
    low, high = np.quantile(values[rows].mean(1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def interval(values: Sequence[float], resamples: int = 2000, level: float = 0.95) -> tuple[float, float]:
    """The mean of some values and the half-width of its bootstrap interval.

    Args:
        values: one number per sample. NaN and infinite ones, such as the PSNR of equal images, are left out.
        resamples: how often the samples are drawn again, with replacement.
        level: the share of the resampled means that lies in the interval.

    Returns:
        The mean and the half-width, in the unit of the values; both NaN if no value is finite.

    Example:
        >>> mean, half = interval([20.0, 30.0, float("inf")])
        >>> mean, half
        (25.0, 5.0)
    """
    finite = np.array([v for v in values if np.isfinite(v)], dtype=np.float64)
    if not len(finite):
        return float("nan"), float("nan")
    low, high = _resampled(finite, resamples, level)
    return float(finite.mean()), (high - low) / 2


def paired(
    values: Sequence[float | None], other: Sequence[float | None], resamples: int = 2000, level: float = 0.95
) -> tuple[float, float, float]:
    """The mean difference between two methods on the same samples, with its bootstrap interval.

    Args:
        values: one number per sample of the first method.
        other: one number per sample of the second method, in the same order. A pair in which either value is None, NaN
            or infinite is left out.
        resamples: how often the pairs are drawn again, with replacement.
        level: the share of the resampled means that lies in the interval.

    Returns:
        The mean of `values - other` and the lower and upper end of its interval; all NaN if no pair is left.

    Raises:
        ValueError: if the two are not equally long.

    Example:
        >>> paired([21.0, 32.0, None], [20.0, 31.0, 25.0])
        (1.0, 1.0, 1.0)
    """
    pairs = np.array(list(zip(values, other, strict=True)), dtype=np.float64).reshape(-1, 2)
    gaps = (pairs[:, 0] - pairs[:, 1])[np.isfinite(pairs).all(1)]
    if not len(gaps):
        return float("nan"), float("nan"), float("nan")
    return float(gaps.mean()), *_resampled(gaps, resamples, level)


def worst(values: Sequence[float], share: float = 0.05, higher_is_better: bool = True) -> float:
    """The mean of the worst values.

    Args:
        values: one number per sample; at least one.
        share: how many of them count as the worst: this share, rounded to a whole number, but never fewer than one.
        higher_is_better: whether the lowest values are the worst ones; if False, the highest are.

    Returns:
        Their mean, in the unit of the values.

    Example:
        >>> worst([30.0, 10.0, 20.0, 40.0], share=0.5)
        15.0
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    ordered = ordered if higher_is_better else ordered[::-1]
    return float(ordered[: max(1, round(share * len(ordered)))].mean())


def median_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """The median of some values, and the two of them between which the true median lies.

    Example:
        >>> median_interval([3.0, 1.0, 2.0, 5.0, 4.0, 9.0, 7.0, 8.0, 6.0])
        (5.0, 2.0, 8.0)
    """
    ordered, count = np.sort(np.asarray(values, dtype=np.float64)), len(values)
    below = np.cumsum([math.comb(count, k) / 2**count for k in range(count)])
    k = max((k for k in range((count + 1) // 2) if 1 - 2 * below[k] >= level - 0.02), default=0)
    return float(np.median(ordered)), float(ordered[k]), float(ordered[-1 - k])
