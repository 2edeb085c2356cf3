"""The state of one sampling run: its CFG branches, each with its own stored features, run steps and drift."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spectrum.core.errors import refuse
from spectrum.core.history import History, to_keep
from spectrum.core.known import Known
from spectrum.core.method import DriftContext, SkippedStep
from spectrum.hooks.finite import FiniteCheck
from spectrum.hooks.scheduler import Mark


@dataclass(frozen=True)
class Observation:
    """What an observer is told of a step at which the blocks ran.

    Attributes:
        branch: the CFG branch's name.
        step: the sampler's step.
        inputs: the denoiser's forward arguments by name.
        entry: the input of the block stacks.
        feature: their output, which enters the exit module; in most denoisers shaped as `entry`.
        velocity: the denoiser's output.
    """

    branch: str
    step: int
    inputs: dict[str, Any]
    entry: Tensor
    feature: Tensor
    velocity: Tensor


@dataclass
class Branch:
    """One CFG branch in one trajectory.

    Attributes:
        name: the name that the pipeline gives it, or `branch 0`, `branch 1`.
        origin: the step at which it began.
        max_features: features held in each slot, None for all.
        key: the name that the pipeline gives it, None if it gives none.
        condition: what it is conditioned on.
        kinds: `DenoiserCall.kinds` of its calls: shapes, settings, what is left out, and layers that are changed.
        grid: the layout of the image tokens, where the method needs it.
        histories: the stored features, by the slot that the site names: `exit`, `output`, or a module.
        runs: the steps at which the blocks ran.
        skipped: the steps that were forecast, with their weights.
        last: the newest step.
        drift: what the method's drift has come to since the last run step.
        signal: the method's signal at the newest step.
        level: the scales of picture and noise there.
        at_runs: (signal, velocity) at the two newest run steps, for data-dependent methods.
        errors: what `probe` measured at skipped steps.
        gram: the inner products of the stored features that `inner_products` has worked out.
        rows: the rows of the batch that it is about; None for all of them.
        samples: a branch for each sample, where a method decides for each by itself; empty where all samples do the
            same, None until that is known.
        keeping: makes a history that keeps other things than the features; None for these.
    """

    name: str
    origin: int
    max_features: int | None
    key: str | None = None
    condition: tuple[Any, ...] = ()
    kinds: tuple[Any, ...] = ()
    grid: tuple[int, ...] | None = None
    histories: dict[str, History] = field(default_factory=dict)
    runs: list[int] = field(default_factory=list)
    skipped: list[SkippedStep] = field(default_factory=list)
    last: int = -1
    drift: float = 0.0
    signal: Tensor | None = None
    level: tuple[float, float] = (0.0, 1.0)
    at_runs: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    gram: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    rows: slice | None = None
    samples: list["Branch"] | None = None
    keeping: Callable[[], History] | None = None

    @property
    def parts(self) -> list["Branch"]:
        """The branches that decide: one for each sample, or this one for all."""
        return self.samples or [self]

    @property
    def ran(self) -> bool:
        """Whether the blocks ran at the newest step."""
        return bool(self.runs) and self.runs[-1] == self.last

    @property
    def times(self) -> list[float]:
        """The clock's readings at the stored features, oldest first."""
        return next(iter(self.histories.values())).times

    @property
    def nbytes(self) -> int:
        """Bytes that the stored features take."""
        return sum(history.nbytes for part in self.parts for history in part.histories.values())

    def store(self, time: float, values: dict[str, Tensor]) -> None:
        """Store what a site gives at a run step, by slot."""
        for slot, value in values.items():
            if slot not in self.histories:
                self.histories[slot] = self.keeping() if self.keeping else History(self.max_features)
            self.histories[slot].add(time, value)

    def inner_products(self) -> NDArray[np.float64]:
        """(features, features) inner products of the stored features, summed over the slots; all features are held."""
        count, known = len(self.times), len(self.gram)
        grown = np.zeros((count, count))
        grown[:known, :known] = self.gram
        for row in range(known, count):
            found = np.sum([history.products(row) for history in self.histories.values()], axis=0)
            grown[row, : row + 1] = grown[: row + 1, row] = found
        self.gram = grown
        return grown

    def drift_context(self, signal: Tensor, level: tuple[float, float]) -> DriftContext | None:
        """Take in this step's signal, and return what the method decides by; None at the branch's first step."""
        before, self.signal = self.signal, signal
        last, self.level = self.level, level
        return None if before is None else DriftContext(signal, before, tuple(self.at_runs), (level, last), self.grid)

    def remember_run(self, velocity: Tensor) -> None:
        """Remember the signal and the velocity of a run step; those of the two newest are held."""
        if self.signal is None:
            return
        seen = self.signal, velocity
        if self.rows is not None:
            seen = to_keep(self.signal), to_keep(velocity)
        self.at_runs = [*self.at_runs[-1:], seen]


