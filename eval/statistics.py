"""Intervals over prompts and seeds, by the bootstrap."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def _resampled(values: NDArray[Any], resamples: int, level: float) -> tuple[float, float]:
    rows = np.random.default_rng(0).integers(0, len(values), (resamples, len(values)))
    low, high = np.quantile(values[rows].mean(1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def interval(values: Sequence[float], resamples: int = 2000, level: float = 0.95) -> tuple[float, float]:
    """(mean, half-width of its bootstrap interval) over the finite values; NaN where there are none."""
    finite = np.array([v for v in values if np.isfinite(v)], dtype=np.float64)
    if not len(finite):
        return float("nan"), float("nan")
    low, high = _resampled(finite, resamples, level)
    return float(finite.mean()), (high - low) / 2


def paired(
    values: Sequence[float | None], other: Sequence[float | None], resamples: int = 2000, level: float = 0.95
) -> tuple[float, float, float]:
    """(mean, low, high) of the difference of two methods on the same samples, with its bootstrap interval.

    Pairs in which either value is None or infinite (equal pictures) are left out; NaN where none is left. Raises
    `ValueError` for sets of different length.
    """
    pairs = np.array(list(zip(values, other, strict=True)), dtype=np.float64)
    gaps = (pairs[:, 0] - pairs[:, 1])[np.isfinite(pairs).all(1)]
    if not len(gaps):
        return float("nan"), float("nan"), float("nan")
    return float(gaps.mean()), *_resampled(gaps, resamples, level)


def worst(values: Sequence[float], share: float = 0.05, higher_is_better: bool = True) -> float:
    """Mean of the worst `share` of the values, at least one of them."""
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    ordered = ordered if higher_is_better else ordered[::-1]
    return float(ordered[: max(1, round(share * len(ordered)))].mean())
