"""Scores forecasts and schedules on a trace, in seconds and without sampling.

A replay does not see feedback: in a real run each forecast moves the sample, and the next features with it.
"""

import functools
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from spectrum.bench.trace import Trace
from spectrum.core.errors import refuse
from spectrum.core.forecast import reuse
from spectrum.core.history import History
from spectrum.core.method import DriftContext, Method, Site, Space
from spectrum.core.schedule import always
from spectrum.core.weights import checked_weights
from spectrum.hooks.exit_site import EXIT, ExitSite
from spectrum.hooks.forecast_errors import relative_error
from spectrum.hooks.signals import SignalReader, signal_reader
from spectrum.hooks.step import DenoiserCall
from spectrum.hooks.tensors import sample_of
from spectrum.hooks.trajectory import Observation
from spectrum.models.layouts import denoiser_of


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


_WHOLE = Method("replay", reuse, always)
"""A method that stores features at the exit: what `head` needs of one."""


@torch.no_grad()
def head(model: nn.Module, observed: Observation, feature: Tensor) -> Tensor:
    """The velocity that the denoiser's cheap head makes of `feature` at a traced step; no block runs."""
    device = next(model.parameters()).device
    inputs = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in observed.inputs.items()}
    site = ExitSite(model, denoiser_of(model, inputs), _WHOLE)
    if len(site.slots) > 1:
        refuse(f"{type(model).__name__} has several exits, of which a trace holds the first alone")
    forward = functools.partial(type(model).forward, model)
    call = DenoiserCall(forward, forward, (), inputs, inputs)
    try:
        return sample_of(site.skip_blocks(call, {EXIT: feature.to(device)}).output).cpu()
    finally:
        site.remove()


def replay(trace: Trace, model: nn.Module, method: Method) -> tuple[dict[str, list[int]], list[Score]]:
    """Which steps a method would run on a trace, and how far its forecasts are off at the others.

    Args:
        trace: a full run.
        model: the denoiser that it was made with.
        method: the method to score.

    Returns:
        (run steps by CFG branch, a score for each skipped step of each branch).

    Raises:
        SpectrumError: if the method stores something that a trace does not hold.
    """
    if method.site is not Site.exit or method.front_blocks:
        refuse(f"{method.name} stores elsewhere than at the exit of all blocks, and a trace holds nothing else")
    if str(method.clock) not in trace.clocks:
        refuse(f"the trace has no readings of the clock {method.clock}: type method.clock=step")
    times, span = trace.clocks[str(method.clock)]
    runs: dict[str, list[int]] = {}
    scores = []
    inputs = next(iter(trace.branches.values()))[0].inputs
    read_signal = None if method.time_only else signal_reader(method.signal, model, denoiser_of(model, inputs))
    for name, calls in trace.branches.items():
        first, signal, drift = calls[0].step, None, 0.0
        done: list[int] = []
        history = History(method.max_features)
        for observed in calls:
            if read_signal is not None:
                moved, signal = _moved(method, model, read_signal, observed, signal)
                drift = drift + moved if method.accumulate else moved
            if method.schedule(observed.step - first, trace.steps - first, [s - first for s in done], drift):
                drift = 0.0
                done.append(observed.step)
                history.add(times[observed.step], _stored(observed, method.space))
            else:
                scores.append(_score(model, method, history, observed, times, span, observed.step - done[-1]))
        runs[name] = done
    return runs, scores


def by_distance(
    trace: Trace, model: nn.Module, method: Method, run_steps: list[int], most: int, fewest: int = 5
) -> list[Score]:
    """Scores of forecasts at 1 .. `most` steps past each run step.

    Args:
        trace: a full run.
        model: the denoiser that it was made with.
        method: the forecaster to score; its schedule is not used.
        run_steps: the steps whose features are stored.
        most: the largest distance.
        fewest: the number of stored features from which on forecasts are made.
    """
    times, span = trace.clocks[str(method.clock)]
    scores = []
    for calls in trace.branches.values():
        at = {observed.step: observed for observed in calls}
        for count in range(fewest, len(run_steps) + 1):
            past = run_steps[:count]
            history = History(method.max_features)
            for step in past:
                history.add(times[step], _stored(at[step], method.space))
            for step in range(past[-1] + 1, min(past[-1] + most, trace.steps - 1) + 1):
                scores.append(_score(model, method, history, at[step], times, span, step - past[-1]))
    return scores


@torch.no_grad()
def _moved(
    method: Method, model: nn.Module, read_signal: SignalReader, at: Observation, before: Tensor | None
) -> tuple[float, Tensor]:
    """A method's drift since the step before, and its signal now."""
    signal = read_signal(at.inputs, functools.partial(model, **at.inputs))
    if before is None or method.drift is None:
        return 0.0, signal
    return method.drift(DriftContext(signal, before, (), ((0.0, 1.0), (0.0, 1.0)))), signal


def _stored(observed: Observation, space: Space) -> Tensor:
    return observed.feature - observed.entry if space is Space.residual else observed.feature


def _score(
    model: nn.Module,
    method: Method,
    history: History,
    observed: Observation,
    times: list[float],
    span: tuple[float, float],
    distance: int,
) -> Score:
    if method.forecast is None:
        refuse(f"{method.name} forecasts nothing, so there is nothing to replay")
    if method.weights_by_data:
        refuse(f"the weights of {method.name} follow from each sample's features, which a replay does not tell apart")
    weights = checked_weights(method, history.times, times[observed.step], span, readings=times)
    guess = history.combine(weights)
    if method.space is Space.residual:
        guess = observed.entry + guess
    velocity = head(model, observed, guess)
    return Score(
        branch=observed.branch,
        step=observed.step,
        distance=distance,
        feature=relative_error(guess, observed.feature),
        velocity=relative_error(velocity, observed.velocity),
        total=sum(weights),
        l1=sum(map(abs, weights)),
    )


def summary(scores: list[Score]) -> dict[str, float]:
    """Mean over the skipped steps of each of a score's numbers; empty when nothing was skipped."""
    if not scores:
        return {}
    rows = [asdict(score) for score in scores]
    return {
        key: sum(row[key] for row in rows) / len(rows) for key in ("distance", "feature", "velocity", "total", "l1")
    }
