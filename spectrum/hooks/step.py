"""One step of one CFG branch: decides whether the blocks run, and forecasts if they do not."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from spectrum.core.errors import refuse
from spectrum.core.method import Method, SkippedStep
from spectrum.core.weights import checked_weights
from spectrum.hooks.signals import SignalReader
from spectrum.hooks.tensors import copied, kinds_of
from spectrum.hooks.trajectory import Branch, Trajectory


@dataclass(frozen=True)
class DenoiserCall:
    """One call of a denoiser by its pipeline.

    Attributes:
        forward: the forward that the pipeline called; compiled where the denoiser is.
        plain_forward: the same uncompiled, for reading signals.
        args: positional arguments.
        kwargs: keyword arguments.
        inputs: all arguments by name.
        changed: the `LayerHooks` that are on the denoiser while it is called.
    """

    forward: Callable[..., Any]
    plain_forward: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: Mapping[str, Any]
    changed: tuple[tuple[int, str], ...] = ()

    @functools.cached_property
    def kinds(self) -> tuple[Any, ...]:
        """`kinds_of` its arguments, and the layers that are changed for it.

        Read before the forward runs, since some forwards empty what they are given.
        """
        return (*kinds_of(self.inputs), *self.changed)

    def copied(self) -> "DenoiserCall":
        """The call with copies of its tensors, lists and dictionaries: some forwards write to what they are given."""
        return dataclasses.replace(self, args=copied(self.args), kwargs=copied(self.kwargs))

    def run(self) -> Any:
        """Call the forward with the pipeline's arguments; its output."""
        return self.forward(*self.args, **self.kwargs)

    def run_plain(self) -> Any:
        """Call the uncompiled forward with the pipeline's arguments; its output."""
        return self.plain_forward(*self.args, **self.kwargs)


class CurrentStep:
    """The step that a denoiser is called at: what a site asks whether to run, and for the forecast.

    Args:
        method: the method in force.
        trajectory: the run that the call belongs to.
        branch: the CFG branch that it belongs to; `branch.last` is the step.
        call: the call.
        read_signal: reads the method's signal; None for methods of time alone.
        sample: number of the sample in its batch, where each decides for itself.
    """

    def __init__(
        self,
        method: Method,
        trajectory: Trajectory,
        branch: Branch,
        call: DenoiserCall,
        read_signal: SignalReader | None,
        sample: int = 0,
    ) -> None:
        self.method, self.trajectory, self.branch, self.call = method, trajectory, branch, call
        self._read_signal, self._sample = read_signal, sample

    def runs(self, front_residual: Tensor | None = None) -> bool:
        """Whether the blocks run at this step. Asked once.

        Args:
            front_residual: the residual of the front blocks, where the method runs them first.
        """
        method, trajectory, branch = self.method, self.trajectory, self.branch
        step, steps = branch.last, len(trajectory.times)
        key = step, self._sample
        if method.shared_decision and branch.runs and key in trajectory.decided:
            go = trajectory.decided[key]
        else:
            if not method.time_only:
                self._measure_drift(front_residual)
            past = [s - branch.origin for s in branch.runs]
            go = method.schedule(step - branch.origin, steps - branch.origin, past, branch.drift)
            trajectory.decided[key] = go
        if go:
            branch.runs.append(step)
            branch.drift = 0.0
        return go

    def _measure_drift(self, front_residual: Tensor | None) -> None:
        """Add what the signal has moved since the step before to the branch's drift."""
        assert self.method.drift is not None and self._read_signal is not None
        branch, signal = self.branch, front_residual
        if signal is None:
            signal = self._read_signal(self.call.inputs, self.call.run_plain)
        context = branch.drift_context(signal, self.trajectory.levels[branch.last])
        if context is None or not branch.runs:
            return
        moved = self.method.drift(context)
        if math.isnan(moved):
            refuse(f"the signal of {self.method.name} has NaN at step {branch.last}: look at the inputs and weights")
        branch.drift = branch.drift + moved if self.method.accumulate else moved

    def skipping(self) -> Tensor | None:
        """Which rows of the batch skip though the blocks run; None, for here all do the same."""
        return None

    def _weights(self) -> list[float]:
        """The weights of the stored features, as the plan has them where the same ones are stored."""
        branch, trajectory = self.branch, self.trajectory
        stored, weights = trajectory.known.get(branch.last, (None, []))
        if stored == branch.times:
            return weights
        times, target = trajectory.times, trajectory.times[branch.last]
        gram = branch.inner_products() if self.method.weights_by_data else None
        return checked_weights(self.method, branch.times, target, trajectory.span, branch.name, times, gram)

    def forecast(self, slot: str) -> Tensor:
        """The forecast for one slot of the site. The weights are worked out once a step and shared by all slots.

        Args:
            slot: the name under which the site stored the features: `exit`, `output`, or a module.

        Returns:
            `sum_k w_k F_k` in the features' shape and dtype, corrected where the method asks for it.
        """
        branch, step = self.branch, self.branch.last
        if not branch.skipped or branch.skipped[-1].step != step:
            branch.skipped.append(SkippedStep(step, self._weights()))
        history = branch.histories[slot]
        forecast = history.combine(branch.skipped[-1].weights)
        if self.method.correct is None:
            return forecast
        if forecast.ndim > 4:
            refuse(
                f"method={self.method.name} works on features that are rows of tokens, (batch, tokens, width), or "
                f"pictures, (batch, channels, height, width), and here they are {tuple(forecast.shape)}: type another "
                "method"
            )
        return self.method.correct(forecast, history.features[-1], branch.grid)
