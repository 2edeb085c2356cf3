"""The only file that touches diffusers' private hook API and its cache contexts."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from diffusers.hooks._common import _ALL_TRANSFORMER_BLOCK_IDENTIFIERS as STACK_NAMES
from diffusers.hooks.hooks import HookRegistry, ModelHook, StateManager
from torch import nn

from spectrum.errors import refuse

HOOK_NAME = "spectrum"

Around = Callable[[Callable[..., Any], str | None, tuple[Any, ...], dict[str, Any]], Any]


class _NoState:
    def reset(self) -> None:
        """Nothing: the state lives in the hook that is served."""


class _RootHook(ModelHook):
    """Calls `around(forward, branch name, args, kwargs)` in the place of a denoiser's forward."""

    _is_stateful = True

    def __init__(self, around: Around, on_reset: Callable[[], None], made_registry: bool) -> None:
        super().__init__()
        self._around, self._on_reset, self.made_registry = around, on_reset, made_registry
        self.manager = StateManager(_NoState)  # pyright: ignore[reportArgumentType]

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        context = self.manager._context
        name = None if context is None else context.name
        return self._around(self.fn_ref.original_forward, name, args, kwargs)  # pyright: ignore[reportArgumentType]

    def reset_state(self, module: nn.Module) -> nn.Module:
        self._on_reset()
        return module


def attach(module: nn.Module, around: Around, on_reset: Callable[[], None]) -> None:
    """Route every call of `module` through `around`; `on_reset` is called when a pipeline ends its call.

    `around` gets the forward it replaces, the name of the CFG branch if the pipeline gives one, and the arguments.
    Raises `SpectrumError` if a method is attached already.
    """
    fresh = not hasattr(module, "_diffusers_hook")
    registry = HookRegistry.check_if_exists_or_initialize(module)
    if registry.get_hook(HOOK_NAME) is not None:
        refuse("a caching method is on this pipeline already: call restore(pipe) before you put another on it")
    registry.register_hook(_RootHook(around, on_reset, fresh), HOOK_NAME)


def detach(module: nn.Module) -> None:
    """Undo `attach`: same forward, no instance attribute left over. Does nothing where nothing is attached."""
    registry = getattr(module, "_diffusers_hook", None)
    hook = None if registry is None else registry.get_hook(HOOK_NAME)
    if registry is None or not isinstance(hook, _RootHook):
        return
    registry.remove_hook(HOOK_NAME, recurse=False)
    own = module.__dict__.get("forward")
    if getattr(own, "__func__", None) is type(module).forward:
        del module.__dict__["forward"]
    if hook.made_registry and not registry.hooks:
        del module.__dict__["_diffusers_hook"]


def block_stacks(module: nn.Module) -> tuple[str, ...]:
    """The lists of blocks of a denoiser by the names that diffusers' own caching hooks go by, in the order they run."""
    names = tuple(n for n, m in module.named_children() if n in STACK_NAMES and isinstance(m, nn.ModuleList))
    return names or refuse(f"{type(module).__name__} has no list of blocks that diffusers knows: name its stacks")


class _Aside(nn.ModuleList):
    """A stack in which nothing runs, though its blocks can still be looked up (DiT reads an embedding of its first)."""

    def __iter__(self) -> Iterator[nn.Module]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __getitem__(self, index: Any) -> Any:
        return list(self._modules.values())[index]


def _aside(stack: nn.ModuleList) -> nn.ModuleList:
    found = _Aside()
    found._modules = stack._modules
    return found


@contextmanager
def emptied(module: nn.Module, stacks: tuple[str, ...]) -> Iterator[None]:
    """Put the block stacks of a denoiser aside: a list that gives no block for a list, None for a single block."""
    aside = {name: module._modules[name] for name in stacks}
    try:
        for name, stack in aside.items():
            module._modules[name] = _aside(stack) if isinstance(stack, nn.ModuleList) else None
        yield
    finally:
        module._modules.update(aside)
