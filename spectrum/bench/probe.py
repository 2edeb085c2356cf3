"""What the hook does on toys of denoiser classes: the layout it finds, its proof at every step, each kind of method.

A toy's forward is called at a few steps with other latents, as a sampler would. Nothing is registered for it.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from spectrum.core.errors import SpectrumError
from spectrum.core.forecast import reuse
from spectrum.core.method import Method, Site, Space
from spectrum.core.schedule import explicit
from spectrum.hooks.block_stand_ins import blocks_named
from spectrum.hooks.exit_site import ExitSite
from spectrum.hooks.hook import CacheHook
from spectrum.hooks.layout import Denoiser
from spectrum.hooks.private_api import count_of_hooks
from spectrum.hooks.proof import calls_of, difference, fault
from spectrum.hooks.step import DenoiserCall
from spectrum.hooks.tensors import tensors_in
from spectrum.models.toys import STEPS, Toy

RUNS = (0, 1, 4)
TOLERANCE = 1e-4
KINDS: Mapping[str, Mapping[str, Any]] = {
    "exit": {},
    "residual": {"space": Space.residual},
    "front blocks": {"space": Space.residual, "front_blocks": 1},
    "modules": {"site": Site.modules},
    "output": {"site": Site.output},
}
"""The kinds of method, by what they set: where they store, and what."""


@dataclass
class Finding:
    """What was found on one toy.

    Attributes:
        toy: its name.
        cls: its class.
        layout: the layout that was derived; None if there is none.
        by_block: whether each block has a stand-in of its own, for a forward that does not iterate its lists.
        outcomes: by kind of method `works`, or why it was refused, or what went wrong, which begins with `WRONG`.
    """

    toy: str
    cls: str
    layout: Denoiser | None = None
    by_block: bool = False
    outcomes: dict[str, str] = field(default_factory=dict)

    @property
    def proved(self) -> bool:
        """Whether methods that store at the exit work."""
        return self.outcomes["exit"] == "works"

    @property
    def wrong(self) -> bool:
        """Whether anything was wrong and not refused."""
        return any(outcome.startswith("WRONG") for outcome in self.outcomes.values())


def probe(toy: Toy) -> Finding:
    """Put each kind of method on a toy.

    At run steps all outputs must be those of the denoiser alone, bit for bit; at skipped steps no block may be called;
    afterwards the denoiser must be as it was. For methods at the exit, the features of every step put back must give
    that step's outputs.

    Args:
        toy: the toy.

    Returns:
        What was found; what is refused is an outcome, not an error.
    """
    return probe_model(toy, toy.build())


def probe_model(toy: Toy, model: nn.Module) -> Finding:
    """`probe` of a toy whose model is given: with its weights quantised, its projections fused.

    Args:
        toy: the toy, for what its forward is given.
        model: the denoiser.
    """
    found = Finding(toy.name, toy.cls)
    with torch.no_grad():
        plain = [model(**toy.call(step)) for step in range(STEPS)]
        before = denoiser_state(model)
        for kind, settings in KINDS.items():
            try:
                found.outcomes[kind] = _outcome(toy, model, plain, settings, found)
            except SpectrumError as error:
                found.outcomes[kind] = str(error)
            except Exception as error:  # a traceback from inside is what must not be
                found.outcomes[kind] = f"WRONG: {type(error).__name__}: {error}"
            if denoiser_state(model) != before or difference(plain[0], model(**toy.call(0))) is not None:
                found.outcomes[kind] = "WRONG: the denoiser is not as it was when the method was taken off"
    return found


def _outcome(toy: Toy, model: nn.Module, plain: list[Any], settings: Mapping[str, Any], found: Finding) -> str:
    """`works`, or what was wrong with one kind of method."""
    schedule = functools.partial(explicit, run_steps=list(RUNS))
    method = Method(name="probe", forecast=reuse, schedule=schedule, **settings)
    with _hooked(model, method) as (hook, scheduler):
        for scheduler.step_index in range(STEPS):
            ran = scheduler.step_index in RUNS
            with calls_of(_blocks(model, hook, method)) as called:
                output = model(**toy.call(scheduler.step_index))
            off = difference(plain[scheduler.step_index], output) if ran else None
            if off is not None:
                return f"WRONG: at run step {scheduler.step_index}, {off}"
            if called and not ran:
                return f"WRONG: at skipped step {scheduler.step_index} {called[0]} is called"
        layout = hook.layout
    off = _off_with_same_inputs(toy, model, method)
    if off > TOLERANCE:
        return f"WRONG: a skipped step with the inputs of the run step before is off by {off:.2g}"
    if method.site is Site.exit and method.space is Space.feature and layout is not None:
        found.layout = layout
        return _proof_at_every_step(toy, model, layout, method, found)
    return "works"


def _off_with_same_inputs(toy: Toy, model: nn.Module, method: Method) -> float:
    """How far a skipped step is off that is given what the run step before was given: reuse makes it the same.

    The largest difference over the outputs, relative to the largest number in the output.
    """
    with _hooked(model, method) as (_, scheduler):
        outputs = []
        for scheduler.step_index in range(3):
            outputs.append([tensor for _, tensor in tensors_in([model(**toy.call(0))])])
    pairs = zip(outputs[1], outputs[2], strict=True)
    return max(((a - b).abs().max() / a.abs().max().clamp(min=1e-12)).item() for a, b in pairs if a.numel())


@contextmanager
def _hooked(model: nn.Module, method: Method) -> Iterator[tuple[CacheHook, Any]]:
    """A method on a denoiser, with a scheduler whose step is set by hand."""
    sigmas = torch.linspace(1, 1 / STEPS, STEPS)
    config = SimpleNamespace(num_train_timesteps=1000)
    scheduler = SimpleNamespace(timesteps=1000 * sigmas, sigmas=sigmas, step_index=0, begin_index=None, config=config)
    hook = CacheHook(model, None, lambda: scheduler, method)
    try:
        yield hook, scheduler
    finally:
        hook.remove()


def _blocks(model: nn.Module, hook: CacheHook, method: Method) -> dict[str, nn.Module]:
    """The blocks that no skipped step may call; none where the method runs them."""
    if method.site is Site.output:
        return dict(model.named_children())
    if hook.layout is None or method.site is Site.modules or method.front_blocks:
        return {}
    return blocks_named(model, (*hook.layout.stacks, *hook.layout.feeders))


def _proof_at_every_step(toy: Toy, model: nn.Module, layout: Denoiser, method: Method, found: Finding) -> str:
    site = ExitSite(model, layout, method)
    try:
        for by_block in (False, True):
            if by_block:
                site.stand_in_by_block()
            said = [_step_fault(site, model, layout, toy, step) for step in range(STEPS)]
            if not any(said):
                found.by_block = by_block
                return "works"
        return next(f"WRONG: at step {step}, {what}" for step, what in enumerate(said) if what)
    finally:
        site.remove()


def _step_fault(site: ExitSite, model: nn.Module, layout: Denoiser, toy: Toy, step: int) -> str | None:
    inputs = toy.call(step)
    call = DenoiserCall(model.forward, model.forward, (), inputs, inputs)
    return fault(site, model, layout, call.copied(), site.run_blocks(call.copied()))


def denoiser_state(model: nn.Module) -> list[tuple[str, Callable[..., Any] | None, int]]:
    """What a hook could leave behind: modules, own forwards, hooks."""
    return [(name, vars(part).get("forward"), count_of_hooks(part)) for name, part in model.named_modules()]
