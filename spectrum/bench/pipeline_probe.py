"""What caching does in whole pipelines: toys of diffusers' pipelines, each compared with runs that have no hook.

Four runs of each pipeline tell whether it is cached and rightly so: with a method that always runs; with the denoiser's
output kept at skipped steps, beside a loop that does the same by the order of calls alone; with the true features of
every step put back; and once the method is taken off.
"""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spectrum.bench.by_order import by_order
from spectrum.bench.probe import denoiser_state
from spectrum.core.errors import SpectrumError
from spectrum.core.forecast import reuse
from spectrum.core.given_schedule import given_schedule
from spectrum.core.method import Method, Site
from spectrum.hooks.block_stand_ins import blocks_named
from spectrum.hooks.hook import CacheHook
from spectrum.hooks.layout import Denoiser
from spectrum.hooks.private_api import uncompiled
from spectrum.hooks.proof import calls_of, difference
from spectrum.hooks.site import SiteResult, Step
from spectrum.hooks.step import DenoiserCall
from spectrum.hooks.tensors import tensors_in
from spectrum.hooks.trajectory import Branch, Trajectory
from spectrum.models.attached import attached, is_denoiser, named_denoisers
from spectrum.models.layouts import registered_layout
from spectrum.models.toy_pipelines import ToyPipeline

CHECKS = ("always run", "branches", "features", "taken off")
WORKS = "works"


def _runs(step: int, steps: int, runs: list[int]) -> bool:
    return step % 3 == 0 or step == 1


@dataclass
class PipelineFinding:
    """What was found on one toy pipeline.

    Attributes:
        name: of the toy.
        denoisers: the classes of the denoisers that the method was put on.
        calls: calls of them in one run.
        branches: histories that were kept, of all of them together.
        outcomes: by check `works`, or why it was refused, or what went wrong, which begins with `WRONG`.
    """

    name: str
    denoisers: tuple[str, ...] = ()
    calls: int = 0
    branches: int = 0
    outcomes: dict[str, str] = field(default_factory=dict)

    @property
    def works(self) -> bool:
        """Whether every check holds."""
        return all(self.outcomes.get(check) == WORKS for check in CHECKS)

    @property
    def wrong(self) -> bool:
        """Whether anything was wrong and not refused."""
        return any(outcome.startswith("WRONG") for outcome in self.outcomes.values())


def probe_pipeline(toy: ToyPipeline) -> PipelineFinding:
    """Put methods on a toy pipeline, and compare with what it does without.

    Args:
        toy: the toy.

    Returns:
        What was found; what is refused is an outcome, not an error.
    """
    found, pipe = PipelineFinding(toy.name), toy.build()
    with torch.no_grad():
        plain = _sampled(toy, pipe)
        again = difference(plain, _sampled(toy, pipe))
        if again is not None or not plain or not all(bool(part.isfinite().all()) for part in plain):
            found.outcomes = {CHECKS[0]: f"WRONG: without a method two runs differ, are not finite or empty: {again}"}
            return found
        before = _states(pipe)
        seen: dict[str, _Seen] = {}
        checks: tuple[Callable[[], str], ...] = (
            lambda: _always_run(toy, pipe, plain, found, seen),
            lambda: _branches(toy, pipe, plain),
            lambda: _features(toy, pipe, plain, seen),
        )
        for name, check in zip(CHECKS, checks, strict=False):
            if found.outcomes and not found.outcomes[CHECKS[0]].startswith((WORKS, "WRONG")):
                found.outcomes[name] = found.outcomes[CHECKS[0]]
                continue
            try:
                found.outcomes[name] = check()
            except SpectrumError as error:
                found.outcomes[name] = str(error)
            except Exception as error:  # a traceback from inside is what must not be
                found.outcomes[name] = f"WRONG: {type(error).__name__}: {error}"
        as_before = _states(pipe) == before and difference(plain, _sampled(toy, pipe)) is None
        found.outcomes["taken off"] = WORKS if as_before else "WRONG: the pipeline is not as it was"
    return found


