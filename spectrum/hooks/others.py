"""What others do to a hooked denoiser: other caches, and modules that are replaced."""

import itertools
import operator
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from spectrum.core.errors import refuse
from spectrum.hooks.private_api import REGISTRY_ATTRIBUTE, hook_names

_CACHE = re.compile("cache|broadcast|taylorseer|fbc_|block_hook|denoiser_hook")
"""What the names of diffusers' hooks that cache have in common."""
_SAME = re.compile("^spectrum$|offloading|layer_execution_tracker|layerwise_casting|autocast|^cp_")
"""What those have in common that leave what a module computes as it is."""
_READ = {
    "AttendExciteAttnProcessor", "CrossAttnStoreProcessor", "LEDITSCrossAttnProcessor", "Pix2PixZeroAttnProcessor",
}  # fmt: skip
"""The attention processors of diffusers whose maps a pipeline reads."""


def refuse_other_cache(model: Any, method: str) -> None:
    """Refuse a denoiser on which one of diffusers' own caches is enabled: each would see the other's skipped steps.

    Args:
        model: the denoiser.
        method: the name of the method that is put on it.

    Raises:
        SpectrumError: if `model.enable_cache(...)` was called, or a function of diffusers that applies a cache.
    """
    found = {name for part in model.modules() for name in hook_names(part) if _CACHE.search(name)}
    if getattr(model, "is_cache_enabled", False) or found:
        refuse(
            f"a cache of diffusers is enabled on {type(model).__name__}, and {method} cannot work beside it: call "
            "disable_cache() on the denoiser first"
        )


class LayerHooks:
    """The hooks of diffusers that change what parts of a denoiser compute.

    A guider puts them on for one call: skip-layer guidance, perturbed attention, a weaker model of fewer layers.
    Nothing in that call's arguments tells it from the others.

    Args:
        model: the denoiser. What is on it now stays on it.
    """

    def __init__(self, model: nn.Module) -> None:
        self._parts = [vars(part) for part in model.modules()]
        self._before = self.on()

    def on(self) -> tuple[tuple[int, str], ...]:
        """Those that are on now, each by the number of its part and its name."""
        has_hooks = map(operator.contains, self._parts, itertools.repeat(REGISTRY_ATTRIBUTE))
        with_hooks = itertools.compress(itertools.count(), has_hooks)
        names = ((n, name) for n in with_hooks for name in self._parts[n][REGISTRY_ATTRIBUTE].hooks)
        return tuple((n, name) for n, name in names if not _SAME.search(name))

    def take_off(self) -> None:
        """Take off those that were put on since. After an error no guider does, and its next call would fail."""
        for number, name in set(self.on()) - set(self._before):
            self._parts[number][REGISTRY_ATTRIBUTE].remove_hook(name, recurse=False)


def refuse_readers(model: nn.Module, latents: Tensor) -> None:
    """Refuse a denoiser inside of which its pipeline reads: at a skipped step nothing is there, or what is old.

    Args:
        model: the denoiser.
        latents: what it is called with.

    Raises:
        SpectrumError: if its attention maps are kept for the pipeline, or gradients are taken through it.
    """
    processors = {type(getattr(part, "processor", None)).__name__ for part in model.modules()}
    reader = next(iter(sorted(processors & _READ)), None)
    if reader is not None:
        refuse(
            f"the pipeline reads the attention maps that {reader} keeps in {type(model).__name__}, and a skipped step "
            "leaves none: call restore(pipe)"
        )
    if latents.requires_grad and latents.is_leaf and torch.is_grad_enabled():  # in a plain loop they are no leaf
        refuse(
            f"gradients are taken through {type(model).__name__} to its latents, and a skipped step has none: call "
            "restore(pipe)"
        )


def is_replaced(model: nn.Module, modules: Mapping[str, nn.Module]) -> bool:
    """Whether a module of a denoiser is another one than it was.

    Args:
        model: the denoiser.
        modules: what its modules were, by name.
    """
    return any(_module(model, name) is not module for name, module in modules.items())


def _module(model: nn.Module, name: str) -> nn.Module | None:
    try:
        return model.get_submodule(name)
    except AttributeError:
        return None


def same_random_numbers(device: torch.device) -> AbstractContextManager[None]:
    """A context after which the global generators are as they were before: forwards that draw go on as without it."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])
