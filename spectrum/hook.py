"""The one hook: at each call of a denoiser it runs the blocks or puts a forecast in their place."""

import inspect
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from spectrum import clock
from spectrum.context import attach, detach, emptied
from spectrum.denoisers import Denoiser, denoiser_of
from spectrum.errors import refuse
from spectrum.history import History
from spectrum.method import Method, Space, Step, plan_method


@dataclass(frozen=True)
class Observation:
    """One step at which the blocks ran.

    Attributes:
        branch: the CFG branch's name.
        step: the sampler's step.
        inputs: the denoiser's forward arguments by name.
        entry: input of the block stacks; feature: their output, which enters the exit module. Same shape and dtype.
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
    """One CFG branch in one trajectory: its own history, run steps and drift."""

    name: str
    origin: int
    history: History
    condition: Any = None
    runs: list[int] = field(default_factory=list)
    skipped: list[Step] = field(default_factory=list)
    last: int = -1
    drift: float = 0.0
    signal: Tensor | None = None
    errors: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Trajectory:
    """One sampling run: the clock's readings at its steps and the branches met so far, by name."""

    timesteps: Any
    times: list[float]
    span: tuple[float, float]
    branches: dict[Hashable, Branch] = field(default_factory=dict)

    def report(self) -> dict[str, Any]:
        """What was done, per branch: run steps, diagnostics of the skipped ones, bytes held."""
        return {
            b.name: {
                "run_steps": list(b.runs),
                "skipped": [{"step": s.step, "sum": s.total, "l1": s.l1} for s in b.skipped],
                "errors": b.errors,
                "cache_bytes": b.history.nbytes,
            }
            for b in self.branches.values()
        }


def relative_error(guess: Tensor, truth: Tensor) -> float:
    """`||guess - truth||_2 / ||truth||_2` over all elements."""
    return ((guess.float() - truth.float()).norm() / truth.float().norm()).item()


