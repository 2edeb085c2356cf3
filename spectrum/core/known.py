"""The weights of a run that are worked out before it begins."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from spectrum.core.method import Method, Plan, plan_method

Known = dict[int, tuple[list[float], list[float]]]
"""By skipped step the clock's readings at the features that are stored there, oldest first, and their weights."""


def known_weights(method: Method, plan: Plan, times: Sequence[float]) -> Known:
    """The weights that a plan has worked out already, for a run that stores features at the steps of the plan.

    Args:
        method: the planned method.
        plan: its plan.
        times: the clock's reading at each step.

    Returns:
        Empty where the weights differ between branches or follow from data.

    Example:
        >>> from spectrum.core.forecast import newton
        >>> from spectrum.core.schedule import fixed_interval
        >>> mine, times = Method("mine", newton, fixed_interval), [float(step) for step in range(12)]
        >>> known_weights(mine, plan_method(mine, steps=12), times)[7]
        ([2.0, 6.0], [-0.25, 1.25])
    """
    if method.by_branch or plan.runs is None:
        return {}
    known: Known = {}
    for skipped in plan.skipped:
        stored = [float(times[step]) for step in plan.runs if step < skipped.step]
        older = 0 if method.max_features is None else max(0, len(stored) - method.max_features)
        known[skipped.step] = stored[older:], skipped.weights[older:]
    return known


def is_plain(function: Callable[..., Any]) -> bool:
    """Whether a function is known to return the same whenever it is asked: it is of this project, or a partial of one.

    Example:
        >>> is_plain(known_weights), is_plain(functools.partial(known_weights)), is_plain([].append)
        (True, True, False)
    """
    while isinstance(function, functools.partial):
        function = function.func
    own = str(getattr(function, "__module__", "")).partition(".")[0] in ("spectrum", "baselines")
    return own and inspect.isfunction(function) and function.__closure__ is None


class KnownWeights:
    """The weights that a method is known to use, run after run.

    Args:
        method: the method. Schedules and forecasts of others are asked anew at each step.
    """

    def __init__(self, method: Method) -> None:
        self._method = method
        self._plain = all(is_plain(own) for own in (method.schedule, method.forecast) if own is not None)
        self._latest: tuple[list[float], tuple[float, float], Known] | None = None

    def on(self, times: list[float], span: tuple[float, float]) -> Known:
        """The weights on a clock. A run on the same clock as the one before is not planned again.

        Args:
            times: the clock's reading at each step.
            span: its range.

        Raises:
            SpectrumError: for every setting that the run itself would refuse.
        """
        if not self._plain:
            plan_method(self._method, len(times), times, span)
            return {}
        if self._latest is None or self._latest[:2] != (times, span):
            plan = plan_method(self._method, len(times), times, span)
            self._latest = times, span, known_weights(self._method, plan, times)
        return self._latest[2]
