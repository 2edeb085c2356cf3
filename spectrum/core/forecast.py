"""Linear forecasters: the weight that each stored feature has in the forecast of a skipped step.

Every forecaster is called as `forecast(times, target, span, **parameters)`.

Args:
    times: the clock's readings at the stored features, oldest first; at least one.
    target: the reading at the step to forecast, after the last of `times`.
    span: the clock's range over the whole trajectory, (first, last).

Returns:
    float64 array as long as `times`, oldest first. The forecast is `sum_i weights[i] * features[i]`.

Raises:
    SpectrumError: if a parameter is out of range, or there are too few features for it.

`@exact(degree, **p)` declares the highest degree of polynomial in time that a forecaster continues exactly with `p`.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from spectrum.core.errors import check_number, refuse

Weights = NDArray[np.float64]
Forecast = Callable[[Sequence[float], float, tuple[float, float]], Weights]
F = TypeVar("F", bound=Callable[..., Weights])


def exact(degree: int, /, **parameters: Any) -> Callable[[F], F]:
    """Declare up to which degree a forecaster continues polynomials in time exactly.

    Args:
        degree: the highest such degree.
        **parameters: the parameters of the forecaster for which this holds.

    Returns:
        A decorator that notes the declaration in the function's `exactness` list and changes nothing else.
    """

    def declare(function: F) -> F:
        function.__dict__.setdefault("exactness", []).append((degree, parameters))
        return function

    return declare


@exact(0)
def reuse(times: Sequence[float], target: float, span: tuple[float, float]) -> Weights:
    """Use the newest feature unchanged: `F_n`.

    FORA (arXiv 2407.01425), and on residuals TeaCache, First-Block-Cache, MagCache and EasyCache.

    Example:
        >>> reuse([0, 1, 2], 4, (0, 50)).tolist()
        [0.0, 0.0, 1.0]
    """
    weights = np.zeros(len(times))
    weights[-1] = 1.0
    return weights


@exact(1)
def newton(times: Sequence[float], target: float, span: tuple[float, float]) -> Weights:
    """Extrapolate the straight line through the two newest features: `(1 + k/g) F_n - (k/g) F_{n-1}`.

    `g` is the gap between their times and `k` the distance from the newest to the target. With one feature: reuse.

    Example:
        >>> newton([0, 2], 3, (0, 50)).tolist()
        [-0.5, 1.5]
    """
    return taylor(times, target, span, order=1)


@exact(0, order=0)
@exact(1, order=1)
@exact(1, order=3)
def taylor(times: Sequence[float], target: float, span: tuple[float, float], *, order: int = 1) -> Weights:
    """TaylorSeer (arXiv 2503.06923): `sum_i D_i k^i / i!` with `D_0 = F_n`, `D_{i+1} = (D_i - D_i') / (a_n - a_{n-1})`.

    `D'` are the differences at the run step before, as far as that step had orders. Uneven gaps are divided by the last
    gap only, so no order above 1 continues more than straight lines exactly.

    Args:
        times: see the module.
        target: see the module.
        span: see the module.
        order: the highest difference used.

    Example:
        >>> taylor([0, 1, 2, 6, 10, 14], 16, (0, 50), order=2).tolist()
        [0.0, 0.0, 0.0, 0.125, -0.75, 1.625]
    """
    k, weights, factor = target - times[-1], np.zeros(len(times)), 1.0
    for i, difference in enumerate(_differences(times, order)):
        factor = factor * k / i if i else 1.0
        weights += factor * difference
    return weights


def _differences(times: Sequence[float], order: int) -> list[Weights]:
    """TaylorSeer's `D_0 .. D_order` at the newest time, as weights of the features."""
    check_number("method.forecast.order", order, low=0, integer=True)
    unit = np.eye(len(times))
    found = [unit[0]]
    for n in range(1, len(times)):
        gap, newer = times[n] - times[n - 1], [unit[n]]
        for old in found[: int(order)]:
            newer.append((newer[-1] - old) / gap)
        found = newer
    return found


