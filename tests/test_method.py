"""A method as data: what it refuses, what it holds, what it will do."""

import functools
import math

import numpy as np
import pytest

from spectrum.core import forecast, schedule
from spectrum.core.clock import Clock
from spectrum.core.errors import SpectrumError
from spectrum.core.memory import features_used
from spectrum.core.method import Method, Plan, Signal, Site, SkippedStep, Space, plan_method
from spectrum.core.weights import checked_weights


def drift(context):
    return 0.0


def windowed(**kwargs):
    return Method("mine", forecast.newton, functools.partial(schedule.growing_window, **kwargs))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"space": "side"}, "method.space=side is unknown: type one of feature, residual"),
        ({"site": "roof"}, "method.site=roof is unknown: type one of exit, output, modules"),
        ({"clock": "sun"}, "method.clock=sun is unknown: type one of step, timestep, sigma"),
        ({"signal": "x"}, "method.signal=x is unknown: type one of "),
        ({"front_blocks": -1}, "method.front_blocks must be at least 0, got -1"),
        ({"front_blocks": 1.5}, "method.front_blocks must be a whole number, got 1.5"),
        (
            {"signal": "front_residual"},
            "mine looks at the residual of the front blocks, so some must run: method.front",
        ),
        (
            {"schedule": functools.partial(schedule.accumulated_distance, threshold=1.0)},
            "mine measures no drift, so it cannot use a schedule that decides by drift: type another, for example "
            "schedule=growing_window",
        ),
    ],
)
def test_fields_that_make_no_method_are_refused(settings, says):
    with pytest.raises(SpectrumError) as error:
        Method("mine", forecast.reuse, **settings)
    assert str(error.value).startswith(says)


def test_words_become_members_and_what_is_left_out_has_its_default():
    found = Method("mine", forecast.reuse, space="residual", site="output", clock="sigma", signal="latents")
    assert (found.space, found.site, found.clock, found.signal) == (
        Space.residual, Site.output, Clock.sigma, Signal.latents,
    )  # fmt: skip
    assert type(found.space) is Space and type(found.site) is Site and type(found.clock) is Clock
    assert Method("mine", forecast.reuse, front_blocks=1, signal="front_residual").front_blocks == 1


def test_how_many_features_a_method_holds():
    assert Method("none", None).max_features == 0
    assert Method("mine", forecast.newton).max_features == 2
    assert Method("mine", forecast.chebyshev).max_features is None
    assert Method("mine", lambda times, target: [1.0]).max_features is None


def test_only_a_schedule_that_looks_at_drift_is_not_of_time_alone():
    by_data = functools.partial(schedule.accumulated_distance, threshold=1.0)
    assert windowed().time_only and not Method("mine", forecast.reuse, by_data, drift=drift).time_only


def test_a_plan_has_the_run_steps_and_the_weights_of_the_others():
    found = plan_method(windowed(), 12)
    assert found == Plan(12, found.runs, found.skipped, 2) and found.nfe == len(found.runs) == 8
    assert found.runs == [0, 1, 2, 3, 4, 6, 8, 11]
    assert [s.step for s in found.skipped] == [5, 7, 9, 10]
    assert found.skipped[3].weights == [0.0] * 5 + [-1.0, 2.0] and found.skipped[3].total == 1.0
    assert found.skipped[3].l1 == 3.0 and SkippedStep(1, [0.5, -2.0]).total == -1.5
    assert Plan(9, None, [], 1).nfe is None and Plan(9, [], [], 1).nfe == 0


def test_a_plan_on_another_clock_and_span_uses_them():
    asked = []

    def spy(times, target, span):
        asked.append((list(times), target, span))
        return [0.0] * (len(times) - 1) + [1.0]

    method = Method("mine", spy, functools.partial(schedule.explicit, run_steps=[0, 2]))
    plan_method(method, 4, times=[1000.0, 700.0, 400.0, 100.0], span=(0.0, 1000.0))
    own = [call for call in asked if call[2] == (0.0, 1000.0)]
    assert own == [([1000.0], 700.0, (0.0, 1000.0)), ([400.0], 100.0, (0.0, 1000.0))], "the one feature that is held"
    asked.clear()
    plan_method(method, 4)
    assert [call for call in asked if call[2] == (0.0, 4.0)] == [([0], 1, (0.0, 4.0)), ([2], 3, (0.0, 4.0))]


def test_a_second_denoiser_begins_its_own_history():
    found = plan_method(windowed(warmup=2), 12, starts=[0, 5])
    assert found.runs == [0, 1, 3, 5, 6, 8, 10] and [s.step for s in found.skipped] == [2, 4, 7, 9, 11]
    assert [len(s.weights) for s in found.skipped] == [2, 3, 2, 3, 4]
    every = Method(
        "mine", functools.partial(forecast.chebyshev, degree=1), functools.partial(schedule.growing_window, warmup=2)
    )
    assert plan_method(every, 12, starts=[0, 5]).features_held == 4
    assert plan_method(every, 12).features_held == len(plan_method(every, 12).runs)
    assert plan_method(windowed(warmup=2), 1).features_held == 1


@pytest.mark.parametrize("newest", [lambda n: [1 + 1e-7 * n], lambda n: [1e-10 * n, 1.0], lambda n: [0.5, 0.5][:n]])
def test_a_forecast_whose_weights_change_with_the_number_of_features_keeps_them_all(newest):
    def weights(times, target, span):
        own = newest(len(times))
        return [0.0] * (len(times) - len(own)) + own

    assert Method("mine", weights).max_features == (2 if newest(2) == [0.5, 0.5] else None)


