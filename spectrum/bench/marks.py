"""Marks what a call of a hooked pipeline spends its time on: blocks, other modules, forecast, hook, scheduler, loop."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from spectrum.api import Accelerated
from spectrum.bench.watch import Watch
from spectrum.hooks.block_stand_ins import blocks_named
from spectrum.hooks.discovery import block_stacks
from spectrum.hooks.layout import Denoiser
from spectrum.hooks.private_api import REGISTRY_ATTRIBUTE, stack_names
from spectrum.hooks.registry import HOOK_NAME
from spectrum.hooks.replaced import replaced
from spectrum.hooks.site import Step
from spectrum.models.layouts import DENOISERS, registered_layout

FIRST = {"blocks": "blocks"}
"""The label of the blocks, with what people read."""
REST = {
    "forward": "denoiser, its own code",
    "forecast": "forecast",
    "decision": "deciding",
    "store": "storing",
    "denoiser": "hook, the rest",
    "scheduler": "scheduler",
    "loop": "pipeline's loop",
}
"""The labels of what is no module of the denoiser, in the order of a table, with what people read."""
UNET = DENOISERS["UNet2DConditionModel"].stacks
WHOLE = ("decision",)
"""Labels whose time is not taken apart: a method that reads a signal runs modules of the denoiser for it."""


def stacks_of(model: nn.Module, layout: Denoiser | None = None) -> tuple[str, ...]:
    """The names of a denoiser's block lists.

    Args:
        model: the denoiser.
        layout: the layout that is in force; None where the method needs none.

    Returns:
        Those of the layout, of the registered family, of a UNet, or those that diffusers knows; empty where nobody
        knows.
    """
    known = layout or registered_layout(model)
    if known is not None and known.stacks:
        return known.stacks
    children = [name for name, _ in model.named_children()]
    if set(UNET) <= set(children):
        return UNET
    return block_stacks(model) if any(name in stack_names for name in children) else ()


def parts_of(model: nn.Module, stacks: Sequence[str]) -> dict[str, nn.Module]:
    """What is marked in a denoiser: every block, and the outermost modules outside of the block lists.

    Args:
        model: the denoiser.
        stacks: names of its block lists.

    Returns:
        The modules; the first word of a name is the label: `blocks`, or the name of a child of the denoiser.
    """
    found: dict[str, nn.Module] = {f"blocks {name}": block for name, block in blocks_named(model, stacks).items()}
    for name, module in _outside(model, stacks):
        child = name.partition(".")[0]
        found[f"{child}_ {name}" if child in {**FIRST, **REST} else f"{child} {name}"] = module
    return found


def _outside(module: nn.Module, stacks: Sequence[str], owner: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The outermost modules, by name, that are no stack, hold none, and are no list."""
    for key, child in module.named_children():
        name = owner + key
        if name in stacks:
            continue
        if isinstance(child, (nn.ModuleList, nn.ModuleDict)) or any(s.startswith(f"{name}.") for s in stacks):
            yield from _outside(child, stacks, f"{name}.")
        else:
            yield name, child


class Marks:
    """The marks on a pipeline with a method.

    Args:
        handle: the pipeline, whose layout an earlier call has proved: modules with a hook of torch on them are left to
            run at skipped steps when the proof looks for those that need not.

    Attributes:
        parts: the modules that a `Watch` is to mark.
        went: by step what each call of a denoiser was: True where its blocks ran.
    """

    def __init__(self, handle: Accelerated) -> None:
        self._hooks = handle.hooks
        self.went: dict[int, list[bool]] = defaultdict(list)
        self.parts: dict[str, nn.Module] = {}
        for number, hook in enumerate(self._hooks):
            stacks = stacks_of(hook.model, hook.layout)
            self.parts |= {f"{name} {number}": part for name, part in parts_of(hook.model, stacks).items()}

    @contextmanager
    def on(self, watch: Watch) -> Iterator[None]:
        """Mark what the hook does, for a watch that is on, until the `with` block ends. Nothing is left behind."""
        with ExitStack() as stack:
            for hook in self._hooks:
                root = getattr(hook.model, REGISTRY_ATTRIBUTE).get_hook(HOOK_NAME)
                stack.enter_context(replaced(root.fn_ref, "original_forward", _marking(watch, "forward")))
                stack.enter_context(replaced(hook, "store", _marking(watch, "store")))
                stack.enter_context(replaced(hook, "step_of", self._telling(watch)))
            yield

    def _telling(self, watch: Watch) -> Any:
        return lambda step_of, *args, **kwargs: _MarkedStep(step_of(*args, **kwargs), watch, self.went)

    def kind(self, step: int) -> str:
        """`run`, `skipped`, or `mixed` where of several denoiser calls some ran their blocks and some did not."""
        went = set(self.went[step])
        return "mixed" if len(went) > 1 else "skipped" if went == {False} else "run"


class _MarkedStep:
    """A step that marks the time of its decision and of its forecasts, and tells what it decided."""

    def __init__(self, step: Step, watch: Watch, went: dict[int, list[bool]]) -> None:
        self._step, self._watch, self._went = step, watch, went

    def runs(self, front_residual: Tensor | None = None) -> bool:
        with self._watch.marked("decision"):
            go = self._step.runs(front_residual)
        self._went[self._watch.step].append(go)
        return go

    def skipping(self) -> Tensor | None:
        return self._step.skipping()

    def forecast(self, slot: str) -> Tensor:
        with self._watch.marked("forecast"):
            return self._step.forecast(slot)


def _marking(watch: Watch, label: str) -> Any:
    """A function around another that marks its time."""

    def around(original: Any, *args: Any, **kwargs: Any) -> Any:
        with watch.marked(label):
            return original(*args, **kwargs)

    return around