@exact(0, order=1, sigma=0.5)
@exact(1, order=1, sigma=0.5**0.5)
def hermite(
    times: Sequence[float], target: float, span: tuple[float, float], *, order: int = 1, sigma: float = 0.5
) -> Weights:
    """HiCache (arXiv 2508.16984): `F_n + sum_{i>=1} D_i sigma^i H_i(sigma k) / i!`.

    `D_i` are TaylorSeer's differences and `H_i` the physicists' Hermite polynomials. At order 1, `sigma = 1/sqrt(2)` is
    TaylorSeer. From order 2 on, the forecast does not approach `F_n` as `k` goes to 0.

    Args:
        times: see the module.
        target: see the module.
        span: see the module.
        order: the highest difference used.
        sigma: the scale of the polynomials, 0.5 to 0.75 in the paper.

    Example:
        >>> hermite([0, 1], 2, (0, 50), order=1, sigma=0.5).tolist()
        [-0.5, 1.5]
    """
    check_number("method.forecast.sigma", sigma, low=0)
    k, weights = target - times[-1], np.zeros(len(times))
    for i, difference in enumerate(_differences(times, order)):
        height = np.polynomial.hermite.hermval(sigma * k, np.eye(i + 1)[i]) if i else 1.0
        weights += sigma**i * height / math.factorial(i) * difference
    return weights


@exact(2, degree=2, ridge=0.0)
@exact(4, degree=4, ridge=0.0)
def chebyshev(
    times: Sequence[float], target: float, span: tuple[float, float], *, degree: int = 4, ridge: float = 0.1
) -> Weights:
    """Ridge regression on Chebyshev polynomials (Spectrum, arXiv 2603.01623): `x*^T (X^T X + ridge I)^-1 X^T`.

    The rows of `X` are `T_0 .. T_degree` at the times, mapped from `span` to [-1, 1]; `x*` is the same at the target.
    The ridge shrinks every coefficient, the constant too, so the weights need not sum to 1.

    Args:
        times: see the module; at least `degree + 1`.
        target: see the module.
        span: see the module.
        degree: the highest Chebyshev polynomial; the paper's M is 4.
        ridge: the penalty on the squared coefficients; the paper's lambda is 0.1.

    Raises:
        SpectrumError: if there are fewer features than coefficients.

    Example:
        >>> chebyshev([0, 1, 2, 3, 4], 5, (0, 50)).round(6).tolist()
        [-0.267689, -0.027509, 0.200618, 0.415845, 0.617412]
    """
    check_number("method.forecast.degree", degree, low=0, integer=True)
    check_number("method.forecast.ridge", ridge, low=0)
    columns = int(degree) + 1
    if len(times) < columns:
        refuse(
            f"method.forecast.degree={degree} needs {columns} run steps before the first skipped one, and the schedule "
            f"gives {len(times)}: lower method.forecast.degree to {len(times) - 1}, or run more steps first "
            f"(schedule.warmup={columns})"
        )
    low, high = span
    tau = 2 * (np.array([*times, target], dtype=np.float64) - low) / (high - low) - 1
    basis = np.polynomial.chebyshev.chebvander(tau, int(degree))
    x, x_target = basis[:-1], basis[-1]
    gram = x.T @ x + ridge * np.eye(columns)
    return x @ np.linalg.solve(gram, x_target)


@exact(4, ridge=0.0)
@exact(1, ridge=0.0, blend=0.5)
def spectrum(
    times: Sequence[float],
    target: float,
    span: tuple[float, float],
    *,
    degree: int = 4,
    ridge: float = 0.1,
    blend: float = 1.0,
) -> Weights:
    """Spectrum with its authors' blend: `(1 - blend) * newton + blend * chebyshev`.

    Args:
        times: see the module.
        target: see the module.
        span: see the module.
        degree: see `chebyshev`.
        ridge: see `chebyshev`.
        blend: 1 is the paper's method; the authors' README recommends 0.5 to 1.

    Example:
        >>> spectrum([0, 1, 2, 3, 4], 5, (0, 50), blend=0.0).tolist()
        [0.0, 0.0, 0.0, -1.0, 2.0]
    """
    check_number("method.forecast.blend", blend, low=0)
    if blend > 1:
        refuse(f"method.forecast.blend must lie between 0 (linear) and 1 (Chebyshev), got {blend}")
    if blend == 0:
        return newton(times, target, span)
    fitted = chebyshev(times, target, span, degree=degree, ridge=ridge)
    return (1 - blend) * newton(times, target, span) + blend * fitted


