import ast
import functools
import inspect

import numpy as np
import pytest

from spectrum.core import forecast
from spectrum.core.errors import SpectrumError
from spectrum.core.memory import features_used

SPAN = (0.0, 50.0)
CHEBYSHEV = [
    ([0, 1, 2, 3, 4], 5, "-.267689 -.027509 .200618 .415845 .617412", 0.93868, 1.52907),
    ([0, 1, 2, 3, 4, 6], 7, "-.136600 -.078862 .017984 .147365 .303053 .670164", 0.92310, 1.35403),
    (
        [0, 1, 2, 3, 4, 6, 11, 19, 30], 43,
        "-.454839 -.124487 .117382 .281078 .376486 .399843 -.126895 -.968884 1.153944", 0.65363, 4.00384,
    ),
    (
        [0, 1, 2, 3, 4, 6, 11, 19, 30, 44], 49,
        ".745211 .206519 -.174808 -.419920 -.548823 -.532302 .362688 1.363011 -1.450036 1.252226", 0.80377, 7.05554,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("runs", "target", "expected", "total", "l1"), CHEBYSHEV)
def test_chebyshev_vectors(runs, target, expected, total, l1):
    for weights in (forecast.chebyshev(runs, target, SPAN), forecast.spectrum(runs, target, SPAN, blend=1.0)):
        np.testing.assert_allclose(weights, [float(w) for w in expected.split()], atol=1e-6)
        assert weights.sum() == pytest.approx(total, abs=6e-6)
        assert np.abs(weights).sum() == pytest.approx(l1, abs=6e-6)


TAYLOR = [
    ([0, 1, 2, 6, 10, 14], 16, 1, [0, 0, 0, 0, -0.5, 1.5]),
    ([0, 1, 2, 6, 10, 14], 16, 2, [0, 0, 0, 0.125, -0.75, 1.625]),
    ([0, 1, 2, 6, 10, 14], 16, 3, [0, 0, -0.020833, 0.1875, -0.8125, 1.645833]),
    ([0, 1, 2, 8], 10, 2, [0, 0.333333, -0.722222, 1.388889]),
]


@pytest.mark.parametrize(("runs", "target", "order", "expected"), TAYLOR)
def test_taylor_vectors(runs, target, order, expected):
    np.testing.assert_allclose(forecast.taylor(runs, target, SPAN, order=order), expected, atol=1e-6)


HERMITE = [
    (1, 0.5, [0, -1 / 2, 1 + 1 / 2]),
    (2, 0.5, [-1 / 8, -1 / 2 + 2 / 8, 1 + 1 / 2 - 1 / 8]),
    (2, 0.75, [9 / 128, -9 / 8 - 18 / 128, 1 + 9 / 8 + 9 / 128]),
]
"""On a unit grid with k = 1: D_1 = F_2 - F_1, D_2 = F_2 - 2 F_1 + F_0; H_1(x) = 2x, H_2(x) = 4x^2 - 2. At sigma 0.5
the factors of D_1 and D_2 are 1/2 * 1 and 1/4 * -1 / 2, at 0.75 they are 3/4 * 3/2 and 9/16 * 1/4 / 2."""


@pytest.mark.parametrize(("order", "sigma", "expected"), HERMITE)
def test_hermite_vectors(order, sigma, expected):
    np.testing.assert_allclose(forecast.hermite([0, 1, 2], 3, SPAN, order=order, sigma=sigma), expected, atol=1e-12)


def test_taylor_order_two_on_a_uniform_grid():
    gap, k = 4, 3
    expected = [k**2 / (2 * gap**2), -k / gap - k**2 / gap**2, 1 + k / gap + k**2 / (2 * gap**2)]
    np.testing.assert_allclose(forecast.taylor([2, 6, 10], 13, SPAN, order=2), expected, atol=1e-12)


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_taylor_uses_the_orders_it_has(order):
    assert forecast.taylor([3], 7, SPAN, order=order).tolist() == [1.0]
    np.testing.assert_allclose(forecast.taylor([0, 4], 6, SPAN, order=order), [-0.5, 1.5] if order else [0, 1])


def test_resilphase_is_a_line_on_a_saturating_clock():
    """The two newest times 4 and 6 lie at u = -tanh(s) and tanh(s), and the target 8 at tanh(3 s)."""
    reach = np.tanh(3 * 0.55) / np.tanh(0.55)
    expected = [0, 0, (1 - reach) / 2, (1 + reach) / 2]
    np.testing.assert_allclose(forecast.resilphase([0, 1, 4, 6], 8, SPAN), expected, atol=1e-12)


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_resilphase_goes_through_as_many_features_as_its_order_asks_for(order):
    times = [0, 1, 3, 4, 7, 9]
    weights = forecast.resilphase(times, 11, SPAN, order=order)
    nodes = np.array([*times[-order - 1 :], 11.0])
    centre = nodes[:-1].mean()
    away = max(abs(nodes[:-1] - centre)) or 1.0
    clock = np.tanh(0.55 * (nodes - centre) / away)
    assert not weights[: -order - 1].any()
    for power in range(order + 1):
        assert weights[-order - 1 :] @ clock[:-1] ** power == pytest.approx(clock[-1] ** power)


@pytest.mark.parametrize("name", ["lagrange", "resilphase"])
def test_with_fewer_features_the_order_is_lowered_to_what_they_allow(name):
    function = getattr(forecast, name)
    assert function([3], 7, SPAN, order=2).tolist() == [1.0]
    assert function([3, 5], 6, SPAN, order=2).tolist() == function([3, 5], 6, SPAN, order=1).tolist()


def test_foca_on_uneven_steps_and_with_two_features():
    """g = 2, h = 1, k = 1: w = 1/2, level [0, -1/8, 9/8], slope [2/3, -3/2, 5/6] times 3/4."""
    expected = [1 / 2, -1 / 8 - 9 / 8, 9 / 8 + 5 / 8]
    np.testing.assert_allclose(forecast.foca([0, 1, 3], 4, SPAN), expected, atol=1e-12)
    np.testing.assert_allclose(forecast.foca([0, 2], 3, SPAN), [-0.5, 1.5])
    assert forecast.foca([2], 3, SPAN).tolist() == [1.0]


DECLARED = [
    (name, degree, parameters)
    for name, function in vars(forecast).items()
    for degree, parameters in getattr(function, "exactness", ())
]


@pytest.mark.parametrize(("name", "degree", "parameters"), DECLARED)
def test_the_declared_exact_degree_is_the_highest_that_holds(name, degree, parameters):
    times, target = [0, 1, 3, 4, 6, 11, 19], 25
    weights = getattr(forecast, name)(times, target, SPAN, **parameters)

    def error(power):
        return abs(weights @ (np.array(times) / 50.0) ** power - (target / 50.0) ** power)

    assert all(error(power) < 1e-9 for power in range(degree + 1))
    assert error(degree + 1) > 1e-3


def test_every_forecaster_declares_its_exact_degree():
    source = ast.parse(inspect.getsource(forecast))
    public = {node.name for node in source.body if isinstance(node, ast.FunctionDef) and node.name[0] != "_"}
    assert public - {"exact"} == {name for name, _, _ in DECLARED}


def test_ridge_shrinks_the_constant_too():
    weights = forecast.chebyshev([0, 1, 2, 3, 4], 5, SPAN, ridge=0.1)
    assert weights.sum() < 0.95
    assert forecast.chebyshev([0, 1, 2, 3, 4], 5, SPAN, ridge=1e-9).sum() == pytest.approx(1, abs=1e-3)


def test_blend_is_linear_between_its_ends():
    times, target = [0, 1, 2, 3, 4, 6], 9
    ends = [forecast.spectrum(times, target, SPAN, blend=b) for b in (0.0, 1.0)]
    np.testing.assert_allclose(ends[0], forecast.newton(times, target, SPAN))
    np.testing.assert_allclose(forecast.spectrum(times, target, SPAN, blend=0.3), 0.7 * ends[0] + 0.3 * ends[1])


@pytest.mark.parametrize("name", ["reuse", "newton", "taylor", "chebyshev", "spectrum"])
def test_an_affine_clock_changes_nothing(name):
    times, target = np.array([0, 1, 2, 3, 4, 6.0]), 9.0
    function = getattr(forecast, name)
    other = function((1000 - 20 * times).tolist(), 1000 - 20 * target, (1000.0, 0.0))
    np.testing.assert_allclose(other, function(times.tolist(), target, SPAN), atol=1e-10)


@pytest.mark.parametrize(
    ("function", "expected"),
    [("reuse", 1), ("newton", 2), ("taylor", 2), ("chebyshev", None), ("spectrum", None)],
)
def test_reach(function, expected):
    assert features_used(getattr(forecast, function)) == expected


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"degree": -1}, "method.forecast.degree"),
        ({"degree": 1.5}, "whole number"),
        ({"degree": 7}, "lower method.forecast.degree to 4"),
        ({"ridge": -0.1}, "method.forecast.ridge"),
        ({"ridge": float("nan")}, "method.forecast.ridge must be finite"),
        ({"blend": 1.5}, "method.forecast.blend"),
        ({"blend": float("inf")}, "method.forecast.blend"),
    ],
)
def test_bad_parameters(parameters, says):
    with pytest.raises(SpectrumError, match=says):
        forecast.spectrum([0, 1, 2, 3, 4], 5, SPAN, **parameters)


@pytest.mark.parametrize("blend", [0.0, 0.5, 1.0])
def test_no_more_is_forgotten_than_the_forecast_can_do_without(blend):
    """With blend 0 only the two newest features count, and the fit, which would need five, is not made."""
    blended = functools.partial(forecast.spectrum, blend=blend)
    depth = features_used(blended)
    assert depth == (2 if blend == 0 else None)
    times = [0.0, 1.0, 2.0, 3.0, 4.0, 6.0][-(depth or 6) :]
    assert len(blended(times, 7.0, (0.0, 50.0))) == len(times)


def test_a_forecast_that_fails_on_fewer_features_keeps_them_all():
    def stubborn(times, target, span):
        return forecast.newton(times, target, span) if len(times) > 4 else forecast.reuse(times, target, span)

    assert features_used(stubborn) is None
