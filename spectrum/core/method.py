"""A caching method as data: a forecast and a schedule, and at which place, in which space and on which clock they work.

Needs no torch to be built or planned.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from spectrum.core.choices import Keep, Signal, Site, Space
from spectrum.core.clock import Clock
from spectrum.core.errors import check_number, refuse
from spectrum.core.forecast import Forecast
from spectrum.core.memory import features_used
from spectrum.core.schedule import Schedule, always, check_schedule, needs_drift, plan
from spectrum.core.spans import tensors_needed
from spectrum.core.weights import checked_weights

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class DriftContext:
    """What a data-dependent method is shown at one step of one CFG branch.

    Attributes:
        signal: the tensor that the method looks at (see `Signal`) at this step, batch first.
        previous: the same at the step before, in the same shape.
        at_runs: (signal, velocity) at the newest run steps, oldest first, two at most. The velocity is the denoiser's
            output.
        levels: (scale of the picture, scale of the noise) in the latents, at this step and at the step before.
        grid: the layout of the image tokens, (height, width) or (frames, height, width); None where it is unknown.
    """

    signal: Tensor
    previous: Tensor
    at_runs: tuple[tuple[Tensor, Tensor], ...]
    levels: tuple[tuple[float, float], tuple[float, float]]
    grid: tuple[int, ...] | None = None


Drift = Callable[[DriftContext], float]
Correction = Callable[["Tensor", "Tensor", "tuple[int, ...] | None"], "Tensor"]


def refuse_without_drift(name: str) -> NoReturn:
    """Refuse a schedule that decides by drift for a method that measures none."""
    refuse(
        f"{name} measures no drift, so it cannot use a schedule that decides by drift: type another, for example "
        "schedule=growing_window"
    )


@dataclass(frozen=True)
class Method:
    """One caching method, ready to be put on a denoiser.

    Attributes:
        name: what tables call it.
        forecast: gives the weights of a skipped step, see `spectrum.core.forecast`; None for a method that never skips.
        schedule: says which steps run, see `spectrum.core.schedule`.
        space: what is stored.
        site: where it is stored.
        clock: the time variable of the forecast.
        drift: for schedules that need it, how far the signal moved since the step before.
        signal: the tensor that `drift` is computed from.
        accumulate: whether drifts are summed since the last run step; otherwise only the newest one counts.
        shared_decision: whether every CFG branch uses what the first branch decided at the same step.
        front_blocks: how many blocks of the first stack run at every step; above 0 only at the exit site.
        correct: changes a forecast before it is used: `(forecast, newest stored value, token grid) -> forecast`.
        batch_decision: whether all samples of a batch do what a data-dependent method decides for them together;
            otherwise it decides for each.
        fitted_steps: the number of steps that its fitted values were made for, the only one at which it may run; None
            if it has none.
        fitted_sigmas: the sigma of each step that a plan was made for, the only grid on which it may run; None for
            methods that have no plan, and for a plan that is to run on any grid.
        memory: how many of the newest features the forecast uses, where it is known; None to find out.
        by_branch: whether the forecast has weights of its own for each CFG branch, which it is told as `branch`.
        keep: what is kept of the features.

    Raises:
        SpectrumError: if the fields contradict one another, for example a schedule that needs drift without a `drift`.

    Example:
        >>> from spectrum.core.forecast import reuse
        >>> from spectrum.core.schedule import fixed_interval
        >>> plan_method(Method("mine", reuse, fixed_interval), steps=12).runs
        [0, 1, 2, 6, 10]
    """

    name: str
    forecast: Forecast | None
    schedule: Schedule = always
    space: Space = Space.feature
    site: Site = Site.exit
    clock: Clock = Clock.step
    drift: Drift | None = None
    signal: Signal = Signal.teacache
    accumulate: bool = True
    shared_decision: bool = False
    front_blocks: int = 0
    correct: Correction | None = None
    fitted_steps: int | None = None
    fitted_sigmas: tuple[float, ...] | None = None
    memory: int | None = None
    by_branch: bool = False
    batch_decision: bool = False
    keep: Keep = Keep.features

    def __post_init__(self) -> None:
        kinds = {"space": Space, "site": Site, "clock": Clock, "signal": Signal, "keep": Keep}
        for field, kind in kinds.items():
            value = getattr(self, field)
            if value not in list(kind):
                refuse(f"method.{field}={value} is unknown: type one of {', '.join(kind)}")
            object.__setattr__(self, field, kind(value))
        check_schedule(self.schedule)
        check_number("method.front_blocks", self.front_blocks, low=0, integer=True)
        if self.signal is Signal.front_residual and not self.front_blocks:
            refuse(f"{self.name} looks at the residual of the front blocks, so some must run: method.front_blocks=1")
        if needs_drift(self.schedule) and self.drift is None:
            refuse_without_drift(self.name)
        if self.keep is not Keep.features and (self.correct is not None or self.weights_by_data):
            refuse(f"{self.name} looks at the features themselves, so they are kept: type method.keep=features")
        if self.keep is not Keep.features and self.by_sample:
            refuse(f"method.keep={self.keep} keeps a batch together: type method.batch_decision=true with {self.name}")
        if self.keep is Keep.sums and not (self.time_only and self.forecast is not None and not self.by_branch):
            refuse(
                f"method.keep=sums needs weights that are known before the run, the same in every CFG branch, and "
                f"{self.name} has none: type method.keep=features"
            )

    @cached_property
    def max_features(self) -> int | None:
        """How many features each branch has to hold at most; None if every run step's."""
        if self.memory is not None:
            return self.memory
        try:
            if self.whole_clock or self.weights_by_data:
                return None
            return 0 if self.forecast is None else features_used(self.forecast)
        except Exception:  # what is wrong with a user's forecast is said where its weights are used
            return None

    @cached_property
    def whole_clock(self) -> bool:
        """Whether the forecast is told the clock's reading at every step: it has a parameter `readings`."""
        return self._is_told("readings")

    @cached_property
    def weights_by_data(self) -> bool:
        """Whether the forecast's weights follow from the features themselves: it has a parameter `gram`."""
        return self._is_told("gram")

    def _is_told(self, parameter: str) -> bool:
        try:
            return self.forecast is not None and parameter in inspect.signature(self.forecast).parameters
        except (TypeError, ValueError):  # a callable that does not say
            return False

    @cached_property
    def time_only(self) -> bool:
        """Whether the run steps are known before sampling, because the schedule looks at no data."""
        return not needs_drift(self.schedule)

    @cached_property
    def by_sample(self) -> bool:
        """Whether each sample of a batch has its own run steps, or its own weights."""
        return (not self.time_only or self.weights_by_data) and not self.batch_decision


