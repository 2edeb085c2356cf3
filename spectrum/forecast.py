"""Linear forecasters: the weights that a skipped step gives to each stored feature.

Every function has the form `(times, target, span, **parameters) -> weights`. `times` are the clock's readings at the
steps that ran, oldest first; `target` is the reading at the step to forecast; `span` is the clock's whole range. The
answer is a float64 array as long as `times`, oldest first, and the forecast is `sum_i weights[i] * feature[i]`.

With `@exact(degree, **parameters)` a function declares the highest degree of polynomials in time that it continues
exactly under those parameters; the tests hold it to that.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from spectrum.errors import check_number, refuse

Weights = NDArray[np.float64]
Forecast = Callable[[Sequence[float], float, tuple[float, float]], Weights]
F = TypeVar("F", bound=Callable[..., Weights])


def exact(degree: int, /, **parameters: Any) -> Callable[[F], F]:
    """Declare that with `parameters` a forecaster continues polynomials up to `degree` exactly, and no further."""

    def declare(function: F) -> F:
        function.__dict__.setdefault("exactness", []).append((degree, parameters))
        return function

    return declare


@exact(0)
def reuse(times: Sequence[float], target: float, span: tuple[float, float]) -> Weights:
    """The newest feature again: FORA (arXiv 2407.01425), and the residual reuse of TeaCache. Exact for constants."""
    weights = np.zeros(len(times))
    weights[-1] = 1.0
    return weights


@exact(1)
def newton(times: Sequence[float], target: float, span: tuple[float, float]) -> Weights:
    """Linear extrapolation through the two newest features, `[-k/g, 1 + k/g]`; reuse while there is only one."""
    return taylor(times, target, span, order=1)


@exact(0, order=0)
@exact(1, order=1)
@exact(1, order=3)
def taylor(times: Sequence[float], target: float, span: tuple[float, float], *, order: int = 1) -> Weights:
    """TaylorSeer's recursion (arXiv 2503.06923): `sum_i D_i k^i / i!` with `D_{i+1} = (D_i - D_i') / (a_n - a_{n-1})`.

    `D'` are the differences of the run step before, taken as far as that step had orders. Non-uniform gaps divide by
    the last gap only, so no order above 1 reproduces more than straight lines.
    """
    k, weights, factor = target - times[-1], np.zeros(len(times)), 1.0
    for i, difference in enumerate(_differences(times, order)):
        factor = factor * k / i if i else 1.0
        weights += factor * difference
    return weights


def _differences(times: Sequence[float], order: int) -> list[Weights]:
    """TaylorSeer's `D_0 .. D_order` at the newest time, as weights of the features."""
    check_number("method.order", order, low=0, integer=True)
    unit = np.eye(len(times))
    found = [unit[0]]
    for n in range(1, len(times)):
        gap, fresh = times[n] - times[n - 1], [unit[n]]
        for old in found[: int(order)]:
            fresh.append((fresh[-1] - old) / gap)
        found = fresh
    return found


@exact(0, order=1, sigma=0.5)
@exact(1, order=1, sigma=0.5**0.5)
def hermite(
    times: Sequence[float], target: float, span: tuple[float, float], *, order: int = 1, sigma: float = 0.5
) -> Weights:
    """HiCache (arXiv 2508.16984): TaylorSeer's differences with scaled Hermite polynomials in the place of powers.

    `F_n + sum_{i>=1} D_i sigma^i H_i(sigma k) / i!`, `H_i` the physicists'. At order 1 the sigma `1/sqrt(2)` is
    TaylorSeer. From order 2 on the forecast does not tend to `F_n` as `k` goes to 0.
    """
    check_number("method.sigma", sigma, low=0)
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

    `X` has the columns `T_0 .. T_degree` of the times mapped from `span` to [-1, 1]. All coefficients are shrunk, the
    constant too, so with a positive ridge the weights need not sum to 1. Raises `SpectrumError` when there are fewer
    features than coefficients.
    """
    check_number("method.degree", degree, low=0, integer=True)
    check_number("method.ridge", ridge, low=0)
    columns = int(degree) + 1
    if len(times) < columns:
        refuse(
            f"method.degree={degree} needs {columns} run steps before the first skipped one and the schedule gives "
            f"{len(times)}: lower method.degree to {len(times) - 1} or run more steps first (schedule.warmup={columns})"
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
    """Spectrum with its authors' blend: `(1 - blend) * newton + blend * chebyshev`; the paper has blend 1."""
    check_number("method.blend", blend, low=0)
    if blend > 1:
        refuse(f"method.blend must lie between 0 (linear) and 1 (Chebyshev), got {blend}")
    if blend == 0:
        return newton(times, target, span)
    fitted = chebyshev(times, target, span, degree=degree, ridge=ridge)
    return (1 - blend) * newton(times, target, span) + blend * fitted


@exact(1, order=1)
@exact(2, order=2)
def lagrange(times: Sequence[float], target: float, span: tuple[float, float], *, order: int = 2) -> Weights:
    """Extrapolate the polynomial through the `order + 1` newest features, in barycentric form.

    `w_j = (b_j / (t - t_j)) / sum_i b_i / (t - t_i)` with `b_j = prod_{m != j} 1 / (t_j - t_m)`. With fewer
    features the order is what they allow.
    """
    check_number("method.order", order, low=0, integer=True)
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
    """ResilPhase: `lagrange` through the `order + 1` newest features on a clock that saturates.

    `u(t) = tanh(steepness (t - mean) / max|t_j - mean|)` over those features' times, so that at order 1 the newest
    weight stays below 1.5 however far the forecast reaches.
    """
    check_number("method.order", order, low=0, integer=True)
    nodes = np.array(times[-int(order) - 1 :], dtype=np.float64)
    away = np.abs(nodes - nodes.mean()).max() or 1.0
    clock = np.tanh(steepness * (np.array([*nodes, target]) - nodes.mean()) / away)
    weights = np.zeros(len(times))
    weights[-len(nodes) :] = lagrange(clock[:-1].tolist(), float(clock[-1]), span, order=order)
    return weights


@exact(1)
def foca(times: Sequence[float], target: float, span: tuple[float, float]) -> Weights:
    """The BDF2 predictor of FoCa (arXiv 2508.16211) with variable steps; on a unit grid `[1/3, -5/3, 7/3]`.

    With `g, h` the two newest gaps, `k` the distance and `w = k / g`: `(1 + w)^2 / (1 + 2w) F_n - w^2 / (1 + 2w)
    F_{n-1} + (1 + w) / (1 + 2w) k F'_n`, where `F'_n` is the slope of the parabola through the three newest features.
    Put into the paper's own corrector it would collapse to an Euler step (results/LOG.md), so it stands alone. With
    fewer features: linear, then reuse.
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


def reach(forecast: Forecast, most: int = 16) -> int | None:
    """How many of the newest features a forecast can use; None if all, however many.

    Found by asking for the weights on an uneven grid: a feature whose weight is zero for every target there, and every
    older one, need not be kept, provided that without them the weights come out the same.
    """
    times = [float(n + (n * n) % 5 / 7) for n in range(most)]
    used = np.zeros(most, dtype=bool)
    for target in (most + 0.3, most + 4.1):
        used |= forecast(times, target, (0.0, 2.0 * most)) != 0
    depth = most - int(np.argmax(used)) if used.any() else 1
    if depth == most:
        return None
    for target in (most + 0.3, most + 4.1):
        full, few = (forecast(past, target, (0.0, 2.0 * most)) for past in (times, times[-depth:]))
        if not np.allclose(full[-depth:], few, rtol=1e-9, atol=1e-12):
            return None
    return depth
