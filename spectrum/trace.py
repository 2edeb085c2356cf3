"""One full run kept whole, so that any forecaster and schedule can be scored on it in seconds, without sampling.

What a replay cannot see is feedback: in a closed loop a forecast moves the sample, and the next features with it.
"""

import functools
import io
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spectrum import clock
from spectrum.branch import Observation
from spectrum.clock import Clock
from spectrum.context import empty_stacks, in_place_of
from spectrum.denoisers import denoiser_of
from spectrum.errors import refuse
from spectrum.forecast import Forecast
from spectrum.generate import Sampling, draw
from spectrum.history import History
from spectrum.hook import relative_error
from spectrum.library import Accelerated
from spectrum.method import Method, Seen, Site, Space
from spectrum.prompts import Sample
from spectrum.schedule import always
from spectrum.signals import Watcher, watcher
from spectrum.store import write_bytes


@dataclass(frozen=True)
class Trace:
    """Every step of one full run of a batch.

    Attributes:
        about: what was sampled: model identity, prompts, seeds, steps.
        clocks: by clock, its readings at the steps and its span.
        branches: by CFG branch, one `Observation` a step.
    """

    about: dict[str, Any]
    clocks: dict[str, tuple[list[float], tuple[float, float]]]
    branches: dict[str, list[Observation]]

    @property
    def steps(self) -> int:
        """Number of denoising steps."""
        return len(next(iter(self.clocks.values()))[0])

    def save(self, path: Path) -> None:
        """Write the trace whole, with tensors that steps share stored once."""
        buffer = io.BytesIO()
        branches = {name: [vars(seen) for seen in calls] for name, calls in self.branches.items()}
        torch.save({"about": self.about, "clocks": self.clocks, "branches": branches}, buffer)
        write_bytes(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> "Trace":
        """Read a trace. Refuses a file that is missing or is none."""
        try:
            raw = torch.load(path, weights_only=True)
            branches = {name: [Observation(**call) for call in calls] for name, calls in raw["branches"].items()}
            return cls(raw["about"], raw["clocks"], branches)
        except FileNotFoundError:
            return refuse(f"there is no trace {path}: make it with python scripts/trace.py trace={path}")
        except Exception as error:
            return refuse(
                f"{path} is no whole trace ({type(error).__name__}): delete it and run scripts/trace.py again"
            )


@dataclass(frozen=True)
class Score:
    """A forecast at one skipped step of one branch, against what the blocks gave there.

    Attributes:
        distance: steps since the last run.
        feature, velocity: relative L2 errors of the feature and of the denoiser's output, over the whole batch.
        total, l1: `sum w` and `|w|_1`.
    """

    branch: str
    step: int
    distance: int
    feature: float
    velocity: float
    total: float
    l1: float


def record(pipe: Any, batch: list[Sample], sampling: Sampling, about: dict[str, Any]) -> Trace:
    """Sample a batch in full and keep every step's inputs, features and velocities, on the CPU."""
    last: dict[tuple[str, str], tuple[Any, Any]] = {}
    branches: dict[str, list[Observation]] = {}

    def keep(branch: str, name: str, value: Any) -> Any:
        """A copy; the one made before where a step is given the very same tensor again."""
        if not isinstance(value, Tensor):
            return value
        if (branch, name) not in last or last[branch, name][0] is not value:
            last[branch, name] = value, value.detach().to("cpu", copy=True)
        return last[branch, name][1]

    def observe(seen: Observation) -> None:
        inputs = {name: keep(seen.branch, name, value) for name, value in seen.inputs.items()}
        parts = {name: keep(seen.branch, name, getattr(seen, name)) for name in ("entry", "feature", "velocity")}
        branches.setdefault(seen.branch, []).append(Observation(seen.branch, seen.step, inputs, **parts))

    with Accelerated(pipe, Method("none", None, always), observe=observe):
        draw(pipe, batch, sampling)
    kinds = [kind for kind in Clock if kind is not Clock.sigma or hasattr(pipe.scheduler, "sigmas")]
    readings = {str(kind): clock.readings(pipe.scheduler, kind) for kind in kinds}
    return Trace(about, readings, branches)


@torch.no_grad()
def head(model: nn.Module, seen: Observation, feature: Tensor) -> Tensor:
    """The velocity that the denoiser's cheap head makes of `feature` at a traced step; no block runs."""
    layout, device = denoiser_of(model), next(model.parameters()).device
    inputs = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in seen.inputs.items()}
    feature = feature.to(device)

    def substitute(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (feature, *args[1:]), kwargs
        return args, {**kwargs, next(iter(kwargs)): feature}

    handle = model.get_submodule(layout.exit).register_forward_pre_hook(substitute, with_kwargs=True)
    try:
        with in_place_of(model, empty_stacks(model, layout.stacks)):
            return model(**inputs)[0].cpu()
    finally:
        handle.remove()


def replay(trace: Trace, model: nn.Module, method: Method) -> tuple[dict[str, list[int]], list[Score]]:
    """Which steps a method would run on the trace, by branch, and how far its forecasts are off at the others."""
    if method.site is not Site.exit or method.front:
        refuse(f"{method.name} does not store at the exit of the blocks alone, which is what a trace holds")
    times, span = trace.clocks[str(method.clock)]
    runs: dict[str, list[int]] = {}
    scores = []
    look = watcher(method.watch, model, denoiser_of(model))
    for name, calls in trace.branches.items():
        first, signal, drift = calls[0].step, None, 0.0
        done: list[int] = []
        history = History(method.keep)
        for seen in calls:
            if not method.foreseeable:
                moved, signal = _moved(method, model, look, seen, signal)
                drift = drift + moved if method.accumulate else moved
            if method.schedule(seen.step - first, trace.steps - first, [s - first for s in done], drift):
                drift = 0.0
                done.append(seen.step)
                history.add(times[seen.step], _stored(seen, method.space))
            else:
                scores.append(_score(model, method, history, seen, times, span, seen.step - done[-1]))
        runs[name] = done
    return runs, scores


def by_distance(
    trace: Trace, model: nn.Module, method: Method, run_steps: list[int], most: int, fewest: int = 5
) -> list[Score]:
    """Forecasts at 1 .. `most` steps past each of `run_steps`, from the run steps up to it, `fewest` at the least."""
    times, span = trace.clocks[str(method.clock)]
    scores = []
    for calls in trace.branches.values():
        at = {seen.step: seen for seen in calls}
        for count in range(fewest, len(run_steps) + 1):
            past = run_steps[:count]
            history = History(method.keep)
            for step in past:
                history.add(times[step], _stored(at[step], method.space))
            for step in range(past[-1] + 1, min(past[-1] + most, trace.steps - 1) + 1):
                scores.append(_score(model, method, history, at[step], times, span, step - past[-1]))
    return scores


@torch.no_grad()
def _moved(
    method: Method, model: nn.Module, look: Watcher, at: Observation, before: Tensor | None
) -> tuple[float, Tensor]:
    """A method's drift since the step before, and its signal now."""
    signal = look(at.inputs, functools.partial(model, **at.inputs))
    if before is None or method.drift is None:
        return 0.0, signal
    return method.drift(Seen(signal, before, (), ((0.0, 1.0), (0.0, 1.0)))), signal


def _stored(seen: Observation, space: Space) -> Tensor:
    return seen.feature - seen.entry if space is Space.residual else seen.feature


def _score(
    model: nn.Module,
    method: Method,
    history: History,
    seen: Observation,
    times: list[float],
    span: tuple[float, float],
    distance: int,
) -> Score:
    forecast: Forecast | None = method.forecast
    if forecast is None:
        refuse(f"{method.name} forecasts nothing, so there is nothing to replay")
    weights = forecast(history.times, times[seen.step], span)
    guess = history.combine(weights.tolist())
    if method.space is Space.residual:
        guess = seen.entry + guess
    velocity = head(model, seen, guess)
    return Score(
        branch=seen.branch,
        step=seen.step,
        distance=distance,
        feature=relative_error(guess, seen.feature),
        velocity=relative_error(velocity, seen.velocity),
        total=float(weights.sum()),
        l1=float(abs(weights).sum()),
    )


def summary(scores: list[Score]) -> dict[str, float]:
    """Mean over the skipped steps of each of a score's numbers; empty when nothing was skipped."""
    if not scores:
        return {}
    rows = [asdict(score) for score in scores]
    return {
        key: sum(row[key] for row in rows) / len(rows) for key in ("distance", "feature", "velocity", "total", "l1")
    }
