"""The only file that touches diffusers' private hook API and its cache contexts."""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from diffusers.hooks._common import _ALL_TRANSFORMER_BLOCK_IDENTIFIERS as STACK_NAMES
from diffusers.hooks._common import _ATTENTION_CLASSES, _FEEDFORWARD_CLASSES
from diffusers.hooks._helpers import TransformerBlockRegistry
from diffusers.hooks.hooks import HookRegistry, ModelHook, StateManager
from torch import Tensor, nn

from spectrum.errors import refuse

HOOK_NAME = "spectrum"
_PART = re.compile(r"(self_|cross_)?(attn|attention)\d*|(img_|txt_)?(mlp|ff|ffn|feed_forward)(_context)?")

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


def attach(module: nn.Module, around: Around, on_reset: Callable[[], None]) -> Callable[..., Any]:
    """Route every call of `module` through `around`; `on_reset` is called when a pipeline ends its call.

    `around` gets the forward it replaces, the name of the CFG branch if the pipeline gives one, and the arguments.
    Returns that forward, for calls of it beside those of the pipeline. Raises `SpectrumError` if a method is attached
    already.
    """
    fresh = not hasattr(module, "_diffusers_hook")
    registry = HookRegistry.check_if_exists_or_initialize(module)
    if registry.get_hook(HOOK_NAME) is not None:
        refuse("a caching method is on this pipeline already: call restore(pipe) before you put another on it")
    hook = _RootHook(around, on_reset, fresh)
    registry.register_hook(hook, HOOK_NAME)
    return lambda *args, **kwargs: hook.fn_ref.original_forward(*args, **kwargs)  # pyright: ignore[reportOptionalCall]


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


class _Gate(nn.ModuleList):
    """A stack that gives its first `front` blocks, and then, if `ask` says so, the others.

    All of them can still be counted and looked up: Chroma shares out its modulation by their number, DiT reads an
    embedding of its first block.
    """

    def __init__(self, stack: nn.ModuleList, front: int, ask: Callable[[], bool]) -> None:
        super().__init__()
        self._modules, self._front, self._ask = stack._modules, front, ask

    def __iter__(self) -> Iterator[nn.Module]:
        blocks = list(self._modules.values())
        yield from blocks[: self._front]
        if self._ask():
            yield from blocks[self._front :]  # pyright: ignore[reportReturnType]

    def __len__(self) -> int:
        return len(self._modules)

    def __getitem__(self, index: Any) -> Any:
        return list(self._modules.values())[index]


@contextmanager
def gated(module: nn.Module, stacks: tuple[str, ...], front: int, ask: Callable[[], bool]) -> Iterator[None]:
    """Let the first `front` blocks of the first stack run, and the others if `ask`, once these have, says so."""
    aside = {name: module._modules[name] for name in stacks}
    try:
        for number, (name, stack) in enumerate(aside.items()):
            if isinstance(stack, nn.ModuleList):
                module._modules[name] = _Gate(stack, 0 if number else front, ask)
            elif front:
                refuse(
                    f"{type(module).__name__}.{name} is a single block, so no front of it can run: leave method.front=0"
                )
            else:
                module._modules[name] = None
        yield
    finally:
        module._modules.update(aside)


def emptied(module: nn.Module, stacks: tuple[str, ...]) -> AbstractContextManager[None]:
    """Put the block stacks of a denoiser aside: a list that gives no block for a list, None for a single block."""
    return gated(module, stacks, 0, lambda: False)


class _Opened(nn.ModuleList):
    """A stack whose first block is entered without being called, and which has no other."""

    def __init__(self, stack: nn.ModuleList) -> None:
        super().__init__()
        self._modules = stack._modules

    def __iter__(self) -> Iterator[nn.Module]:
        first = next(iter(self._modules.values()))
        yield lambda *args, **kwargs: first.forward(*args, **kwargs)  # pyright: ignore[reportReturnType, reportOptionalMemberAccess]


@contextmanager
def peeking(module: nn.Module, stacks: tuple[str, ...]) -> Iterator[None]:
    """Let the forward go as far as into the first block, for what is found out there before anything runs."""
    stack = module._modules[stacks[0]]
    assert isinstance(stack, nn.ModuleList)
    module._modules[stacks[0]] = _Opened(stack)
    try:
        yield
    finally:
        module._modules[stacks[0]] = stack


def first_parts(module: nn.Module, stacks: tuple[str, ...]) -> list[nn.Module]:
    """The attentions and MLPs in the first block of the first stack."""
    stored, idle = site_modules(module, stacks)
    return [part for name, part in (stored | idle).items() if name.startswith(f"{stacks[0]}.0.")]


def hidden_output(block: nn.Module, output: Any, like: Tensor) -> Tensor:
    """The hidden states among what a block returns: by diffusers' own registry, else the only tensor shaped `like`."""
    if isinstance(output, Tensor):
        return output
    try:
        index = TransformerBlockRegistry.get(type(block)).return_hidden_states_index
    except ValueError:
        index = None
    if index is not None:
        return output[index]
    found = [part for part in output if isinstance(part, Tensor) and part.shape == like.shape]
    if len(found) != 1:
        refuse(f"it cannot be told which output of {type(block).__name__} are the hidden states: leave method.front=0")
    return found[0]


def site_modules(module: nn.Module, stacks: tuple[str, ...]) -> tuple[dict[str, nn.Module], dict[str, nn.Module]]:
    """The attentions and MLPs in the blocks, by name: those whose output is stored, and those that only feed one.

    A block that projects attention and MLP together (`proj_mlp` and `proj_out` beside `attn`, as FLUX's single-stream
    blocks do) is stored at that projection, and what feeds it is idle at a skipped step.
    """
    stored: dict[str, nn.Module] = {}
    idle: dict[str, nn.Module] = {}
    for name, part in module.named_modules():
        if not name.startswith(stacks) or any(f"{name}.".startswith(f"{other}.") for other in (*stored, *idle)):
            continue
        if {"proj_mlp", "proj_out"} <= part._modules.keys():
            stored[f"{name}.proj_out"] = part.get_submodule("proj_out")
            idle |= {f"{name}.{child}": part.get_submodule(child) for child in ("attn", "proj_mlp")}
        elif isinstance(part, (*_ATTENTION_CLASSES, *_FEEDFORWARD_CLASSES)) or _PART.fullmatch(name.rpartition(".")[2]):
            stored[name] = part  # pyright: ignore[reportArgumentType]
    return stored, idle
