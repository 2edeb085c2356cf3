"""The only file that touches diffusers' private hook API and its cache contexts."""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from diffusers.hooks._common import _ALL_TRANSFORMER_BLOCK_IDENTIFIERS as STACK_NAMES
from diffusers.hooks._common import _ATTENTION_CLASSES, _FEEDFORWARD_CLASSES
from diffusers.hooks._helpers import TransformerBlockRegistry
from diffusers.hooks.hooks import HookRegistry, ModelHook, StateManager
from torch import Tensor, nn
from torch._dynamo import OptimizedModule

from spectrum.errors import refuse

HOOK_NAME = "spectrum"
_PART = re.compile(r"(self_|cross_)?(attn|attention)\d*|(img_|txt_)?(mlp|ff|ffn|feed_forward)(_context)?")

Around = Callable[[Callable[..., Any], str | None, tuple[Any, ...], dict[str, Any]], Any]


class _NoState:
    def reset(self) -> None:
        """Nothing: the state lives in the hook that is served."""


class _RootHook(ModelHook):
    """Calls `around(forward, branch name, args, kwargs)` in the place of a denoiser's forward.

    Of a denoiser that is compiled whole it takes the place of the compiled call, so that what `around` does stays
    outside of what is traced.
    """

    _is_stateful = True

    def __init__(self, around: Around, on_reset: Callable[[], None], made_registry: bool) -> None:
        super().__init__()
        self._around, self._on_reset, self.made_registry = around, on_reset, made_registry
        self.manager = StateManager(_NoState)  # pyright: ignore[reportArgumentType]
        self._inside = False
        self._slot: tuple[nn.Module, str, Any] | None = None

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if self._inside:
            return self.fn_ref.original_forward(*args, **kwargs)  # pyright: ignore[reportOptionalCall]
        if torch.compiler.is_compiling():
            torch.compiler.disable(_refuse_compiled_later)()  # pyright: ignore[reportCallIssue]
        return self._call(self.fn_ref.original_forward, args, kwargs)

    def _call(self, forward: Any, args: Any, kwargs: Any) -> Any:
        context = self.manager._context
        return self._around(forward, None if context is None else context.name, args, kwargs)

    def wrap(self, owner: nn.Module, name: str) -> None:
        """Take the place of a compiled call, the attribute `name` of `owner`."""
        compiled = getattr(owner, name)
        self._slot = (owner, name, compiled)

        def through(*args: Any, **kwargs: Any) -> Any:
            self._inside = True
            try:
                return compiled(*args, **kwargs)
            finally:
                self._inside = False

        setattr(owner, name, lambda *args, **kwargs: self._call(through, args, kwargs))

    def unwrap(self) -> None:
        """Give the compiled call its place back."""
        if self._slot is not None:
            setattr(*self._slot)

    def reset_state(self, module: nn.Module) -> nn.Module:
        self._on_reset()
        return module


def _refuse_compiled_later() -> None:
    refuse(
        "the denoiser was compiled whole after a method was put on it: restore(pipe), compile, and put it on again; or "
        "compile its blocks alone, pipe.transformer.compile_repeated_blocks()"
    )


def uncompiled(module: nn.Module) -> nn.Module:
    """The module that `torch.compile` wrapped, or the module itself."""
    return module._orig_mod if isinstance(module, OptimizedModule) else module


def compiled_whole(module: nn.Module) -> bool:
    """Whether a denoiser was compiled as a whole, by `torch.compile(module)` or `module.compile()`."""
    return isinstance(module, OptimizedModule) or module._compiled_call_impl is not None


@contextmanager
def _beneath_offload(module: nn.Module) -> Iterator[None]:
    """Change the forward below the wrapper that accelerate's offload puts around it.

    A pipeline that offloads takes that wrapper off at the end of each call, with all that lies on top of it.
    """
    wrapper = module.__dict__.get("forward") if "_old_forward" in module.__dict__ else None
    if wrapper is None:
        yield
        return
    module.forward = module._old_forward  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        module._old_forward = module.forward  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
        module.forward = wrapper


