"""A caching method as data: forecast x schedule, and where, in which space and on which clock they work."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

import numpy as np
from torch import Tensor

from spectrum.clock import Clock
from spectrum.errors import SpectrumError, check_number, refuse
from spectrum.forecast import Forecast, reach
from spectrum.schedule import Schedule, always, needs_drift, plan


@dataclass(frozen=True)
class Seen:
    """What a method that decides by data knows at one step of one CFG branch.

    Attributes:
        signal: what it watches (see `Watch`), at this step; previous: at the step before. Same shape, batch first.
        runs: (signal, velocity) at the newest run steps, oldest first, two at most; velocity is the denoiser's output.
        levels: (scale of the picture, scale of the noise) in the latents at this step and at the step before.
        grid: the tokens' layout, (height, width) or (frames, height, width); None where it cannot be told.
    """

    signal: Tensor
    previous: Tensor
    runs: tuple[tuple[Tensor, Tensor], ...]
    levels: tuple[tuple[float, float], tuple[float, float]]
    grid: tuple[int, ...] | None = None


Drift = Callable[[Seen], float]
Mend = Callable[[Tensor, Tensor, tuple[int, ...] | None], Tensor]


class Watch(StrEnum):
    """What a method that decides by data looks at.

    TeaCache's signal, which in some families is an embedding of the timestep, and in the others the modulated input of
    the first block; that input in any family; the residual of the front blocks, which then always run; or the latents
    that the denoiser is given.
    """

    signal = "signal"
    modulated = "modulated"
    front = "front"
    latents = "latents"


class Space(StrEnum):
    """What is stored: what the site gives, or that minus what went in: the blocks' input, or the latents."""

    feature = "feature"
    residual = "residual"


class Site(StrEnum):
    """Where it is stored: at the exit of the block stacks, at the denoiser's output, or at every attention and MLP."""

    exit = "exit"
    output = "output"
    modules = "modules"


@dataclass(frozen=True)
class Method:
    """One caching method, ready to be hooked on a denoiser.

    Attributes:
        name: what tables call it.
        forecast: weights of a skipped step, see `spectrum.forecast`; None for a method that never skips.
        schedule: which steps run, see `spectrum.schedule`.
        drift: for schedules that need it, how far the signal moved, `Seen -> float`.
        watch: what the signal is.
        accumulate: drifts are summed up since the last run step; otherwise the newest stands alone.
        follow: every CFG branch does what the first one decided at the same step.
        front: blocks of the first stack that always run (exit site alone).
        mend: what is done to a forecast before it is used: `(forecast, newest stored value, grid)
            -> forecast`.
    """

    name: str
    forecast: Forecast | None
    schedule: Schedule = always
    space: Space = Space.feature
    site: Site = Site.exit
    clock: Clock = Clock.step
    drift: Drift | None = None
    watch: Watch = Watch.signal
    accumulate: bool = True
    follow: bool = False
    front: int = 0
    mend: Mend | None = None

    def __post_init__(self) -> None:
        check_number("method.front", self.front, low=0, integer=True)
        if self.watch is Watch.front and not self.front:
            refuse(f"{self.name} watches the front blocks, so some have to run: type method.front=1")
        if needs_drift(self.schedule) and self.drift is None:
            refuse(
                f"{self.name} measures no drift, so it cannot use a schedule that decides by drift: type another, for "
                "example schedule=growing_window"
            )

    @property
    def keep(self) -> int | None:
        """How many features each branch has to hold at most; None if every run step's."""
        try:
            return 0 if self.forecast is None else reach(self.forecast)
        except SpectrumError:
            return None

    @property
    def foreseeable(self) -> bool:
        """Whether the run steps are known before sampling."""
        return not needs_drift(self.schedule)


@dataclass(frozen=True)
class Step:
    """A skipped step of a plan: its weights, oldest run step first."""

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
    """What a method will do over a whole trajectory; `runs` is None when only the data will tell."""

    steps: int
    runs: list[int] | None
    skipped: list[Step]
    kept: int
    """Features stored at once per branch, at most."""

    @property
    def nfe(self) -> int | None:
        """Number of steps at which the blocks run."""
        return None if self.runs is None else len(self.runs)


def plan_method(
    method: Method,
    steps: int,
    times: Sequence[float] | None = None,
    span: tuple[float, float] | None = None,
    starts: Sequence[int] = (0,),
) -> Plan:
    """Unroll `method` over `steps` steps without a model.

    `times` and `span` are the clock's values, as `spectrum.clock.readings` gives them; the step clock's by default.
    `starts` are the steps at which a denoiser takes over and begins a history, see `spectrum.clock.starts`.
    Raises `SpectrumError` for every setting that the run itself would refuse.
    """
    if not method.foreseeable:
        method.schedule(0, steps, [], 0.0)
        return Plan(steps, None, [], method.keep or steps)
    times = list(range(steps)) if times is None else times
    span = (0.0, float(steps)) if span is None else span
    runs, skipped, kept = [], [], 0
    for start, end in pairwise([*starts, steps]):
        own = [start + s for s in plan(method.schedule, steps - start) if start + s < end]
        for step in sorted(set(range(start, end)) - set(own)):
            if method.forecast is None:
                refuse(f"method={method.name} cannot skip a step: leave its schedule at schedule=always")
            past = [times[s] for s in own if s < step]
            skipped.append(Step(step, method.forecast(past, times[step], span).tolist()))
        runs += own
        kept = max(kept, len(own) if method.keep is None else min(method.keep, len(own)))
    return Plan(steps, runs, skipped, kept)
