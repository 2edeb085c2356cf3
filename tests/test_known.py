"""Weights that a plan has worked out are used in its run; those of functions of others are asked for at each step."""

import functools

import pytest

from spectrum import Method
from spectrum.core import forecast, schedule
from spectrum.core.given_schedule import given_schedule
from spectrum.core.known import KnownWeights, known_weights
from spectrum.core.method import plan_method

TIMES, SPAN = [float(step) for step in range(12)], (0.0, 12.0)


def of_another(times, target, span):
    return forecast.newton(times, target, span)


@pytest.mark.parametrize("own", [forecast.newton, functools.partial(forecast.spectrum, degree=2), forecast.reuse])
def test_they_are_those_that_the_run_would_work_out(own):
    method = Method("mine", own, schedule.fixed_interval)
    known = KnownWeights(method).on(TIMES, SPAN)
    plan = plan_method(method, 12)
    assert sorted(known) == [skipped.step for skipped in plan.skipped]
    for step, (stored, weights) in known.items():
        past = [TIMES[run] for run in plan.runs if run < step]
        assert stored == past[-(method.max_features or len(past)) :]
        assert weights == list(own(stored, TIMES[step], SPAN))


def test_a_run_on_the_same_clock_is_not_planned_again_and_one_on_another_clock_is():
    found = KnownWeights(Method("mine", forecast.newton, schedule.fixed_interval))
    first = found.on(TIMES, SPAN)
    assert found.on(list(TIMES), SPAN) is first
    other = [time / 2 for time in TIMES]
    assert found.on(other, SPAN)[7][0] == [1.0, 3.0]
    assert found.on(TIMES, SPAN) == first


@pytest.mark.parametrize(
    "made",
    [
        Method("mine", of_another, schedule.fixed_interval),
        Method("mine", forecast.newton, given_schedule(lambda step, steps, runs: step % 4 == 0)),
    ],
)
def test_functions_of_others_are_asked_at_each_step(made):
    assert KnownWeights(made).on(TIMES, SPAN) == {}


def test_where_branches_or_data_decide_nothing_is_known():
    by_branch = Method("mine", forecast.newton, schedule.fixed_interval, by_branch=True)
    assert (
        known_weights(by_branch, plan_method(Method("mine", forecast.newton, schedule.fixed_interval), 12), TIMES) == {}
    )
