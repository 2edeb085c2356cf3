"""MeanCache's forecast, against numbers by hand and against its formula on the latents of an Euler run."""

import functools

import numpy as np
import pytest

from baselines.meancache import meancache
from spectrum.bench.fitting import forecast_of
from spectrum.core.clock import Clock
from spectrum.core.errors import SpectrumError
from spectrum.core.method import Method, Site, plan_method
from spectrum.core.schedule import explicit

SIGMAS = [1.0, 0.9, 0.85, 0.7, 0.5, 0.45, 0.3, 0.1]
RUNS = [0, 1, 4]
SPAN = (0.0, 1.0)


def method(orders):
    schedule = functools.partial(explicit, run_steps=RUNS)
    return Method("mine", functools.partial(meancache, orders=orders), schedule, site=Site.output, clock=Clock.sigma)


def test_two_skipped_steps_by_hand():
    """On an even grid `v_3 = v_2 - (v_1 - (v_1 + v_2) / 2) / 2`, and `v_4` likewise from `v_2` and the new `v_3`."""
    grid = [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]
    assert meancache([5.0, 4.0], 3.0, (0, 6), readings=grid).tolist() == [-0.25, 1.25]
    assert meancache([5.0, 4.0], 2.0, (0, 6), readings=grid).tolist() == [-0.3125, 1.3125]


@pytest.mark.parametrize("orders", [1, 2, 3, 5, [1, 3, 2], [1, 2]])
def test_its_weights_give_what_its_formula_gives_on_the_latents(orders):
    """The authors' code: the mean velocity is how far the latents went over the last K steps."""
    random = np.random.default_rng(0)
    fresh = {step: random.normal(size=3) for step in RUNS}
    skipped = {s.step: s.weights for s in plan_method(method(orders), len(SIGMAS), SIGMAS, SPAN).skipped}
    grid, latents, velocities, gap = [*SIGMAS, 0.0], [random.normal(size=3)], [], -1
    for step in range(len(SIGMAS)):
        if step in RUNS:
            gap += 1
            velocities.append(fresh[step])
        else:
            listed = orders if isinstance(orders, list) else [orders]
            begin = step - min(listed[min(gap, len(listed) - 1)], step)
            across = grid[step] - grid[begin]
            slope = (velocities[begin] - (latents[step] - latents[begin]) / across) / across
            velocities.append(velocities[-1] - slope * (grid[step + 1] - grid[step]))
            past = np.stack([fresh[run] for run in RUNS if run < step])
            np.testing.assert_allclose(np.array(skipped[step]) @ past, velocities[-1], atol=1e-12)
        latents.append(latents[-1] + (grid[step + 1] - grid[step]) * velocities[-1])
    assert sorted(skipped) == [2, 3, 5, 6, 7]


def test_of_order_one_it_is_reuse():
    found = plan_method(method(1), len(SIGMAS), SIGMAS, SPAN)
    assert all(s.weights == [0.0] * (len(s.weights) - 1) + [1.0] for s in found.skipped)


def test_it_stores_all_features_and_is_told_the_whole_clock():
    assert method(2).whole_clock and method(2).max_features is None
    assert not Method("fora", forecast_of("fora")).whole_clock


def test_a_plan_may_take_its_weights_from_it_and_from_adams():
    """On the step clock, with the grid's sigmas: the same weights as the method's own, and a line in sigma."""
    own = plan_method(method(2), len(SIGMAS), SIGMAS, SPAN).skipped[-1].weights
    found = forecast_of("meancache", SIGMAS)(RUNS, len(SIGMAS) - 1, (0, 8))
    np.testing.assert_allclose(found, own, atol=1e-12)
    line = forecast_of("adams", SIGMAS)([1, 4], 6, (0, 8))
    np.testing.assert_allclose(line, [-0.2 / 0.4, 0.6 / 0.4], atol=1e-12)


def test_on_a_clock_that_rises_the_last_step_ends_at_the_end_of_its_span():
    """The same weights as on the falling clock of the same spacing."""
    falling = meancache([6.0, 5.0, 2.0], 1.0, (0, 6), readings=[6.0, 5.0, 4.0, 3.0, 2.0, 1.0])
    rising = meancache([0.0, 1.0, 4.0], 5.0, (0, 6), readings=[0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    np.testing.assert_allclose(rising, falling, atol=1e-12)
    assert falling[-1] > 1


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"readings": [3.0, 2.0, 2.0, 1.0]}, "such as Heun's, or begins at an infinite one"),
        ({"readings": [float("inf"), 3.0, 1.0]}, "such as Heun's, or begins at an infinite one"),
        ({"orders": 0}, "method.forecast.orders"),
        ({"orders": []}, "method.forecast.orders is empty"),
        ({"readings": [3.0, 2.0]}, "give it the clock's reading at each of them"),
    ],
)
def test_bad_input_is_refused(more, says):
    with pytest.raises(SpectrumError, match=says):
        meancache([3.0], 1.0, (0, 3), **{"readings": [3.0, 2.0, 1.0], **more})