@dataclass
class Trajectory:
    """One sampling run.

    Attributes:
        timesteps: the scheduler's timesteps, by which a new run is told from this one.
        times: the clock's reading at each step.
        span: the clock's range.
        levels: the scales of picture and noise at each step, for data-dependent methods.
        branches: its CFG branches, in the order they began.
        time: the newest step and the timestep that the denoiser was given there.
        decided: by step and sample what the first branch decided, for methods whose branches share the decision.
        finite: the check that outputs are finite.
        mark: where it stood at its newest call.
        closed: whether the pipeline has begun another loop since.
        suspect: whether it seems to go on from another one, whose scheduler's state was copied.
        overwritten: whether what the denoiser computes is overwritten at its next call, as in CUDA graphs.
        known: the weights that are worked out before the run.
    """

    timesteps: Any
    times: list[float]
    span: tuple[float, float]
    levels: list[tuple[float, float]]
    branches: list[Branch] = field(default_factory=list)
    time: tuple[int, Any] = (-1, None)
    decided: dict[tuple[int, int], bool] = field(default_factory=dict)
    finite: FiniteCheck = field(default_factory=FiniteCheck)
    mark: Mark | None = None
    closed: bool = False
    suspect: bool = False
    overwritten: bool = False
    known: Known = field(default_factory=dict)

    @property
    def newest(self) -> int:
        """The newest step of any branch."""
        return max(branch.last for branch in self.branches)

    def goes_on_in(self, scheduler: Any, step: int) -> bool:
        """Whether a trajectory that begins seems to go on from this one, with a copy of the scheduler's state.

        Args:
            scheduler: the scheduler, whose timesteps are not those that this trajectory began with.
            step: the step at which the other trajectory begins.

        Raises:
            SpectrumError: if this trajectory had one call and seemed so too: then every call begins one.
        """
        calls = sum(len(one.runs) + len(one.skipped) for branch in self.branches for one in branch.parts[:1])
        found = not self.closed and step > 0 and calls == 1 and self.newest in (step - 1, step)
        found = found and torch.equal(torch.as_tensor(self.timesteps), torch.as_tensor(scheduler.timesteps))
        if found and self.suspect:
            refuse(
                f"the pipeline gives its {type(scheduler).__name__} another state at every call, as Panorama does for "
                "its views, so the calls of a step cannot be told apart: call restore(pipe)"
            )
        return found

    def report(self) -> dict[str, Any]:
        """What was done, by CFG branch; see `spectrum.api.Accelerated.report`."""
        return {b.name: _report(b) for b in self.branches}


class Loops:
    """The reports of the loops of a pipeline's call: FramePack has one for each section of its video, most have one.

    Where nobody tells when a call begins, only the latest loop is kept.
    """

    def __init__(self) -> None:
        self._over: list[dict[str, Any]] = []
        self._told = self._ends = False

    def begin_call(self, ends: bool) -> None:
        """The pipeline is called anew: the loops from now on are of one call.

        Args:
            ends: whether its end is told; else diffusers resets the hooks there.
        """
        self._over, self._told, self._ends = [], True, ends

    def end_call(self, by_reset: bool = False) -> None:
        """The pipeline's call is over: a loop that nobody tells of is of another pipeline with the same denoiser.

        Args:
            by_reset: whether diffusers has reset the hooks, as it also does before each chunk of Cosmos 3's video.
        """
        self._told = self._told and by_reset and self._ends

    def add(self, report: dict[str, Any]) -> None:
        """A loop is over; `report` is its `Trajectory.report`."""
        self._over = [*self._over, report] if self._told else [report]

    def reports(self, running: Trajectory | None) -> list[dict[str, Any]]:
        """`Trajectory.report` of each loop, oldest first, with that of the one which is under way."""
        if running is None:
            return self._over
        return [*self._over, running.report()] if self._told else [running.report()]


def merged(reports: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The report of one loop from those of its denoisers.

    Args:
        reports: `Trajectory.report` by the pipeline's name for the denoiser.

    Returns:
        The report. Denoisers that take turns share a branch, see `joined`; those that are called at the same steps have
        branches of their own, which begin with the denoiser's name.
    """
    found: dict[str, Any] = {}
    for denoiser, report in reports.items():
        for name, own in report.items():
            if name in found and together(found[name], own):
                found[f"{denoiser}: {name}"] = own
            else:
                found[name] = joined(found[name], own) if name in found else own
    return found


def together(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Whether two branches' reports are of the same steps, so that they do not take turns."""
    sides = [{*own["run_steps"], *(entry["step"] for entry in own["skipped"])} for own in (first, second)]
    return not sides[0].isdisjoint(sides[1])


def joined(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """One branch's report from those of two denoisers that took turns: their steps follow one another.

    Each frees what it stored when the other begins, so the bytes are those of the one that held most.
    """
    found = {key: first[key] + second[key] for key in ("run_steps", "skipped", "errors")}
    count = max(len(first["samples"]), len(second["samples"]))
    sides = [own["samples"] * count if len(own["samples"]) == 1 else own["samples"] for own in (first, second)]
    samples = [{key: a[key] + b[key] for key in a} for a, b in zip(*sides, strict=True)]
    return {**found, "cache_bytes": max(first["cache_bytes"], second["cache_bytes"]), "samples": samples}


def _report(branch: Branch) -> dict[str, Any]:
    samples = [
        {
            "run_steps": list(own.runs),
            "skipped": [{"step": s.step, "sum": s.total, "l1": s.l1} for s in own.skipped],
            "errors": own.errors,
        }
        for own in branch.parts
    ]
    runs = sorted({step for own in samples for step in own["run_steps"]})
    skipped = [entry for entry in samples[0]["skipped"] if entry["step"] not in runs]
    errors = [entry for own in samples for entry in own["errors"]]
    whole = {"run_steps": runs, "skipped": skipped, "errors": errors, "cache_bytes": branch.nbytes}
    return {**whole, "samples": samples}