def attach(module: nn.Module, around: Around, on_reset: Callable[[], None]) -> Callable[..., Any]:
    """Route every call of `module` through `around`; `on_reset` is called when a pipeline ends its call.

    `around` gets the forward it replaces, the name of the CFG branch if the pipeline gives one, and the arguments.
    Returns that forward uncompiled, for calls of it beside those of the pipeline. Raises `SpectrumError` if a method is
    attached already.
    """
    root = uncompiled(module)
    fresh = not hasattr(root, "_diffusers_hook")
    registry = HookRegistry.check_if_exists_or_initialize(root)
    if registry.get_hook(HOOK_NAME) is not None:
        refuse("a caching method is on this pipeline already: call restore(pipe) before you put another on it")
    hook = _RootHook(around, on_reset, fresh)
    with _beneath_offload(root):
        registry.register_hook(hook, HOOK_NAME)
    if root is not module:
        hook.wrap(module, "forward")
    elif root._compiled_call_impl is not None:
        hook.wrap(root, "_compiled_call_impl")
    return lambda *args, **kwargs: hook.fn_ref.original_forward(*args, **kwargs)  # pyright: ignore[reportOptionalCall]


def detach(module: nn.Module) -> None:
    """Undo `attach`: same forward, no instance attribute left over. Does nothing where nothing is attached."""
    module = uncompiled(module)
    registry = getattr(module, "_diffusers_hook", None)
    hook = None if registry is None else registry.get_hook(HOOK_NAME)
    if registry is None or not isinstance(hook, _RootHook):
        return
    hook.unwrap()
    with _beneath_offload(module):
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


class _Front(nn.ModuleList):
    """A stack that gives its first blocks alone when it is iterated.

    All of them can still be counted and looked up: Chroma shares out its modulation by their number, DiT reads an
    embedding of its first block.
    """

    def __init__(self, stack: nn.ModuleList, front: int = 0) -> None:
        super().__init__()
        self._modules, self._front = stack._modules, front

    def __iter__(self) -> Iterator[nn.Module]:
        yield from list(self._modules.values())[: self._front]  # pyright: ignore[reportReturnType]

    def __len__(self) -> int:
        return len(self._modules)

    def __getitem__(self, index: Any) -> Any:
        return list(self._modules.values())[index]


class _Gate(_Front):
    """One that gives the others too if `ask`, once the first ones have run, says so."""

    def __init__(self, stack: nn.ModuleList, front: int, ask: Callable[[], bool]) -> None:
        super().__init__(stack, front)
        self._ask = ask

    def __iter__(self) -> Iterator[nn.Module]:
        yield from super().__iter__()
        if self._ask():
            yield from list(self._modules.values())[self._front :]  # pyright: ignore[reportReturnType]


StandIns = dict[str, nn.Module | None]


def empty_stacks(module: nn.Module, stacks: tuple[str, ...]) -> StandIns:
    """What takes the place of the block stacks so that none runs: a list that gives none, None for a single block."""
    found = {name: module._modules[name] for name in stacks}
    return {name: _Front(stack) if isinstance(stack, nn.ModuleList) else None for name, stack in found.items()}


def gated_stacks(module: nn.Module, stacks: tuple[str, ...], front: int, ask: Callable[[], bool]) -> StandIns:
    """What lets the first `front` blocks of the first stack run, and the others if `ask`, once these have, says so."""
    found: StandIns = {}
    for number, name in enumerate(stacks):
        stack = module._modules[name]
        if not isinstance(stack, nn.ModuleList):
            refuse(f"{type(module).__name__}.{name} is a single block, so no front of it can run: leave method.front=0")
        found[name] = _Gate(stack, 0 if number else front, ask)
    return found


@contextmanager
def in_place_of(module: nn.Module, stand_ins: StandIns) -> Iterator[None]:
    """Put the stand-ins where the stacks are, until the context ends."""
    aside = {name: module._modules[name] for name in stand_ins}
    module._modules.update(stand_ins)
    try:
        yield
    finally:
        module._modules.update(aside)


class _Opened(nn.ModuleList):
    """A stack whose first block is entered without being called, and which has no other."""

    def __init__(self, stack: nn.ModuleList) -> None:
        super().__init__()
        self._modules = stack._modules

    def __iter__(self) -> Iterator[nn.Module]:
        first = next(iter(self._modules.values()))
        yield lambda *args, **kwargs: first.forward(*args, **kwargs)  # pyright: ignore[reportReturnType, reportOptionalMemberAccess]


def peeking(module: nn.Module, stacks: tuple[str, ...]) -> AbstractContextManager[None]:
    """Let the forward go as far as into the first block, for what is found out there before anything runs."""
    stack = module._modules[stacks[0]]
    assert isinstance(stack, nn.ModuleList)
    return in_place_of(module, {stacks[0]: _Opened(stack)})


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
