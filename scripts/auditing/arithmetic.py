"""Means, intervals and tests of values that come prompt by prompt, each with its seeds. NumPy and SciPy alone."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

DRAWS = 8000
FEWEST = 8
"""With fewer prompts Student's quantile stands alone."""
Values = Sequence[float | None]


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
    return [None if None in (a, b) else float(a) - float(b) for a, b in zip(values, other, strict=True)]  # type: ignore[arg-type]


def _by_prompt(values: Values, per: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Each prompt's sum of finite values and their number, for the prompts that have any."""
    table = np.array([np.nan if v is None else v for v in values], dtype=float).reshape(-1, per)
    sizes = np.isfinite(table).sum(axis=1)
    sums = np.where(np.isfinite(table), table, 0).sum(axis=1)
    return sums[sizes > 0], sizes[sizes > 0].astype(float)


def test_of_mean(values: Values, per: int) -> tuple[float | None, float | None]:
    """(half of the 95 % interval of the mean, two-sided p value of a mean of 0), by resampling prompts.

    A bootstrap-t interval with draws of its own, never narrower than Student's.
    """
    sums, sizes = _by_prompt(values, per)
    count = len(sums)
    if count < 2:
        return None, None
    centre = sums.sum() / sizes.sum()
    error = _error(sums[None], sizes[None])[0]
    quantile, ratio = stats.t.ppf(0.975, count - 1), abs(centre) / error if error else np.inf
    p = 2 * stats.t.sf(ratio, count - 1)
    if count >= FEWEST and error:
        picked = np.random.default_rng(12345).integers(0, count, (DRAWS, count))
        drawn, drawn_sizes = sums[picked], sizes[picked]
        errors = _error(drawn, drawn_sizes)
        gaps = np.abs(drawn.sum(axis=1) / drawn_sizes.sum(axis=1) - centre)
        ratios = np.divide(gaps, errors, out=np.where(gaps > 0, np.inf, 0.0), where=errors > 1e-9 * error)
        quantile = max(quantile, np.quantile(ratios, 0.95, method="higher"))
        p = max(p, (1 + np.sum(ratios >= ratio)) / (DRAWS + 1))
    return float(quantile * error), float(p)


def _error(sums: NDArray[Any], sizes: NDArray[Any]) -> NDArray[Any]:
    """Standard error of the mean of all values, for each row of prompts."""
    count = sums.shape[1]
    centre = sums.sum(axis=1, keepdims=True) / sizes.sum(axis=1, keepdims=True)
    spread = ((sums - sizes * centre) ** 2).sum(axis=1) * count / (count - 1)
    return np.sqrt(spread) / sizes.sum(axis=1)


def worst_half(values: Values, per: int, higher_is_better: bool) -> float | None:
    """Half of the 95 % interval of `worst_mean`: Student's with the degrees of freedom that the prompts' shares give."""
    sign = 1 if higher_is_better else -1
    table = sign * np.array([np.nan if v is None else v for v in values], dtype=float).reshape(-1, per)
    table = table[np.isfinite(table).any(axis=1)]
    ordered = np.sort(table[np.isfinite(table)])
    if len(table) < 2:
        return None
    kept = max(1, round(ordered.size / 20))
    edge = ordered[kept - 1]
    pull = np.where(np.isfinite(table), np.minimum(table, edge) - edge, 0).sum(axis=1)
    sizes = np.isfinite(table).sum(axis=1)
    influence = pull - sizes * np.sum(ordered[:kept] - edge) / ordered.size
    total, count = np.sum(influence**2), len(table)
    if total == 0:
        return 0.0
    freedom = 2 * count / max(count * np.sum(influence**4) / total**2 - 1, 2 / count)
    error = np.sqrt(total * count / (count - 1)) / kept
    return float(stats.t.ppf(0.975, min(freedom, count - 1)) * error)


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
    picked = np.random.default_rng(54321).integers(0, table.shape[1], (2000, table.shape[1]))
    means = np.stack([np.nanmean(table[order][:, rows_of].reshape(len(rows), -1), axis=1) for rows_of in picked])
    return float(np.mean(np.all(np.diff(means, axis=1) >= 0, axis=1)))
