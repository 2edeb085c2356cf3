"""Schedules as users give them to `accelerate`: a list of steps in any form, or a function of any argument names."""

import functools
import inspect
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from spectrum.core.errors import SpectrumError, refuse
from spectrum.core.schedule import Schedule, explicit

_TYPES = "a list, tuple, range, array or tensor of the steps that run, or a function (step, steps, runs) -> bool"


def given_schedule(schedule: Any) -> Schedule:
    """The schedule that a user means.

    Args:
        schedule: the steps that run, as any iterable of whole numbers (list, tuple, range, set, array, tensor); or a
            function that is called with the step asked about, the number of steps, and the list of steps that ran
            before it, and returns whether the step runs. A function with fewer arguments gets the first ones. A
            function with an argument `drift` gets the method's drift too, by its name.

    Returns:
        A schedule as `spectrum.core.schedule` describes it.

    Raises:
        SpectrumError: for anything else.

    Example:
        >>> given_schedule(range(0, 10, 5))(5, 10, [0])
        True
        >>> given_schedule(lambda s: s % 3 == 0)(4, 10, [0, 3])
        False
    """
    if callable(schedule):
        return _from_function(schedule)
    return functools.partial(explicit, run_steps=_steps(schedule))


def _steps(schedule: Any) -> list[int]:
    if isinstance(schedule, (Mapping, bytes, str)) or not isinstance(schedule, Iterable):
        refuse(f"schedule={schedule!r} cannot be used: give {_TYPES}")
    listed = schedule.tolist() if hasattr(schedule, "tolist") else list(schedule)  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(schedule, (set, frozenset)):
        listed = sorted(listed)
    try:
        steps = [operator.index(step) for step in listed]
    except TypeError:
        refuse(f"schedule={schedule!r} has something else than whole numbers: give {_TYPES}")
    if any(isinstance(step, bool) for step in listed):
        refuse("schedule has truth values: give the numbers of the steps that run, or a function")
    return steps


def _from_function(function: Callable[..., Any]) -> Schedule:
    parameters = list(inspect.signature(function).parameters.values())
    names = [p.name for p in parameters]
    if names[:4] == ["step", "steps", "runs", "drift"]:
        return _checked(function)
    if "drift" in names:
        return _with_drift(function, [p for p in parameters if p.name != "drift"])
    required = [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    if required:
        refuse(f"the schedule function needs {required[0].name}=: bind it with functools.partial")
    starred = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = [p for p in positional if p.default is p.empty]
    if len(needed) > 3 or not (positional or starred):
        refuse(f"a schedule function takes (step, steps, runs), and this one takes ({', '.join(names)})")
    count = 3 if starred else min(3, len(positional))

    def schedule(step: int, steps: int, runs: Sequence[int], drift: float = 0.0) -> bool:
        return function(*(step, steps, list(runs))[:count])

    own: Any = schedule
    own.__signature__, own.__wrapped__ = inspect.signature(schedule), function
    return _checked(schedule)


def _with_drift(function: Callable[..., Any], others: Sequence[inspect.Parameter]) -> Schedule:
    """A schedule from a function that takes the drift, by its name, beside up to three other arguments."""
    if len(others) > 3 or any(p.kind not in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in others):
        refuse("a schedule function takes (step, steps, runs) and drift, and this one takes other arguments too")
    names = [p.name for p in others]

    def schedule(step: int, steps: int, runs: Sequence[int], drift: float) -> bool:
        return function(**dict(zip(names, (step, steps, list(runs)), strict=False)), drift=drift)

    own: Any = schedule
    own.__signature__, own.__wrapped__ = inspect.signature(schedule), function
    return _checked(schedule)


def _checked(schedule: Callable[..., Any]) -> Schedule:
    """The schedule, with what it returns checked to be a truth value."""

    @functools.wraps(schedule)
    def checked(*args: Any, **kwargs: Any) -> bool:
        try:
            found = schedule(*args, **kwargs)
        except SpectrumError:
            raise
        except Exception as error:
            step = args[0] if args else kwargs.get("step")
            refuse(f"the schedule function failed at step {step}: {type(error).__name__}: {error}")
        if type(found).__name__ not in ("bool", "bool_", "int"):
            refuse(f"a schedule function returns True or False, and this one returned {found!r}")
        return bool(found)

    return checked