def test_a_schedule_is_told_how_many_steps_a_second_denoiser_has():
    ends = Method("mine", forecast.reuse, lambda step, steps, runs, drift=0.0: step in (0, steps - 1))
    assert plan_method(ends, 12, starts=[0, 5]).runs == [0, 5, 11]


def test_a_schedule_by_data_is_tried_once_so_that_it_refuses_its_settings():
    asked = []

    def spy(step, steps, runs, drift):
        asked.append((step, steps, runs, drift))
        return True

    plan_method(Method("mine", forecast.newton, spy, drift=drift), 9)
    assert asked == [(0, 9, [], 0.0)]


def test_a_plan_by_data_knows_its_memory_alone():
    by_data = functools.partial(schedule.accumulated_distance, threshold=1.0)
    assert plan_method(Method("mine", forecast.newton, by_data, drift=drift), 9) == Plan(9, None, [], 2)
    assert plan_method(Method("mine", forecast.chebyshev, by_data, drift=drift), 9) == Plan(9, None, [], 9)
    bad = Method("mine", forecast.newton, functools.partial(by_data, threshold=-1.0), drift=drift)
    with pytest.raises(SpectrumError, match=r"schedule.threshold must be at least 0, got -1"):
        plan_method(bad, 9)


def test_a_method_without_a_forecast_skips_nothing():
    assert plan_method(Method("none", None), 3) == Plan(3, [0, 1, 2], [], 0)
    with pytest.raises(SpectrumError, match=r"^method=none cannot skip a step: leave its schedule at schedule=always$"):
        plan_method(Method("none", None, schedule.growing_window), 9)


@pytest.mark.parametrize(
    ("returned", "says"),
    [
        ([1.0], "the forecast of mine must return 2 weights, one for each time it is given, got the shape (1,)"),
        (
            [[0.5, 0.5]],
            "the forecast of mine must return 2 weights, one for each time it is given, got the shape (1, 2)",
        ),
        ("ab", "the forecast of mine must return one weight for each stored feature, got 'ab'"),
        ([0.5, math.nan], "the forecast of mine returned NaN or infinite weights for times [0, 1] and target 3"),
        ([math.inf, 0.5], "the forecast of mine returned NaN or infinite weights for times [0, 1] and target 3"),
    ],
)
def test_weights_that_cannot_be_used_are_refused(returned, says):
    with pytest.raises(SpectrumError) as error:
        checked_weights(Method("mine", lambda times, target, span: returned), [0, 1], 3, (0, 9))
    assert str(error.value) == says


def test_weights_are_a_list_of_floats_and_an_error_inside_names_its_forecast():
    found = checked_weights(Method("mine", lambda times, target, span: np.array([1, 2])), [0, 1], 3, (0, 9))
    assert found == [1.0, 2.0] and all(type(w) is float for w in found)

    def broken(times, target, span):
        raise ZeroDivisionError("by zero")

    with pytest.raises(SpectrumError, match=r"^the forecast of mine failed at time 3: ZeroDivisionError: by zero$"):
        checked_weights(Method("mine", broken), [0, 1], 3, (0, 9))
    with pytest.raises(SpectrumError, match=r"^method.forecast.order must be at least 0"):
        checked_weights(Method("mine", functools.partial(forecast.taylor, order=-1)), [0, 1], 3, (0, 9))


def newest(count, others=0.0):
    """Weights of the newest `count` features, the older ones' all `others`."""

    def weights(times, target, span):
        few = min(count, len(times))
        return [others] * (len(times) - few) + [1.0 / count] * few

    return weights


def test_the_features_that_a_forecast_uses_are_counted():
    for count in (1, 2, 5, 15):
        assert features_used(newest(count)) == count
    assert features_used(newest(16)) is None and features_used(newest(3, others=1e-3)) is None
    assert features_used(lambda times, target, span: [0.0] * len(times)) == 1
    assert features_used(newest(4), most=4) is None and features_used(newest(4), most=5) == 4


def test_a_feature_that_counts_at_one_distance_alone_counts():
    def far(times, target, span):
        own = [0.0] * len(times)
        own[-1] = 1.0
        if len(times) > 3 and target - times[-1] > 2:
            own[-4] = 0.5
        return own

    def near(times, target, span):
        own = [0.0] * len(times)
        own[-1] = 1.0
        if len(times) > 2 and target - times[-1] < 2:
            own[-3] = 0.5
        return own

    assert features_used(far) == 4 and features_used(near) == 3


def test_a_forecast_is_asked_after_its_newest_feature_on_one_span():
    asked = []

    def spy(times, target, span):
        asked.append((len(times), times[-1] < target, span))
        return newest(2)(times, target, span)

    assert features_used(spy) == 2
    assert {(count, span) for count, _, span in asked} == {(16, (0.0, 32.0)), (2, (0.0, 32.0))}
    assert all(after for _, after, _ in asked) and len(asked) == 6


def test_weights_that_change_without_the_older_features_need_them_all():
    def counting(times, target, span):
        return [0.0] * (len(times) - 2) + [-1.0, 1.0 + len(times)]

    assert features_used(counting) is None

    def short(times, target, span):
        return newest(2)(times, target, span)[-max(1, len(times) if len(times) > 2 else 1) :]

    assert features_used(short) is None
