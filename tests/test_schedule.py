import functools

import pytest

from spectrum.bench.resolve import resolve
from spectrum.config.compose import compose
from spectrum.core import schedule
from spectrum.core.errors import SpectrumError
from spectrum.core.schedule import check_schedule, plan
from spectrum.models.plans import plan_of


def runs(function, steps=50, **parameters):
    return plan(functools.partial(function, **parameters), steps)


def listed(text):
    return [int(s) for s in text.split()]


def test_growing_window_lists():
    assert runs(schedule.growing_window, growth=0.75) == listed("0 1 2 3 4 6 8 11 15 20 25 31 38 46")
    assert runs(schedule.growing_window, growth=3.0) == listed("0 1 2 3 4 6 11 19 30 44")


@pytest.mark.parametrize(
    ("growth", "nfe"),
    [(0, 27), (0.25, 18), (0.5, 15), (0.75, 14), (1, 13), (1.5, 12), (2, 11), (3, 10), (4, 9), (0.4, 16)],
)
def test_growing_window_counts(growth, nfe):
    assert len(runs(schedule.growing_window, growth=growth)) == nfe


def test_a_growth_below_the_third_decimal_is_rounded_away():
    """round(2.999 + 0.0004, 3) is 2.999 again, so the window never reaches three steps."""
    slow = runs(schedule.growing_window, window=2.999, growth=0.0004)
    assert slow == runs(schedule.growing_window, window=2.0, growth=0.0)


@pytest.mark.parametrize(("interval", "nfe"), [(4, 14), (5, 12), (6, 10), (7, 9), (8, 8)])
def test_taylorseer_on_flux(interval, nfe):
    assert len(runs(schedule.fixed_interval, interval=interval, warmup=3)) == nfe


def test_taylorseer_lists():
    assert runs(schedule.fixed_interval, interval=4) == [0, 1, *range(2, 50, 4)]
    assert runs(schedule.fixed_interval, interval=6) == listed("0 1 2 8 14 20 26 32 38 44")
    assert runs(schedule.fixed_interval, interval=4, warmup=1) == list(range(0, 50, 4))
    assert len(runs(schedule.fixed_interval, interval=4, warmup=1)) == 13
    assert len(runs(schedule.fixed_interval, interval=5, warmup=1)) == 10


def test_fora_counts_down():
    assert runs(schedule.fixed_interval, interval=3, warmup=1, phase=-1) == [0, *range(1, 50, 3)]


def test_explicit_and_always():
    assert runs(schedule.explicit, run_steps=[0, 3, 9], steps=10) == [0, 3, 9]
    assert runs(schedule.always, steps=7) == list(range(7))


def test_accumulated_distance():
    rule = functools.partial(schedule.accumulated_distance, threshold=0.2)
    assert schedule.needs_drift(rule)
    assert not schedule.needs_drift(functools.partial(schedule.growing_window, growth=1.0))
    assert rule(0, 10, [], 0.0) and rule(9, 10, [0], 0.0)
    assert not rule(4, 10, [0], 0.19)
    assert rule(4, 10, [0], 0.2)
    assert not rule(1, 10, [0], 0.0) and not rule(8, 10, [0], 0.0)
    late = functools.partial(rule, warmup=3, last=2)
    assert [late(step, 10, [0], 0.0) for step in range(10)] == [True] * 3 + [False] * 5 + [True] * 2


def test_accumulated_distance_skips_no_more_in_a_row_than_asked():
    rule = functools.partial(schedule.accumulated_distance, threshold=0.2, most=2)
    assert [rule(step, 20, [0, 1, 3], 0.0) for step in (4, 5, 6, 7)] == [False, False, True, True]
    assert [rule(step, 20, [0, 1, 9], 0.0) for step in (10, 11, 12)] == [False, False, True]


def test_magnitude_by_hand():
    """After step 1 the products are 0.5 and 0.25, so the errors 0.5 and 0.5 + 0.75; an error at the threshold skips."""
    rule = functools.partial(schedule.magnitude, ratios=[1.0, 1.0, 0.5, 0.5, 1.0], retention=0.4)
    assert rule(1, 5, [0], threshold=9.0) and not rule(2, 5, [0, 1], threshold=0.5)
    assert not rule(3, 5, [0, 1], threshold=1.25) and rule(3, 5, [0, 1], threshold=1.24)


def test_magnitude_counts_from_the_last_of_its_first_steps():
    rule = functools.partial(schedule.magnitude, ratios=[1.0], retention=0.5, most=1)
    assert [rule(step, 10, [0]) for step in (4, 5, 6)] == [True, False, True]


def test_magnitude_takes_the_nearest_ratio_where_the_steps_are_others():
    """Of three ratios the last one belongs to the last step, also where that is the second of two."""
    rule = functools.partial(schedule.magnitude, retention=0.0, threshold=0.4)
    assert plan(functools.partial(rule, ratios=[1.0, 1.0, 0.5]), 2) == [0, 1]
    assert plan(functools.partial(rule, ratios=[1.0, 0.5, 1.0]), 2) == [0]
    assert plan(functools.partial(rule, ratios=[0.5, 1.0]), 1) == [0]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("flux", [0, 1, 2, 3, 4, 6, 9, 13, 17, 23, 29, 35, 41, 45, 48]),
        ("wan21_14b", [*range(10), 16, 23, 30, 36, 41, 44, 47, 49]),
        ("wan21_1_3b", [*range(10), 14, 19, 24, 29, 34, 38, 41, 44, 46, 48, 49]),
    ],
)
def test_magcache_with_its_authors_ratios_runs_their_steps(model, expected):
    config, method = resolve(compose([f"model={model}", "method=magcache"]))
    assert plan_of(config, method).runs == expected


@pytest.mark.parametrize(
    ("function", "parameters", "says"),
    [
        (schedule.growing_window, {"growth": -1.0}, "schedule.growth must be at least 0"),
        (schedule.growing_window, {"growth": float("nan")}, "schedule.growth must be finite"),
        (schedule.growing_window, {"warmup": 0}, "schedule.warmup"),
        (schedule.growing_window, {"window": 0.5}, "schedule.window"),
        (schedule.growing_window, {"growth": "fast"}, "must be a number"),
        (schedule.fixed_interval, {"interval": 0}, "schedule.interval"),
        (schedule.fixed_interval, {"interval": 2.5}, "whole number"),
        (schedule.explicit, {"run_steps": []}, "must start with step 0"),
        (schedule.explicit, {"run_steps": [3, 5]}, "must start with step 0"),
        (schedule.explicit, {"run_steps": [0, 5, 3]}, "ascend"),
        (schedule.explicit, {"run_steps": [0, 50]}, "0 to 49"),
    ],
)
def test_bad_parameters(function, parameters, says):
    with pytest.raises(SpectrumError, match=says):
        runs(function, **parameters)


def test_a_schedule_that_never_runs():
    with pytest.raises(SpectrumError, match="nothing to forecast from"):
        plan(lambda step, steps, runs, drift=0.0: False, 10)


def test_a_plan_asks_with_no_drift():
    assert plan(lambda step, steps, runs, drift: drift == 0.0, 3) == [0, 1, 2]


def test_a_schedule_can_be_called_with_step_steps_runs_and_drift():
    for function in (lambda step, steps, runs, drift: True, lambda a, b, c, drift=0.0, more=None: True):
        check_schedule(function)
    for function in (lambda step, steps, drift=0.0: True, lambda a, b, c, d: True, lambda a, b, c, drift, e: True):
        with pytest.raises(SpectrumError, match=r"^a Method's schedule is a function \(step, steps, runs, drift\)"):
            check_schedule(function)
