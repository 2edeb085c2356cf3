"""Denoisers that accelerate offloads to the CPU between calls."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from spectrum.hooks.private_api import OFFLOADED_FORWARD


@contextmanager
def beneath_offload(module: nn.Module) -> Iterator[None]:
    """Within this context `module.forward` is the forward below accelerate's offload wrapper, and may be replaced.

    `pipe.enable_model_cpu_offload()` takes its wrapper off at the end of each call and puts a new one on; a hook that
    lay on top of it would go with it.
    """
    wrapper = module.__dict__.get("forward") if OFFLOADED_FORWARD in module.__dict__ else None
    if wrapper is None:
        yield
        return
    module.forward = getattr(module, OFFLOADED_FORWARD)
    try:
        yield
    finally:
        setattr(module, OFFLOADED_FORWARD, module.forward)
        module.forward = wrapper
