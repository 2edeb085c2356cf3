"""Every private name of diffusers, accelerate and torch that the project uses, in one place.

Nothing else imports or reads a name with a leading underscore from another package. tests/test_private_api.py checks
each of them by name, so that a release that moves one is found by its sentence and not by a traceback from inside.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.hooks._common import (
    _ALL_TRANSFORMER_BLOCK_IDENTIFIERS,
    _ATTENTION_CLASSES,
    _FEEDFORWARD_CLASSES,
)
from diffusers.hooks._helpers import TransformerBlockRegistry
from diffusers.hooks.hooks import HookRegistry, ModelHook, StateManager
from torch import nn
from torch._dynamo import OptimizedModule
from torch.nn.attention import flex_attention
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = [
    "DispatchMode",
    "HookRegistry",
    "StateManager",
    "StatefulHook",
    "block_output_index",
    "branch_name",
    "compiled_call",
    "context_parallel_config",
    "count_of_hooks",
    "execution_device",
    "hook_names",
    "kept_in_float32",
    "offloads_in_groups",
    "share_submodules",
    "stack_names",
    "submodules",
    "uncompiled",
    "uncompiled_attention",
]

REGISTRY_ATTRIBUTE = "_diffusers_hook"
"""Where diffusers' `HookRegistry` puts itself on a module."""
COMPILED_CALL = "_compiled_call_impl"
"""Where `nn.Module.compile` puts the compiled call."""
BLOCKS = "_blocks"
"""Where a modular pipeline keeps its blocks."""
OFFLOADED_FORWARD = "_old_forward"
"""Where accelerate's offload keeps the forward that it wrapped."""

stack_names: tuple[str, ...] = tuple(_ALL_TRANSFORMER_BLOCK_IDENTIFIERS)
attention_classes: tuple[type, ...] = tuple(_ATTENTION_CLASSES)
feedforward_classes: tuple[type, ...] = tuple(_FEEDFORWARD_CLASSES)


class StatefulHook(ModelHook):
    """A hook whose `reset_state` diffusers calls when a pipeline's call has ended."""

    _is_stateful = True


def branch_name(manager: StateManager) -> str | None:
    """The name of diffusers' current cache context, which pipelines set for each CFG branch; None outside of one."""
    context = manager._context
    return None if context is None else context.name


def block_output_index(block_class: type) -> int | None:
    """Which output of a block holds the hidden states; None for a block that diffusers does not know."""
    try:
        return TransformerBlockRegistry.get(block_class).return_hidden_states_index
    except ValueError:
        return None


def submodules(module: nn.Module) -> dict[str, nn.Module | None]:
    """The direct submodules of a module by name: torch's own table, so that a change to it changes the module."""
    return module._modules


def hook_names(module: nn.Module) -> list[str]:
    """The names of the hooks that diffusers' registry holds on a module."""
    registry = getattr(module, REGISTRY_ATTRIBUTE, None)
    return [] if registry is None else list(registry.hooks)


def count_of_hooks(module: nn.Module) -> int:
    """How many torch hooks are on a module's forward."""
    return len(module._forward_pre_hooks) + len(module._forward_hooks)


def share_submodules(module: nn.Module, other: nn.Module) -> None:
    """Give a module the very table of submodules of another, which does not become part of it."""
    module._modules = other._modules


def uncompiled(module: nn.Module) -> nn.Module:
    """The module that `torch.compile` wrapped, or the module itself."""
    return module._orig_mod if isinstance(module, OptimizedModule) else module


@contextmanager
def uncompiled_attention() -> Iterator[None]:
    """A context in which flex attention, which compiles itself when it is called, runs as it is written."""
    before = flex_attention._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG
    flex_attention._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG = True
    try:
        yield
    finally:
        flex_attention._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG = before


class DispatchMode(TorchDispatchMode):
    """A mode that sees every operation, higher-order ones too."""

    supports_higher_order_operators = True


def storage_id(storage: Any) -> int:
    """What tells a storage from every other; a `StorageWeakRef` keeps it from being given to another one."""
    return storage._cdata


def written_arguments(operation: Any) -> list[tuple[int, str]]:
    """The arguments that an operation writes to, each by number and name; higher-order operators have no schema."""
    if not isinstance(operation, torch._ops.OpOverload):
        return []
    arguments = enumerate(operation._schema.arguments)
    return [(n, a.name) for n, a in arguments if a.alias_info is not None and a.alias_info.is_write]


def compiled_call(module: nn.Module) -> Any:
    """What `module.compile()` made of its call; None for a module that was not compiled so."""
    return getattr(module, COMPILED_CALL)


def context_parallel_config(module: nn.Module) -> Any:
    """How a denoiser's tokens are split over ranks; None for one that is not split."""
    return getattr(getattr(module, "_parallel_config", None), "context_parallel_config", None)


def is_sharded(value: Any) -> bool:
    """Whether a tensor is one rank's part of one, as tensor parallelism makes them inside a module that it splits."""
    return type(value).__name__ == "DTensor"


def execution_device(pipe: Any) -> torch.device:
    """The device that a pipeline computes on, also while its modules are offloaded."""
    return pipe._execution_device


def kept_in_float32(module: nn.Module) -> set[str]:
    """The parts of a model that diffusers loads in float32 whatever the dtype."""
    return set(getattr(module, "_keep_in_fp32_modules", None) or ())


def offloads_in_groups(module: nn.Module) -> bool:
    """Whether diffusers can offload a network in groups; it says so of its own, and takes all others."""
    return bool(getattr(module, "_supports_group_offloading", True))