def _states(pipe: Any) -> list[Any]:
    return [denoiser_state(part) for part in pipe.components.values() if isinstance(part, nn.Module)]


def _sampled(toy: ToyPipeline, pipe: Any) -> list[Tensor]:
    """All that a pipeline returns, as tensors."""
    torch.manual_seed(0)
    output = pipe(**toy.arguments(pipe))
    parts = output.values() if isinstance(output, dict) else [output]  # a modular pipeline returns what it is asked for
    return [tensor for _, tensor in tensors_in([_as_tensors(part) for part in parts])]


def _as_tensors(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_as_tensors(part) for part in value]
    if isinstance(value, np.ndarray) or hasattr(value, "getbands"):
        return torch.from_numpy(np.array(value))
    return value


class _Watched(CacheHook):
    """A hook that keeps the features of every call, or puts given ones back.

    Args:
        model: the denoiser.
        *args: see `CacheHook`.
        given: the features of each call to forecast with; None to keep them.
        **kwargs: see `CacheHook`.
    """

    def __init__(
        self, model: nn.Module, *args: Any, given: list[dict[str, Tensor]] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(model, *args, **kwargs)
        self.given = given
        self.kept: list[dict[str, Tensor]] = []
        self.decisions: list[_Given] = []

    def step_of(self, trajectory: Trajectory, branch: Branch, call: DenoiserCall) -> Step:
        """See `CacheHook`."""
        step = super().step_of(trajectory, branch, call)
        self.decisions.append(_Given(step, None if self.given is None else self.given[len(self.decisions)]))
        return self.decisions[-1]

    def store(self, trajectory: Trajectory, branch: Branch, call: DenoiserCall, result: SiteResult) -> None:
        """See `CacheHook`."""
        self.kept.append({slot: value.clone() for slot, value in result.stored.items()})
        super().store(trajectory, branch, call, result)


@dataclass
class _Given:
    """A step that tells whether it ran, and whose forecast is what was given for it, if anything was."""

    step: Step
    features: dict[str, Tensor] | None
    ran: bool = False

    def runs(self, front_residual: Tensor | None = None) -> bool:
        self.ran = self.step.runs(front_residual)
        return self.ran

    def skipping(self) -> Tensor | None:
        return self.step.skipping()

    def forecast(self, slot: str) -> Tensor:
        forecast = self.step.forecast(slot)
        return forecast if self.features is None else self.features[slot]


def _method(rule: Callable[..., bool] = _runs, site: Site = Site.exit) -> Method:
    return Method(name="probe", forecast=reuse, schedule=given_schedule(rule), site=site)


@dataclass
class _Seen:
    """What a denoiser's hook saw in a run of every step: the features of each call, and the layout."""

    features: list[dict[str, Tensor]]
    layout: Denoiser


_NEVER = _Seen([], Denoiser(exit=()))
"""What is seen of a denoiser that the pipeline has and never calls."""


@contextmanager
def _hooked(pipe: Any, method: Method, seen: Mapping[str, _Seen] | None = None) -> Iterator[dict[str, _Watched]]:
    """The method on each denoiser of the pipeline, by the pipeline's names; features are given where `seen` is."""
    names = list(named_denoisers(pipe))
    left = iter(names)

    def make(*args: Any) -> _Watched:
        name = next(left)
        known = None if seen is None else seen.get(name, _NEVER)
        return _Watched(*args, given=None if known is None else known.features)

    hooks = attached(pipe, method, make)
    try:
        yield dict(zip(names, hooks, strict=True))
    finally:
        for hook in hooks:
            hook.remove()


def _always_run(
    toy: ToyPipeline, pipe: Any, plain: list[Tensor], found: PipelineFinding, seen: dict[str, _Seen]
) -> str:
    """Every step runs: the output is the same, and no call of any denoiser goes past the hooks."""
    named = named_denoisers(pipe)
    others = {key: part for key, part in pipe.components.items() if isinstance(part, nn.Module) and is_denoiser(part)}
    with (
        _hooked(pipe, _method(lambda step, steps, runs: True)) as hooks,
        calls_of({**others, **named}, _counts) as called,
    ):
        off = difference(plain, _sampled(toy, pipe))
        found.branches = sum(len(hook.report()) for hook in hooks.values())
        seen |= {name: _Seen(hook.kept, hook.layout) for name, hook in hooks.items() if hook.layout is not None}
    found.denoisers = tuple(dict.fromkeys(type(uncompiled(model)).__name__ for model in named.values()))
    found.calls = len(called)
    for name in dict.fromkeys(called):
        count = len(seen[name].features) if name in seen else 0
        if count != called.count(name):
            return f"WRONG: of {called.count(name)} calls of {name} {count} were seen"
    return WORKS if off is None else f"WRONG: {off}"


def _branches(toy: ToyPipeline, pipe: Any, plain: list[Tensor]) -> str:
    """The output of the last run step is reused: the same as in a loop that goes by the order of calls in a step."""
    with by_order(pipe, _runs) as skips:
        expected = _sampled(toy, pipe)
    if not skips or difference(plain, expected) is None:
        return "WRONG: nothing was skipped, so nothing is shown: give the toy more steps"
    with _hooked(pipe, _method(site=Site.output)) as hooks:
        off = difference(expected, _sampled(toy, pipe))
        skipped = sum(not step.ran for hook in hooks.values() for step in hook.decisions)
    if skipped != len(skips):
        return f"WRONG: {skipped} calls were skipped; by the order of calls it is {len(skips)}"
    return WORKS if off is None else f"WRONG: not as by the order of calls: {off}"


def _features(toy: ToyPipeline, pipe: Any, plain: list[Tensor], seen: Mapping[str, _Seen]) -> str:
    """Steps are skipped with their true features put back: the output is the same, and no block was called there."""
    called = {}
    with ExitStack() as stack:
        hooks = stack.enter_context(_hooked(pipe, _method(), seen))
        for name, hook in hooks.items():
            layout = seen.get(name, _NEVER).layout
            called[name] = stack.enter_context(_blocks_called(hook.model, (*layout.stacks, *layout.feeders)))
        off = difference(plain, _sampled(toy, pipe))
    for name, hook in hooks.items():
        for number, (step, blocks) in enumerate(zip(hook.decisions, called[name], strict=True)):
            if blocks and not step.ran:
                return f"WRONG: call {number} of {name} is skipped, and {blocks[0]} is called"
    return WORKS if off is None else f"WRONG: {off}"


@contextmanager
def _blocks_called(model: nn.Module, names: Sequence[str]) -> Iterator[list[list[str]]]:
    """For each call of a denoiser that counts, the blocks of these lists that are called within it."""
    calls: list[list[str]] = []
    within: list[list[str]] = []

    def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
        if _counts(module, args, kwargs):
            calls.append([])
            within.append(calls[-1])

    def note(name: str, module: nn.Module, args: Any) -> None:
        if within:
            within[-1].append(name)

    with ExitStack() as undo:
        undo.callback(model.register_forward_pre_hook(enter, with_kwargs=True).remove)
        undo.callback(model.register_forward_hook(lambda module, args, output: within.clear()).remove)
        for name, block in blocks_named(model, names).items():
            undo.callback(block.register_forward_pre_hook(functools.partial(note, name)).remove)
        yield calls


def _counts(module: nn.Module, args: Any, kwargs: Any) -> bool:
    """Whether a call of a denoiser, or of a block, is more than one that fills a cache for later calls."""
    layout = registered_layout(module)
    if layout is None or not layout.fills:
        return True
    inputs = inspect.signature(type(module).forward).bind(module, *args, **kwargs).arguments
    return not layout.only_fills(inputs)
