"""Schedules: which steps run the denoiser's blocks.

Every function has the form `(step, steps, runs, drift, **parameters) -> bool`: the step asked about (0-based), the
number of steps of the whole trajectory, the steps that ran before it (ascending), and how far the model's input has
drifted since the last of them (0 for schedules of time alone). `plan` unrolls one that needs no drift.
"""

import inspect
from collections.abc import Callable, Sequence

from spectrum.errors import check_number, refuse

Schedule = Callable[[int, int, Sequence[int], float], bool]


def always(step: int, steps: int, runs: Sequence[int], drift: float = 0.0) -> bool:
    """Run every step."""
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
    """Spectrum's schedule: every step of the warm-up, then one step in each window that is `growth` longer each time.

    With `c` the skips since the last run and `w` the window (rounded to three decimals after each growth), a step runs
    when `(c + 1) mod floor(w) == 0`.
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
    """The first `warmup` steps, then every `interval`-th counted from `phase`; a negative phase counts from the end.

    `phase` is `warmup - 1` unless given: TaylorSeer's rule. FORA counts its steps down, which is `phase=-1`.
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
    """TeaCache's rule: run once the drift since the last run has reached `threshold`.

    The first `warmup` and the `last` steps run, and no more than `most` steps in a row are skipped.
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
    """MagCache's rule (arXiv 2506.09045), of time alone once `ratios` are fitted (scripts/calibrate.py).

    With `p` the product of the ratios since the last run and `n` the steps since then, the error is the sum of
    `|1 - p|` over them; a step is skipped while the error is at most `threshold` and `n <= most`. The first share
    `retention` of the steps runs. `ratios` has one entry a step, the first of them 1; another length is mapped to the
    nearest entry, as the authors do.
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
    """Run the listed steps. The list starts with 0, ascends, and ends before `steps`."""
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


def needs_drift(schedule: Schedule) -> bool:
    """Whether a schedule decides by what the model sees: its `drift` has no default."""
    return inspect.signature(schedule).parameters["drift"].default is inspect.Parameter.empty


def plan(schedule: Schedule, steps: int) -> list[int]:
    """The run steps of a schedule of time alone over `steps` steps. Refuses one that has nothing to forecast from."""
    check_number("model.steps", steps, low=1, integer=True)
    runs: list[int] = []
    for step in range(steps):
        if schedule(step, steps, runs, 0.0):
            runs.append(step)
        elif not runs:
            refuse("the schedule skips step 0, so there is nothing to forecast from: let it run the first step")
    return runs
