"""The denoisers of a pipeline, and the hooks that put a method on them."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from spectrum.core.errors import refuse
from spectrum.core.method import Method
from spectrum.hooks.hook import CacheHook
from spectrum.hooks.layout import Denoiser
from spectrum.hooks.private_api import uncompiled
from spectrum.models.layouts import registered_layout

H = TypeVar("H", bound=CacheHook)


def denoisers_as_called(pipe: Any) -> list[Any]:
    """The denoiser modules as the pipeline calls them, also as `torch.compile` returned them: its transformers or UNet.

    Raises:
        SpectrumError: if it has none.
    """
    found = [getattr(pipe, name, None) for name in ("transformer", "transformer_2", "unet")]
    models = [model for model in found if model is not None]
    if not models:
        refuse(f"{type(pipe).__name__} has no transformer or unet to put a caching method on")
    return models


def attached(
    pipe: Any, method: Method, make: Callable[..., H], denoiser: Denoiser | None = None, **options: Any
) -> list[H]:
    """Put a method on every denoiser of a pipeline.

    Args:
        pipe: a diffusers pipeline.
        method: the method.
        make: makes a hook: `CacheHook`, or a class like it.
        denoiser: the layout to use; without it the registered one, or else what a traced forward shows.
        **options: further arguments of `make`.

    Returns:
        A hook for each denoiser; when one begins a trajectory, the others free what they stored.

    Raises:
        SpectrumError: if the method cannot serve a denoiser, or one is on it already; none is left on it then.
    """
    hooks: list[H] = []
    try:
        for model in denoisers_as_called(pipe):
            layout = denoiser or registered_layout(uncompiled(model))
            hooks.append(make(model, layout, lambda: pipe.scheduler, method, **options))
    except BaseException:
        for hook in hooks:
            hook.remove()
        raise
    for hook in hooks:
        hook.on_start = functools.partial(_free, [other for other in hooks if other is not hook])
    return hooks


def _free(hooks: list[H]) -> None:
    for hook in hooks:
        hook.reset()