@exact(1, order=1)
@exact(2, order=2)
def lagrange(times: Sequence[float], target: float, span: tuple[float, float], *, order: int = 2) -> Weights:
    """Extrapolate the polynomial through the `order + 1` newest features, in barycentric form.

    `w_j = (b_j / (t - t_j)) / sum_i b_i / (t - t_i)` with `b_j = prod_{m != j} 1 / (t_j - t_m)`. With fewer features
    the order is lowered to what they allow.

    Args:
        times: see the module.
        target: see the module.
        span: see the module.
        order: degree of the polynomial.

    Example:
        >>> lagrange([0, 1, 2], 3, (0, 50), order=2).round(6).tolist()
        [1.0, -3.0, 3.0]
    """
    check_number("method.forecast.order", order, low=0, integer=True)
    nodes = np.array(times[-int(order) - 1 :], dtype=np.float64)
    gaps = nodes[:, None] - nodes + np.eye(len(nodes))
    terms = 1 / gaps.prod(axis=1) / (target - nodes)
    weights = np.zeros(len(times))
    weights[-len(nodes) :] = terms / terms.sum()
    return weights


@exact(0)
def resilphase(
    times: Sequence[float], target: float, span: tuple[float, float], *, order: int = 1, steepness: float = 0.55
) -> Weights:
    """ResilPhase: `lagrange` through the `order + 1` newest features on the clock `u(t)`, which saturates.

    `u(t) = tanh(steepness (t - mean) / max|t_j - mean|)` over those features' times `t_j`. At order 1 the newest weight
    therefore stays below 1.5, however far the target is.

    Args:
        times: see the module.
        target: see the module.
        span: see the module.
        order: degree of the polynomial in `u`.
        steepness: the factor inside the tanh, at least 0.001.

    Example:
        >>> resilphase([0, 6], 1000, (0, 50)).round(3).tolist()
        [-0.499, 1.499]
    """
    check_number("method.forecast.order", order, low=0, integer=True)
    check_number("method.forecast.steepness", steepness, low=1e-3)
    nodes = np.array(times[-int(order) - 1 :], dtype=np.float64)
    away = np.abs(nodes - nodes.mean()).max() or 1.0
    clock = np.tanh(steepness * (np.array([*nodes, target]) - nodes.mean()) / away)
    weights = np.zeros(len(times))
    weights[-len(nodes) :] = lagrange(clock[:-1].tolist(), float(clock[-1]), span, order=order)
    return weights


@exact(1)
def foca(times: Sequence[float], target: float, span: tuple[float, float]) -> Weights:
    """The BDF2 predictor of FoCa (arXiv 2508.16211) for uneven steps; on a unit grid `[1/3, -5/3, 7/3]`.

    `(1 + w)^2 / (1 + 2w) F_n - w^2 / (1 + 2w) F_{n-1} + (1 + w) / (1 + 2w) k F'_n` with `k` the distance, `g` the
    newest gap, `w = k / g`, and `F'_n` the slope of the parabola through the three newest features. The paper's
    corrector would turn this into an Euler step (results/LOG.md), so it is left out. With two features: `newton`.

    Example:
        >>> foca([0, 1, 2], 3, (0, 50)).round(6).tolist()
        [0.333333, -1.666667, 2.333333]
    """
    if len(times) < 3:
        return newton(times, target, span)
    g, h, k = times[-1] - times[-2], times[-2] - times[-3], target - times[-1]
    w = k / g
    slope = np.array([g / (h * (g + h)), -(g + h) / (g * h), (2 * g + h) / (g * (g + h))])
    level = np.array([0.0, -(w**2), (1 + w) ** 2]) / (1 + 2 * w)
    weights = np.zeros(len(times))
    weights[-3:] = level + (1 + w) / (1 + 2 * w) * k * slope
    return weights