@dataclass(frozen=True)
class SkippedStep:
    """A skipped step and the weights of its forecast, oldest run step first."""

    step: int
    weights: list[float]

    @property
    def total(self) -> float:
        """`sum w`."""
        return float(np.sum(self.weights))

    @property
    def l1(self) -> float:
        """`|w|_1`."""
        return float(np.abs(self.weights).sum())


@dataclass(frozen=True)
class Plan:
    """What a method will do over a whole trajectory.

    Attributes:
        steps: number of denoising steps.
        runs: the steps at which the blocks run; None where only the data will tell.
        skipped: the other steps with their weights; empty where only the data will tell either.
        features_held: tensors of a feature's size that are stored at once per CFG branch, at most.
    """

    steps: int
    runs: list[int] | None
    skipped: list[SkippedStep]
    features_held: int

    @property
    def nfe(self) -> int | None:
        """Number of steps at which the blocks run; None where only the data will tell."""
        return None if self.runs is None else len(self.runs)


def plan_method(
    method: Method,
    steps: int,
    times: Sequence[float] | None = None,
    span: tuple[float, float] | None = None,
    starts: Sequence[int] = (0,),
) -> Plan:
    """Work out the run steps and the weights of every skipped step without a model.

    Args:
        method: the method to plan.
        steps: number of denoising steps.
        times: the clock's reading at each step, as `spectrum.hooks.scheduler.readings` gives them; by default the step
            clock's.
        span: the clock's range; by default `(0, steps)`.
        starts: the steps at which a denoiser takes over and begins its own history. Wan 2.2 has two.

    Returns:
        The plan.

    Raises:
        SpectrumError: for every setting that the run itself would refuse.

    Example:
        >>> from spectrum.core.forecast import newton
        >>> from spectrum.core.schedule import growing_window
        >>> found = plan_method(Method("mine", newton, growing_window), steps=50)
        >>> found.nfe, found.skipped[0].step, found.skipped[0].weights
        (14, 5, [0.0, 0.0, 0.0, -1.0, 2.0])
    """
    if not method.time_only:
        method.schedule(0, steps, [], 0.0)
        return Plan(steps, None, [], method.max_features or steps)
    times = list(range(steps)) if times is None else times
    span = (0.0, float(steps)) if span is None else span
    limit = method.max_features
    runs, skipped, held = [], [], 0
    for start, end in pairwise([*starts, steps]):
        own = [start + s for s in plan(method.schedule, steps - start) if start + s < end]
        for step in sorted(set(range(start, end)) - set(own)):
            if method.forecast is None:
                refuse(f"method={method.name} cannot skip a step: leave its schedule at schedule=always")
            past = [times[s] for s in own if s < step]
            # asked with unrelated features, whose weights nobody uses, so that bad settings are refused before the run
            gram = np.eye(len(past)) if method.weights_by_data else None  # all features are held then
            older = 0 if limit is None else max(0, len(past) - limit)
            found = checked_weights(method, past[older:], times[step], span, readings=times, gram=gram)
            if gram is None:
                skipped.append(SkippedStep(step, [0.0] * older + found))
        runs += own
        kept = [s.weights for s in skipped if s.step >= start] if method.keep is Keep.sums else None
        most = len(own) if limit is None else min(limit, len(own))
        held = max(held, most if kept is None else tensors_needed(len(own), kept))
    return Plan(steps, runs, skipped, held)
