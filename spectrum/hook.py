"""The one hook: at each call of a denoiser it runs the blocks or puts a forecast in their place."""

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from spectrum import clock
from spectrum.branch import Branch, Observation, Trajectory
from spectrum.call import EXIT, Call, tensor
from spectrum.context import attach, compiled_whole, detach, uncompiled
from spectrum.denoisers import Denoiser, complete, denoiser_of
from spectrum.errors import refuse
from spectrum.method import Method, Site, Step, plan_method
from spectrum.signals import token_grid, watcher
from spectrum.sites import site_of

MOST_BRANCHES = 8


def relative_error(guess: Tensor, truth: Tensor) -> float:
    """`||guess - truth||_2 / ||truth||_2` over all elements."""
    return relative_errors({"": guess}, {"": truth})


def relative_errors(guess: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> float:
    """`relative_error` over all the tensors of `truth` together."""
    off = sum((guess[name].float() - value.float()).square().sum().item() for name, value in truth.items())
    return math.sqrt(off / sum(value.float().square().sum().item() for value in truth.values()))


class CacheHook:
    """Applies a `Method` to one denoiser until `remove` is called.

    Args:
        model: the denoiser, also as `torch.compile` gave it.
        scheduler: called at every step for the pipeline's scheduler, which says where the trajectory is.
        method: what to apply.
        probe: also run the blocks at each skipped step and record how far the forecast was off. Slow; the samples are
            those of the method all the same.
        observe: is told of every step at which the blocks ran.
        denoiser: the layout of a family that is not registered.

    Attributes:
        on_start: called when a trajectory begins.
    """

    def __init__(
        self,
        model: nn.Module,
        scheduler: Callable[[], Any],
        method: Method,
        probe: bool = False,
        observe: Callable[[Observation], None] | None = None,
        denoiser: Denoiser | None = None,
    ) -> None:
        self._shell, model = model, uncompiled(model)
        self.model, self.method, self.probe, self.observe = model, method, probe, observe
        self.denoiser: Denoiser = complete(denoiser, model) if denoiser else denoiser_of(model)
        self.on_start: Callable[[], None] = lambda: None
        self._scheduler = scheduler
        self._signature = inspect.signature(type(model).forward)
        self._trajectory: Trajectory | None = None
        self._report: dict[str, Any] = {}
        self._watched = None if method.foreseeable else watcher(method.watch, model, self.denoiser)
        if compiled_whole(self._shell) and (method.front or method.site is Site.modules):
            refuse(
                f"{method.name} works inside of the denoiser, which is compiled whole: compile its blocks alone, "
                "pipe.transformer.compile_repeated_blocks()"
            )
        self._plain = attach(self._shell, self._around, self.reset)
        try:
            self._site = site_of(model, self.denoiser, method)
        except BaseException:
            detach(self._shell)
            raise

    def remove(self) -> None:
        """Take the hook off and free what it stored."""
        detach(self._shell)
        self._site.remove()
        self.reset()

    def reset(self) -> None:
        """End the trajectory: free its features, keep its report."""
        if self._trajectory is not None:
            self._report = self._trajectory.report()
        self._trajectory = None

    def report(self) -> dict[str, Any]:
        """`Trajectory.report` of the latest trajectory."""
        return self._report if self._trajectory is None else self._trajectory.report()

    def _around(self, forward: Callable[..., Any], name: str | None, args: tuple[Any, ...], kwargs: Any) -> Any:
        try:
            return self._call(forward, name, args, kwargs)
        except BaseException:
            self.reset()
            raise

    def _call(self, forward: Callable[..., Any], name: str | None, args: tuple[Any, ...], kwargs: Any) -> Any:
        inputs = self._signature.bind(self.model, *args, **kwargs).arguments
        for argument, reason in self.denoiser.refused.items():
            if inputs.get(argument) is not None:
                refuse(f"{self.method.name} cannot take {argument}: {reason}")
        step = clock.position(self._scheduler(), inputs.get("timestep"))
        trajectory = self._follow(step)
        branch = self._branch(trajectory, name, inputs, step)
        branch.last = step

        def watch() -> Tensor:
            assert self._watched is not None
            return self._watched(inputs, functools.partial(self._plain, *args, **kwargs))

        call = self._site.call(
            forward,
            args,
            kwargs,
            lambda front: self._decide(trajectory, branch, watch if front is None else lambda: front),
            lambda place: self._recall(trajectory, branch, place),
        )
        last = step == len(trajectory.times) - 1
        trajectory.health.look(step, call.ran, tensor(call.output), last)
        if call.ran:
            self._keep(trajectory, branch, inputs, call)
        elif self.probe:
            self._compare(branch, call, self._site.full(forward, args, kwargs))
        return call.output

    def _keep(self, trajectory: Trajectory, branch: Branch, inputs: Mapping[str, Any], call: Call) -> None:
        if self.method.forecast is not None:
            branch.store(trajectory.times[branch.last], call.values)
        if not self.method.foreseeable:
            branch.mark(tensor(call.output))
        if self.observe is not None:
            if call.entry is None or EXIT not in call.features:
                refuse(f"{self.method.name} stores at method.site={self.method.site}: only site=exit can be observed")
            given = {key: value for key, value in inputs.items() if key != "self"}
            feature, velocity = call.features[EXIT], tensor(call.output)
            self.observe(Observation(branch.name, branch.last, given, call.entry, feature, velocity))

    def _compare(self, branch: Branch, call: Call, truth: Call) -> None:
        feature = relative_errors(call.features, truth.features)
        velocity = relative_error(tensor(call.output), tensor(truth.output))
        branch.errors.append({"step": branch.last, "feature": feature, "velocity": velocity})

    def _follow(self, step: int) -> Trajectory:
        """The trajectory this call belongs to; a scheduler that was set anew, or that went back, starts another."""
        scheduler, current = self._scheduler(), self._trajectory
        same = current is not None and current.timesteps is scheduler.timesteps
        if current is not None and same and step >= max(branch.last for branch in current.branches.values()):
            return current
        split = getattr(getattr(self.model, "_parallel_config", None), "context_parallel_config", None)
        if not self.method.foreseeable and split is not None:
            refuse(
                f"{self.method.name} decides by data, of which each rank of a parallel denoiser has a part, so the "
                "ranks could part ways: type a method of time alone, for example method=spectrum"
            )
        times, span = clock.readings(scheduler, self.method.clock)
        plan_method(self.method, len(times), times, span)
        levels = [] if self.method.foreseeable else clock.levels(scheduler)
        self.on_start()
        self._trajectory = Trajectory(scheduler.timesteps, times, span, levels)
        return self._trajectory

    def _branch(self, trajectory: Trajectory, name: str | None, inputs: Mapping[str, Any], step: int) -> Branch:
        condition = inputs.get(self.denoiser.condition) if self.denoiser.condition else None
        parts = condition if isinstance(condition, list) else [condition]
        key = name if name is not None else tuple(map(id, parts))
        if key not in trajectory.branches:
            if len(trajectory.branches) == MOST_BRANCHES:
                refuse(
                    f"{type(self.model).__name__} was called with more than {MOST_BRANCHES} different "
                    f"{self.denoiser.condition}, so its CFG branches cannot be told apart: give another "
                    "Denoiser(condition=...)"
                )
            label = name or f"branch {len(trajectory.branches)}"
            asked = self.method.mend is not None or not self.method.foreseeable
            grid = token_grid(self.model, inputs) if asked else None
            trajectory.branches[key] = Branch(label, step, self.method.keep, condition, grid)
        branch = trajectory.branches[key]
        if branch.last == step:
            refuse(
                f"the denoiser was called twice at step {step} for the same CFG branch (skip-layer guidance, or a "
                "scheduler that repeats a step): caching cannot tell the calls apart, so switch that off"
            )
        return branch

    def _decide(self, trajectory: Trajectory, branch: Branch, watch: Callable[[], Tensor]) -> bool:
        step, steps = branch.last, len(trajectory.times)
        if self.method.follow and branch.runs and step in trajectory.decided:
            go = trajectory.decided[step]
        else:
            if not self.method.foreseeable:
                self._measure(trajectory, branch, watch())
            runs = [s - branch.origin for s in branch.runs]
            go = self.method.schedule(step - branch.origin, steps - branch.origin, runs, branch.drift)
            trajectory.decided[step] = go
        if go:
            branch.runs.append(step)
            branch.drift = 0.0
        return go

    def _measure(self, trajectory: Trajectory, branch: Branch, signal: Tensor) -> None:
        assert self.method.drift is not None
        seen = branch.see(signal, trajectory.levels[branch.last])
        if seen is not None and branch.runs:
            moved = self.method.drift(seen)
            if math.isnan(moved):
                refuse(f"what {self.method.name} watches has NaN at step {branch.last}: look at the inputs and weights")
            branch.drift = branch.drift + moved if self.method.accumulate else moved

    def _recall(self, trajectory: Trajectory, branch: Branch, place: str) -> Tensor:
        """The forecast of one place at the step that is being skipped; its weights are worked out once a step."""
        assert self.method.forecast is not None
        step = branch.last
        if not branch.skipped or branch.skipped[-1].step != step:
            weights = self.method.forecast(branch.times, trajectory.times[step], trajectory.span)
            branch.skipped.append(Step(step, weights.tolist()))
        history = branch.places[place]
        forecast = history.combine(branch.skipped[-1].weights)
        return forecast if self.method.mend is None else self.method.mend(forecast, history.features[-1], branch.grid)
