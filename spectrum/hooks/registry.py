"""Puts a function around a module's forward through diffusers' hook registry, and takes it off again."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from spectrum.core.errors import refuse
from spectrum.hooks.compiled import CompiledCall, compiled_whole, refuse_compiled_later
from spectrum.hooks.offload import beneath_offload
from spectrum.hooks.private_api import (
    REGISTRY_ATTRIBUTE,
    HookRegistry,
    StatefulHook,
    StateManager,
    branch_name,
    uncompiled,
)

HOOK_NAME = "spectrum"

Around = Callable[[Callable[..., Any], str | None, tuple[Any, ...], dict[str, Any]], Any]
"""`around(forward, CFG branch's name or None, args, kwargs) -> output`, called in the place of a forward."""


class _NoState:
    """What diffusers' `StateManager` wants to manage. The state lives in `CacheHook`, so there is nothing here."""

    def reset(self) -> None:
        """Do nothing."""


class _RootHook(StatefulHook):
    """The hook that diffusers' registry holds: calls `around` instead of the module's forward.

    For a fully compiled denoiser it wraps the compiled call (`compiled`), so that `around` is not traced.
    """

    def __init__(self, around: Around, on_reset: Callable[[], None], made_registry: bool) -> None:
        super().__init__()
        self._around, self._on_reset, self.made_registry = around, on_reset, made_registry
        self.manager = StateManager(_NoState)  # pyright: ignore[reportArgumentType]
        self.compiled: CompiledCall | None = None

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if self.compiled is not None and self.compiled.inside:
            return self.fn_ref.original_forward(*args, **kwargs)  # pyright: ignore[reportOptionalCall]
        if torch.compiler.is_compiling():
            torch.compiler.disable(refuse_compiled_later)()  # pyright: ignore[reportCallIssue]
        return self.call(self.fn_ref.original_forward, args, kwargs)

    def call(self, forward: Any, args: Any, kwargs: Any) -> Any:
        """Call `around` with the CFG branch that the pipeline has named."""
        return self._around(forward, branch_name(self.manager), args, kwargs)

    def reset_state(self, module: nn.Module) -> nn.Module:
        """What diffusers calls when a pipeline's call has ended."""
        self._on_reset()
        return module


Copied = Callable[[Callable[[nn.Module], Any]], Any]
"""`copied(copy) -> copy of the module`: calls `copy(module)` while nothing is attached."""

_COPYING = ("__deepcopy__", "__reduce_ex__")


def attach(
    module: nn.Module, around: Around, on_reset: Callable[[], None], copied: Copied | None = None
) -> Callable[..., Any]:
    """Call `around` instead of a module's forward.

    Args:
        module: the module, also as `torch.compile` returned it.
        around: gets the forward that it replaces, the CFG branch's name if the pipeline gives one, and the arguments.
        on_reset: called when a pipeline ends its call.
        copied: makes a deep copy, or what a pickle holds, while nothing is attached. Without it a copy would call
            `around`, and with it the original.

    Returns:
        The forward that was replaced, uncompiled.

    Raises:
        SpectrumError: if a method is attached already.
    """
    root = uncompiled(module)
    made_registry = not hasattr(root, REGISTRY_ATTRIBUTE)
    registry = HookRegistry.check_if_exists_or_initialize(root)
    if registry.get_hook(HOOK_NAME) is not None:
        refuse("a caching method is on this pipeline already: call restore(pipe) before you put another on it")
    hook = _RootHook(around, on_reset, made_registry)
    with beneath_offload(root):
        registry.register_hook(hook, HOOK_NAME)
    if copied is not None:
        root.__dict__["__deepcopy__"] = lambda memo: copied(lambda bare: copy.deepcopy(bare, memo))
        root.__dict__["__reduce_ex__"] = lambda protocol: copied(lambda bare: _reduced(bare, protocol))
    if compiled_whole(module):
        hook.compiled = CompiledCall(module, hook.call)
    return lambda *args, **kwargs: hook.fn_ref.original_forward(*args, **kwargs)  # pyright: ignore[reportOptionalCall]


def _reduced(module: nn.Module, protocol: int) -> Any:
    """What a pickle of a module holds: it is taken while nothing is attached, so the parts are copied at once."""
    function, arguments, state, *rest = module.__reduce_ex__(protocol)
    return function, arguments, copy.deepcopy(state), *rest


def detach(module: nn.Module) -> None:
    """Undo `attach`: the forward is as before and no attribute is left on the instance.

    Does nothing where nothing is attached.
    """
    module = uncompiled(module)
    registry = getattr(module, REGISTRY_ATTRIBUTE, None)
    hook = None if registry is None else registry.get_hook(HOOK_NAME)
    if registry is None or not isinstance(hook, _RootHook):
        return
    for name in _COPYING:
        module.__dict__.pop(name, None)
    if hook.compiled is not None:
        hook.compiled.remove()
    with beneath_offload(module):
        registry.remove_hook(HOOK_NAME, recurse=False)
    own = module.__dict__.get("forward")
    if getattr(own, "__func__", None) is type(module).forward:
        del module.__dict__["forward"]
    if hook.made_registry and not registry.hooks:
        del module.__dict__[REGISTRY_ATTRIBUTE]
