"""Training-free caching of diffusion models: Spectrum and its rivals on one hook interface."""

from spectrum.accelerate import Accelerated, accelerate, restore
from spectrum.errors import SpectrumError
from spectrum.method import Method, Plan, Site, Space, plan_method

__version__ = "0.1.0"
__all__ = [
    "Accelerated", "Method", "Plan", "Site", "Space", "SpectrumError", "accelerate", "plan_method", "restore",
]  # fmt: skip
