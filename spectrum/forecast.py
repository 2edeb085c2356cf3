"""Linear forecasters: the weights that a skipped step gives to each stored feature.

Every function has the form `(times, target, span, **parameters) -> weights`. `times` are the clock's readings at the
steps that ran, oldest first; `target` is the reading at the step to forecast; `span` is the clock's whole range. The
answer is a float64 array as long as `times`, oldest first, and the forecast is `sum_i weights[i] * feature[i]`.

With `@exact(degree, **parameters)` a function declares the highest degree of polynomials in time that it continues
exactly under those parameters; the tests hold it to that.
"""

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
    check_number("method.order", order, low=0, integer=True)
    unit = np.eye(len(times))
    differences = [unit[0]]
    for n in range(1, len(times)):
        gap, fresh = times[n] - times[n - 1], [unit[n]]
        for old in differences[: int(order)]:
            fresh.append((fresh[-1] - old) / gap)
        differences = fresh
    k, weights, factor = target - times[-1], np.zeros(len(times)), 1.0
    for i, difference in enumerate(differences):
        factor = factor * k / i if i else 1.0
        weights += factor * difference
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
