"""Training-free caching of diffusion models: Spectrum and its rivals on one hook interface."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spectrum.errors import SpectrumError
    from spectrum.library import Accelerated, accelerate, restore
    from spectrum.method import Method, Plan, Site, Space, plan_method

__version__ = "0.1.0"
__all__ = [
    "Accelerated", "Method", "Plan", "Site", "Space", "SpectrumError", "accelerate", "plan_method", "restore",
]  # fmt: skip

_HOMES = {"Accelerated": "library", "accelerate": "library", "restore": "library", "SpectrumError": "errors"}


def __getattr__(name: str) -> Any:
    """Import the library's parts when they are asked for: tables and figures need none of them, nor torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"spectrum.{_HOMES.get(name, 'method')}"), name)