class CacheHook:
    """Applies a `Method` to one denoiser until `remove` is called.

    Args:
        model: the denoiser.
        scheduler: called at every step for the pipeline's scheduler, which says where the trajectory is.
        method: what to apply.
        probe: also run the blocks at each skipped step and record how far the forecast was off. Slow; the samples are
            those of the method all the same.
        observe: is told of every step at which the blocks ran.
        denoiser: the layout of a family that is not registered.
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
        self.model, self.method, self.probe, self.observe = model, method, probe, observe
        self.denoiser: Denoiser = denoiser or denoiser_of(model)
        self._scheduler = scheduler
        self._signature = inspect.signature(type(model).forward)
        self._trajectory: Trajectory | None = None
        self._report: dict[str, Any] = {}
        self._entry: Tensor | None = None
        self._exit: Callable[[Tensor], Tensor] | None = None
        if not method.foreseeable and self.denoiser.signal is None:
            refuse(f"{type(model).__name__} has no signal for {method.name}: use a schedule of time alone")
        attach(model, self._around, self.reset)
        self._handles = [
            model.get_submodule(self.denoiser.exit).register_forward_pre_hook(self._at_exit, with_kwargs=True),
            self._first_block().register_forward_pre_hook(self._at_entry, with_kwargs=True),
        ]

    def remove(self) -> None:
        """Take the hook off and free what it stored."""
        detach(self.model)
        for handle in self._handles:
            handle.remove()
        self.reset()

    def reset(self) -> None:
        """End the trajectory: free its features, keep its report."""
        if self._trajectory is not None:
            self._report = self._trajectory.report()
        self._trajectory = None

    def report(self) -> dict[str, Any]:
        """`Trajectory.report` of the latest trajectory."""
        return self._report if self._trajectory is None else self._trajectory.report()

    def _first_block(self) -> nn.Module:
        stack = self.model.get_submodule(self.denoiser.stacks[0])
        return stack[0] if isinstance(stack, nn.ModuleList) else stack

    def _around(self, forward: Callable[..., Any], name: str | None, args: tuple[Any, ...], kwargs: Any) -> Any:
        try:
            return self._call(forward, name, args, kwargs)
        except BaseException:
            self.reset()
            raise
        finally:
            self._entry = self._exit = None

    def _call(self, forward: Callable[..., Any], name: str | None, args: tuple[Any, ...], kwargs: Any) -> Any:
        inputs = self._signature.bind(self.model, *args, **kwargs).arguments
        for argument, reason in self.denoiser.refused.items():
            if inputs.get(argument) is not None:
                refuse(f"{self.method.name} cannot take {argument}: {reason}")
        step = clock.position(self._scheduler())
        trajectory = self._follow(step)
        branch = self._branch(trajectory, name, inputs.get(self.denoiser.condition), step)
        runs = self._decide(branch, inputs, step, len(trajectory.times))
        branch.last = step
        if runs:
            output, entry, feature = self._run(forward, args, kwargs)
            if self.method.forecast is not None:
                stored = feature - entry if self.method.space is Space.residual else feature
                branch.history.add(trajectory.times[step], stored)
            if self.observe is not None:
                given = {key: value for key, value in inputs.items() if key != "self"}
                self.observe(Observation(branch.name, step, given, entry, feature, _tensor(output)))
            return output
        return self._skip(forward, branch, trajectory, args, kwargs)

    def _follow(self, step: int) -> Trajectory:
        """The trajectory this call belongs to; a scheduler that was set anew, or that went back, starts another."""
        scheduler, current = self._scheduler(), self._trajectory
        same = current is not None and current.timesteps is scheduler.timesteps
        if current is not None and same and step >= max(branch.last for branch in current.branches.values()):
            return current
        times, span = clock.readings(scheduler, self.method.clock)
        plan_method(self.method, len(times), times, span)
        self._trajectory = Trajectory(scheduler.timesteps, times, span)
        return self._trajectory

    def _branch(self, trajectory: Trajectory, name: str | None, condition: Any, step: int) -> Branch:
        key = name if name is not None else id(condition)
        if key not in trajectory.branches:
            label = name or f"branch {len(trajectory.branches)}"
            trajectory.branches[key] = Branch(label, step, History(self.method.keep), condition)
        branch = trajectory.branches[key]
        if branch.last == step:
            refuse(
                f"the denoiser was called twice at step {step} for the same CFG branch (skip-layer guidance, or a "
                "scheduler that repeats a step): caching cannot tell the calls apart, so switch that off"
            )
        return branch

    def _decide(self, branch: Branch, inputs: Any, step: int, steps: int) -> bool:
        if not self.method.foreseeable:
            self._measure(branch, inputs)
        runs = [s - branch.origin for s in branch.runs]
        go = self.method.schedule(step - branch.origin, steps - branch.origin, runs, branch.drift)
        if go:
            branch.runs.append(step)
            branch.drift = 0.0
        return go

    def _measure(self, branch: Branch, inputs: Any) -> None:
        assert self.denoiser.signal is not None and self.method.drift is not None
        signal = self.denoiser.signal(self.model, inputs)
        if branch.signal is not None:
            branch.drift += self.method.drift(signal, branch.signal)
        branch.signal = signal

    def _run(self, forward: Callable[..., Any], args: Any, kwargs: Any) -> tuple[Any, Tensor, Tensor]:
        """The denoiser's output, and what entered and left its block stacks."""
        seen: list[Tensor] = []
        self._exit = seen.append  # pyright: ignore[reportAttributeAccessIssue]
        output = forward(*args, **kwargs)
        if not seen or self._entry is None:
            refuse(f"{type(self.model).__name__} did not pass through {self.denoiser.exit}: nothing could be stored")
        return output, self._entry, seen[0].to(self._entry.dtype)

    def _skip(self, forward: Callable[..., Any], branch: Branch, trajectory: Trajectory, args: Any, kwargs: Any) -> Any:
        assert self.method.forecast is not None
        step, history = branch.last, branch.history
        weights = self.method.forecast(history.times, trajectory.times[step], trajectory.span)
        branch.skipped.append(Step(step, weights.tolist()))
        truth = self._run(forward, args, kwargs) if self.probe else None
        used: list[Tensor] = []

        def substitute(entry: Tensor) -> Tensor:
            forecast = history.combine(branch.skipped[-1].weights)
            if self.method.space is Space.residual:
                forecast = entry.to(forecast.dtype) + forecast
            used.append(forecast)
            return forecast.to(entry.dtype)

        self._exit = substitute
        with emptied(self.model, self.denoiser.stacks):
            output = forward(*args, **kwargs)
        if not used:
            refuse(f"{type(self.model).__name__} did not pass through {self.denoiser.exit}: nothing could be forecast")
        if truth is not None:
            feature = relative_error(used[0], truth[2])
            velocity = relative_error(_tensor(output), _tensor(truth[0]))
            branch.errors.append({"step": step, "feature": feature, "velocity": velocity})
        return output

    def _at_entry(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._exit is not None:
            self._entry = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]

    def _at_exit(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._exit is None:
            return None
        name = None if args else next(iter(kwargs))
        replaced = self._exit(args[0] if name is None else kwargs[name])
        if replaced is None:
            return None
        return ((replaced, *args[1:]), kwargs) if name is None else (args, {**kwargs, name: replaced})


def _tensor(output: Any) -> Tensor:
    """The sample in a denoiser's output, a tuple or a diffusers output object."""
    return output[0]
