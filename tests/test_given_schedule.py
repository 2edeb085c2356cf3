"""Schedules as users give them: functions of any argument names, called in any way, and what they may return."""

import functools

import numpy as np
import pytest
import torch

from spectrum.core.errors import SpectrumError
from spectrum.core.given_schedule import given_schedule
from spectrum.core.schedule import accumulated_distance, growing_window, needs_drift, plan


@pytest.mark.parametrize(
    "steps",
    [[0, 3, 5], (0, 3, 5), {5, 3, 0}, np.array([0, 3, 5]), torch.tensor([0, 3, 5])],
)
def test_steps_in_any_form(steps):
    assert plan(given_schedule(steps), 8) == [0, 3, 5]


def test_steps_that_can_be_read_once():
    assert plan(given_schedule(iter([0, 3, 5])), 8) == [0, 3, 5]


def test_a_schedule_of_this_project_keeps_its_own_arguments():
    given = given_schedule(functools.partial(growing_window, growth=3.0))
    assert plan(given, 50) == [0, 1, 2, 3, 4, 6, 11, 19, 30, 44]
    assert not needs_drift(given)
    given = given_schedule(functools.partial(accumulated_distance, threshold=0.5))
    assert needs_drift(given) and given(4, 10, [0], 0.5) and not given(4, 10, [0], 0.4)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda s: [s], (4,)),
        (lambda s, n: [s, n], (4, 10)),
        (lambda s, n, r: [s, n, r], (4, 10, [0, 2])),
        (lambda s, n, r, more=7: [s, n, r, more], (4, 10, [0, 2], 7)),
        (lambda *args: args, (4, 10, [0, 2])),
        (lambda s, *args: [s, *args], (4, 10, [0, 2])),
        (lambda drift: [drift], (0.3,)),
        (lambda drift, s, n, r: [s, n, r, drift], (4, 10, [0, 2], 0.3)),
        (lambda step, steps, runs, drift: [step, steps, runs, drift], (4, 10, [0, 2], 0.3)),
    ],
)
def test_a_function_gets_the_first_of_step_steps_and_runs_and_the_drift_by_its_name(function, expected):
    seen = []
    given = given_schedule(_recording(function, seen))
    assert given(4, 10, [0, 2], 0.3) is True
    assert given(step=4, steps=10, runs=[0, 2], drift=0.3) is True
    assert seen == [expected, expected]


def _recording(function, seen):
    @functools.wraps(function)
    def record(*args, **kwargs):
        seen.append(tuple(function(*args, **kwargs)))
        return True

    return record


@pytest.mark.parametrize(
    "function",
    [
        lambda a, b, c, d, drift: True,
        lambda a, drift, *, more=1: True,
        lambda a, *more, drift: True,
        lambda drift, **more: True,
    ],
)
def test_a_function_with_the_drift_takes_three_other_arguments_at_most(function):
    with pytest.raises(
        SpectrumError, match=r"takes \(step, steps, runs\) and drift, and this one takes other arguments"
    ):
        given_schedule(function)


@pytest.mark.parametrize("found", [True, 1, np.True_, np.bool_(True), type("bool_", (), {})()])
def test_a_truth_value_of_python_or_of_either_numpy_is_taken(found):
    """numpy 1 calls the type of its truth values bool_, numpy 2 bool."""
    assert given_schedule(lambda step: found)(0, 1, []) is True


@pytest.mark.parametrize("found", [None, "yes", 1.0, [True]])
def test_anything_else_is_refused(found):
    with pytest.raises(SpectrumError, match="returns True or False, and this one returned"):
        given_schedule(lambda step: found)(0, 1, [])


def test_a_function_that_fails_names_the_step_however_it_was_called():
    given = given_schedule(lambda s: 1 / 0)
    with pytest.raises(SpectrumError, match="failed at step 3: ZeroDivisionError: division by zero"):
        given(3, 10, [0], 0.0)
    with pytest.raises(SpectrumError, match="failed at step 3: ZeroDivisionError: division by zero"):
        given(step=3, steps=10, runs=[0], drift=0.0)
