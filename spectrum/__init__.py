"""Training-free caching of diffusion models: Spectrum and its rivals on one hook interface.

Example:
    >>> from spectrum import Method, plan_method
    >>> from spectrum.core.forecast import reuse
    >>> from spectrum.core.schedule import fixed_interval
    >>> plan_method(Method("mine", reuse, fixed_interval), steps=12).runs
    [0, 1, 2, 6, 10]
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spectrum.api import Accelerated, accelerate, restore
    from spectrum.core.clock import Clock
    from spectrum.core.errors import SpectrumError
    from spectrum.core.method import Method, Plan, Signal, Site, Space, plan_method
    from spectrum.hooks.layout import Denoiser

__version__ = "0.1.0"
__all__ = [
    "Accelerated",
    "Clock",
    "Denoiser",
    "Method",
    "Plan",
    "Signal",
    "Site",
    "Space",
    "SpectrumError",
    "accelerate",
    "plan_method",
    "restore",
]

_HOMES = {
    "spectrum.api": ("Accelerated", "accelerate", "restore"),
    "spectrum.core.clock": ("Clock",),
    "spectrum.core.errors": ("SpectrumError",),
    "spectrum.core.method": ("Method", "Plan", "Signal", "Site", "Space", "plan_method"),
    "spectrum.hooks.layout": ("Denoiser",),
}
"""The module that each public name is defined in."""


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for, so that planning and tables do not wait for torch."""
    home = next((module for module, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(home), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
