"""Schedules: which steps run the denoiser's blocks.

Every schedule is called as `schedule(step, steps, runs, drift, **parameters)`:

Args:
    step: the step asked about, 0-based.
    steps: number of steps of the whole trajectory.
    runs: the steps that ran before it, ascending.
    drift: how far the method's signal has moved since the last of them. A schedule that gives it no default decides by
        data; the others look at the time alone.

Returns:
    True if the step runs.

Raises:
    SpectrumError: if a parameter is out of range.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from spectrum.core.errors import check_number, refuse

Schedule = Callable[[int, int, Sequence[int], float], bool]


def always(step: int, steps: int, runs: Sequence[int], drift: float = 0.0) -> bool:
    """Run every step.

    Example:
        >>> plan(always, 3)
        [0, 1, 2]
    """
    return True


def growing_window(
    step: int,
    steps: int,
    runs: Sequence[int],
    drift: float = 0.0,
    *,
    warmup: int = 5,
    window: float = 2.0,
    growth: float = 0.75,
) -> bool:
    """Spectrum's schedule (arXiv 2603.01623): a warm-up, then one run in each of ever longer windows.

    With `c` the skips since the last run and `w` the window, a step runs when `(c + 1) mod floor(w) == 0`; after such a
    run `w = round(w + growth, 3)`.

    Args:
        step: see the module.
        steps: see the module.
        runs: see the module.
        drift: not used.
        warmup: how many first steps run.
        window: the first window, in steps.
        growth: by how much the window grows with each run; the paper's alpha.

    Example:
        >>> plan(growing_window, 50)
        [0, 1, 2, 3, 4, 6, 8, 11, 15, 20, 25, 31, 38, 46]
    """
    check_number("schedule.warmup", warmup, low=1, integer=True)
    check_number("schedule.window", window, low=1)
    check_number("schedule.growth", growth, low=0)
    if step < warmup:
        return True
    size = float(window)
    for _ in range(len(runs) - int(warmup)):
        size = round(size + growth, 3)
    return (step - runs[-1]) % int(size) == 0


def fixed_interval(
    step: int,
    steps: int,
    runs: Sequence[int],
    drift: float = 0.0,
    *,
    interval: int = 4,
    warmup: int = 3,
    phase: int | None = None,
) -> bool:
    """Run the first steps, then every `interval`-th.

    TaylorSeer (arXiv 2503.06923) counts from the last warm-up step; FORA (arXiv 2407.01425) counts back from the last
    step of all, which is `phase=-1`.

    Args:
        step: see the module.
        steps: see the module.
        runs: see the module.
        drift: not used.
        interval: the distance between runs.
        warmup: how many first steps run.
        phase: a step from which the interval is counted in both directions; negative ones count from the end. By
            default `warmup - 1`.

    Example:
        >>> import functools
        >>> plan(functools.partial(fixed_interval, interval=6), 50)
        [0, 1, 2, 8, 14, 20, 26, 32, 38, 44]
    """
    check_number("schedule.interval", interval, low=1, integer=True)
    check_number("schedule.warmup", warmup, low=1, integer=True)
    origin = int(warmup) - 1 if phase is None else phase
    check_number("schedule.phase", origin, integer=True)
    return step < warmup or (step - (origin + steps if origin < 0 else origin)) % interval == 0


def accumulated_distance(
    step: int,
    steps: int,
    runs: Sequence[int],
    drift: float,
    *,
    threshold: float,
    warmup: int = 1,
    last: int = 1,
    most: int | None = None,
) -> bool:
    """TeaCache's rule (arXiv 2411.19108): run once the drift since the last run has reached the threshold.

    Args:
        step: see the module.
        steps: see the module.
        runs: see the module.
        drift: the method's drift since the last run.
        threshold: the drift at which a step runs.
        warmup: how many first steps run.
        last: how many last steps run.
        most: the most steps that are skipped in a row; None for no limit.

    Example:
        >>> accumulated_distance(7, 50, [0, 5], drift=0.3, threshold=0.25)
        True
    """
    check_number("schedule.threshold", threshold, low=0)
    check_number("schedule.warmup", warmup, low=1, integer=True)
    check_number("schedule.last", last, low=0, integer=True)
    if most is not None:
        check_number("schedule.most", most, low=0, integer=True)
    if step < warmup or step >= steps - last or drift >= threshold:
        return True
    return most is not None and step - runs[-1] > most


def magnitude(
    step: int,
    steps: int,
    runs: Sequence[int],
    drift: float = 0.0,
    *,
    ratios: Sequence[float],
    threshold: float = 0.24,
    most: int = 5,
    retention: float = 0.1,
) -> bool:
    """MagCache's rule (arXiv 2506.09045): skip while the fitted ratios say that the residual has changed little.

    With `p` the product of the ratios since the last run and `n` the steps since then, the error is the sum of
    `|1 - p|` over them. A step is skipped while the error is at most `threshold` and `n <= most`.

    Args:
        step: see the module.
        steps: see the module.
        runs: see the module.
        drift: not used.
        ratios: one number for each step, the size of its residual over that of the step before; the first is 1. If
            there are not as many as steps, the nearest entry is taken, as the authors do.
        threshold: the largest error at which a step is skipped.
        most: the most steps that are skipped in a row.
        retention: the share of the steps that runs first, 0 to 1.

    Example:
        >>> import functools
        >>> plan(functools.partial(magnitude, ratios=[1.0] * 12, threshold=0.1, most=3), 12)
        [0, 4, 8]
    """
    check_number("schedule.threshold", threshold, low=0)
    check_number("schedule.most", most, low=0, integer=True)
    check_number("schedule.retention", retention, low=0)
    if not ratios:
        refuse("schedule.ratios is empty: fit them with python scripts/calibrate.py method=magcache")
    start = max(1, int(steps * retention + 0.5))
    if step < start:
        return True
    product, error = 1.0, 0.0
    for at in range(max(start, runs[-1] + 1), step + 1):
        product *= ratios[round(at * (len(ratios) - 1) / max(1, steps - 1))]
        error += abs(1 - product)
    return error > threshold or step - max(start - 1, runs[-1]) > most


def explicit(step: int, steps: int, runs: Sequence[int], drift: float = 0.0, *, run_steps: Sequence[int] = ()) -> bool:
    """Run exactly the listed steps.

    Args:
        step: see the module.
        steps: see the module.
        runs: not used.
        drift: not used.
        run_steps: the steps that run: they start with 0, ascend, and end before `steps`.

    Example:
        >>> import functools
        >>> plan(functools.partial(explicit, run_steps=[0, 1, 4]), 6)
        [0, 1, 4]
    """
    ordered = list(run_steps)
    for value in ordered:
        check_number("schedule.run_steps", value, low=0, integer=True)
    if not ordered or ordered[0] != 0:
        refuse("schedule.run_steps must start with step 0: type for example schedule.run_steps=[0,1,2,10,20]")
    if sorted(set(ordered)) != ordered:
        refuse(f"schedule.run_steps must ascend without repeats, got {ordered}")
    if ordered[-1] >= steps:
        refuse(f"schedule.run_steps has step {ordered[-1]}, but the steps of this run are 0 to {steps - 1}")
    return step in ordered


def check_schedule(schedule: Any) -> None:
    """Check that a schedule can be called as `schedule(step, steps, runs, drift)`.

    Raises:
        SpectrumError: if it cannot.
    """
    try:
        inspect.signature(schedule).bind(0, 1, [], 0.0)
        inspect.signature(schedule).parameters["drift"]
    except (TypeError, ValueError, KeyError):
        refuse(
            "a Method's schedule is a function (step, steps, runs, drift) -> bool: give other functions and lists of "
            "steps to accelerate(schedule=...)"
        )


def needs_drift(schedule: Schedule) -> bool:
    """Whether a schedule decides by data: its `drift` argument has no default."""
    return inspect.signature(schedule).parameters["drift"].default is inspect.Parameter.empty


def plan(schedule: Schedule, steps: int) -> list[int]:
    """The run steps of a schedule that looks at the time alone.

    Args:
        schedule: a schedule with its parameters bound.
        steps: number of steps.

    Returns:
        The steps that run, ascending.

    Raises:
        SpectrumError: if the schedule skips step 0, where there is nothing to forecast from.
    """
    check_number("model.steps", steps, low=1, integer=True)
    runs: list[int] = []
    for step in range(steps):
        if schedule(step, steps, runs, 0.0):
            runs.append(step)
        elif not runs:
            refuse("the schedule skips step 0, so there is nothing to forecast from: let it run the first step")
    return runs
