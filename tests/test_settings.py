"""Every number that a forecast, a schedule or a correction takes: its lower limit, its default, and what is refused."""

import functools
import re

import pytest
import torch

from baselines import freqca
from spectrum.core import forecast, schedule
from spectrum.core.errors import SpectrumError
from spectrum.core.method import Method

TIMES, TARGET, SPAN = [0.0, 1.0, 3.0, 4.0, 7.0], 9.0, (0.0, 50.0)
FORECAST, NEWEST = torch.tensor([[[1.0], [5.0], [2.0]]]), torch.tensor([[[2.0], [0.0], [9.0]]])


def forecasts(function):
    return functools.partial(function, TIMES, TARGET, SPAN)


def asks(function, **others):
    """The schedule, asked about step 4 of 10 after it ran at steps 0 to 2."""
    return functools.partial(function, 4, 10, [0, 1, 2], 0.3, **others)


distance = functools.partial(asks, schedule.accumulated_distance)
magnitude = functools.partial(asks, schedule.magnitude, ratios=[1.0] * 10)
WHOLE = [
    *[("method.forecast.order", 0, forecasts(getattr(forecast, n))) for n in ("taylor", "hermite", "lagrange")],
    ("method.forecast.order", 0, forecasts(forecast.resilphase)),
    *[("method.forecast.degree", 0, forecasts(function)) for function in (forecast.chebyshev, forecast.spectrum)],
    ("schedule.warmup", 1, asks(schedule.growing_window)),
    ("schedule.warmup", 1, asks(schedule.fixed_interval)),
    ("schedule.warmup", 1, distance(threshold=0.2)),
    ("schedule.interval", 1, asks(schedule.fixed_interval)),
    ("schedule.last", 0, distance(threshold=0.2)),
    ("schedule.most", 0, distance(threshold=0.2)),
    ("schedule.most", 0, magnitude()),
    ("model.steps", 1, functools.partial(schedule.plan, schedule.always)),
    ("method.front_blocks", 0, functools.partial(Method, "mine", forecast.reuse)),
]
ANY = [
    ("method.forecast.sigma", 0, forecasts(forecast.hermite)),
    *[("method.forecast.ridge", 0, forecasts(function)) for function in (forecast.chebyshev, forecast.spectrum)],
    ("method.forecast.blend", 0, forecasts(forecast.spectrum)),
    ("schedule.window", 1, asks(schedule.growing_window)),
    ("schedule.growth", 0, asks(schedule.growing_window)),
    ("schedule.threshold", 0, distance()),
    ("schedule.threshold", 0, magnitude()),
    ("schedule.retention", 0, magnitude()),
    ("method.correct.cutoff", 0, functools.partial(freqca.low_band, FORECAST, NEWEST, (1, 3))),
]


def given(key, value, call):
    """Call with the value under the last word of its key."""
    return call(**{key.rpartition(".")[2]: value})


def refusal(message):
    return pytest.raises(SpectrumError, match=f"^{re.escape(message)}$")


@pytest.mark.parametrize(("key", "low", "call"), [*WHOLE, *ANY])
def test_the_lowest_value_is_accepted_and_one_below_it_is_refused(key, low, call):
    given(key, low, call)
    for value in (low - 1, low - 10):
        with refusal(f"{key} must be at least {low}, got {value}"):
            given(key, value, call)


@pytest.mark.parametrize(("key", "low", "call"), WHOLE)
def test_a_fraction_is_refused_where_a_whole_number_is_needed(key, low, call):
    for value in (low + 0.5, low - 0.5):
        with refusal(f"{key} must be a whole number, got {value}"):
            given(key, value, call)


@pytest.mark.parametrize(("key", "low", "call"), ANY)
def test_a_fraction_is_accepted_where_it_means_something(key, low, call):
    given(key, low + 0.5, call)


def test_a_phase_may_be_negative_and_not_a_fraction():
    call = asks(schedule.fixed_interval)
    assert call(phase=-2, interval=4) and not call(phase=-1, interval=4)
    with refusal("schedule.phase must be a whole number, got 1.5"):
        call(phase=1.5)


@pytest.mark.parametrize(
    ("steps", "message"),
    [([-1, 0], "must be at least 0, got -1"), ([0, 1.5], "must be a whole number, got 1.5")],
)
def test_a_listed_step_is_a_whole_number_from_zero(steps, message):
    with refusal(f"schedule.run_steps {message}"):
        asks(schedule.explicit)(run_steps=steps)


@pytest.mark.parametrize(
    ("function", "name", "documented", "other"),
    [
        (forecast.taylor, "order", 1, 2),
        (forecast.hermite, "order", 1, 2),
        (forecast.hermite, "sigma", 0.5, 0.75),
        (forecast.chebyshev, "degree", 4, 3),
        (forecast.chebyshev, "ridge", 0.1, 0.2),
        (forecast.spectrum, "blend", 1.0, 0.5),
        (forecast.lagrange, "order", 2, 3),
        (forecast.resilphase, "order", 1, 2),
        (forecast.resilphase, "steepness", 0.55, 1.1),
    ],
)
def test_a_forecast_called_without_a_parameter_uses_the_documented_one(function, name, documented, other):
    plain = forecasts(function)().tolist()
    assert plain == forecasts(function)(**{name: documented}).tolist()
    assert plain != forecasts(function)(**{name: other}).tolist()


FALLING = functools.partial(schedule.magnitude, ratios=[1.0, *[0.9] * 29])


@pytest.mark.parametrize(
    ("function", "name", "documented", "other"),
    [
        (schedule.growing_window, "warmup", 5, 6),
        (schedule.growing_window, "window", 2.0, 3.0),
        (schedule.growing_window, "growth", 0.75, 1.0),
        (schedule.fixed_interval, "interval", 4, 5),
        (schedule.fixed_interval, "warmup", 3, 4),
        (functools.partial(schedule.accumulated_distance, threshold=0.5), "warmup", 1, 2),
        (functools.partial(schedule.accumulated_distance, threshold=0.5), "last", 1, 2),
        (functools.partial(schedule.accumulated_distance, threshold=0.5), "most", None, 3),
        (FALLING, "threshold", 0.24, 0.4),
        (functools.partial(schedule.magnitude, ratios=[1.0]), "most", 5, 6),
        (FALLING, "retention", 0.1, 0.2),
    ],
)
def test_a_schedule_called_without_a_parameter_uses_the_documented_one(function, name, documented, other):
    plain = schedule.plan(function, 30)
    assert plain == schedule.plan(functools.partial(function, **{name: documented}), 30)
    assert plain != schedule.plan(functools.partial(function, **{name: other}), 30)


def test_the_low_band_called_without_a_cutoff_is_a_tenth_of_the_range():
    """Of 21 frequencies in a row those up to the 2nd are low, and the 3rd is not."""
    forecast, newest = torch.zeros(1, 21, 1), torch.arange(21.0).square().reshape(1, 21, 1)
    plain = freqca.low_band(forecast, newest, (1, 21))
    torch.testing.assert_close(plain, freqca.low_band(forecast, newest, (1, 21), cutoff=0.1), rtol=0, atol=0)
    for other in (0.09, 0.15):
        assert not torch.allclose(plain, freqca.low_band(forecast, newest, (1, 21), cutoff=other))
