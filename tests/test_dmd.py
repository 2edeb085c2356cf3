"""HiCache++'s forecast on series whose continuation is known, and that each sample has its own weights."""

import functools

import numpy as np
import pytest
import torch

from baselines.dmd import dmd
from spectrum.core.errors import SpectrumError
from spectrum.core.forecast import hermite
from spectrum.core.history import History
from spectrum.core.method import Method, plan_method
from spectrum.core.schedule import fixed_interval

SPAN = (0.0, 50.0)
RANDOM = np.random.default_rng(0)
WAVE = RANDOM.normal(size=200) + 1j * RANDOM.normal(size=200)
DECAY, BASE, SLOPE = RANDOM.normal(size=(3, 200))


def modes(t):
    """A decay and a damped wave: three modes."""
    return DECAY * 0.9**t + (WAVE * (0.7 + 0.2j) ** t).real


def line(t):
    return BASE + SLOPE * t


def forecast(series, ahead, count=5, spacing=4, **more):
    """The forecast of a series `ahead` spacings past its newest point, and what is there."""
    points = np.stack([series(t) for t in range(count)], axis=1)
    times = [float(spacing * t) for t in range(count)]
    target = times[-1] + spacing * ahead
    return points @ dmd(times, target, SPAN, gram=points.T @ points, **more), series(count - 1 + ahead)


@pytest.mark.parametrize("ahead", [0.25, 1, 2, 3])
def test_sums_of_exponentials_are_continued_exactly(ahead):
    found, there = forecast(modes, ahead)
    np.testing.assert_allclose(found, there, atol=1e-11)


@pytest.mark.parametrize("ahead", [0.5, 1, 2])
def test_a_straight_line_goes_on_in_its_direction(ahead):
    found, there = forecast(line, ahead)
    np.testing.assert_allclose(found, there, atol=1e-6)


def test_only_the_newest_evenly_spaced_features_are_used():
    times = [0.0, 1.0, 2.0, 6.0, 10.0, 14.0, 18.0]
    points = np.stack([modes(t / 4) for t in times], axis=1)
    weights = dmd(times, 20.0, SPAN, gram=points.T @ points)
    assert not weights[:3].any(), "of the window's five the oldest has no feature before it"
    np.testing.assert_allclose(points @ weights, modes(5.0), atol=1e-11)
    few = dmd(times, 20.0, SPAN, gram=points.T @ points, window=4)
    assert not few[:4].any() and not np.allclose(few, weights)


def test_before_four_even_features_it_is_hicache():
    times = [0.0, 1.0, 2.0, 6.0, 10.0]
    gram = np.diag(np.arange(1.0, 6.0))
    expected = hermite(times, 12.0, SPAN, order=2, sigma=0.5)
    np.testing.assert_array_equal(dmd(times, 12.0, SPAN, gram=gram), expected)
    np.testing.assert_array_equal(dmd([0.0], 1.0, SPAN, gram=gram[:1, :1]), [1.0])


def test_features_of_nothing_but_zeros_are_used_again():
    assert dmd([0, 1, 2, 3], 5, SPAN, gram=np.zeros((4, 4))).tolist() == [0, 0, 0, 1]


def test_a_window_below_four_is_refused():
    with pytest.raises(SpectrumError, match=r"method\.forecast\.window"):
        dmd([0, 1], 2, SPAN, window=3)


def test_its_weights_are_not_known_before_the_run():
    method = Method("mine", dmd, functools.partial(fixed_interval, interval=4))
    found = plan_method(method, 12)
    assert method.weights_by_data and method.by_sample and method.max_features is None
    assert found.runs == [0, 1, 2, 6, 10] and found.skipped == []


def test_the_products_are_those_of_all_elements():
    history = History()
    features = [torch.randn(2, 3, generator=torch.Generator().manual_seed(n)).bfloat16() for n in range(3)]
    for n, feature in enumerate(features):
        history.add(float(n), feature)
    expected = [[float((a.double() * b.double()).sum()) for b in features] for a in features]
    np.testing.assert_allclose(history.gram(), expected, rtol=1e-12)
