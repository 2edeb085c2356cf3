"""What others do to a hooked denoiser: other caches, and modules that are replaced."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from spectrum.core.errors import refuse


def refuse_other_cache(model: Any, method: str) -> None:
    """Refuse a denoiser on which one of diffusers' own caches is enabled: each would see the other's skipped steps.

    Args:
        model: the denoiser.
        method: the name of the method that is put on it.

    Raises:
        SpectrumError: if `model.enable_cache(...)` was called.
    """
    if getattr(model, "is_cache_enabled", False):
        refuse(
            f"a cache of diffusers is enabled on {type(model).__name__}, and {method} cannot work beside it: call "
            "disable_cache() on the denoiser first"
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
