"""Intervals over prompts and seeds."""

from collections.abc import Sequence

import numpy as np


def interval(values: Sequence[float], resamples: int = 2000, level: float = 0.95) -> tuple[float, float]:
    """(mean, half-width of its bootstrap interval) over the finite values; NaN where there are none."""
    finite = np.array([v for v in values if np.isfinite(v)], dtype=np.float64)
    if not len(finite):
        return float("nan"), float("nan")
    rows = np.random.default_rng(0).integers(0, len(finite), (resamples, len(finite)))
    low, high = np.quantile(finite[rows].mean(1), [(1 - level) / 2, (1 + level) / 2])
    return float(finite.mean()), float(high - low) / 2


def worst(values: Sequence[float], share: float = 0.05) -> float:
    """Mean of the lowest `share` of the values, at least one of them."""
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    return float(ordered[: max(1, round(share * len(ordered)))].mean())
