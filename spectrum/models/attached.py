"""The denoisers of a pipeline, and the hooks that put a method on them."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

from spectrum.core.errors import refuse
from spectrum.core.method import Method
from spectrum.hooks.hook import CacheHook
from spectrum.hooks.layout import Denoiser
from spectrum.hooks.private_api import uncompiled
from spectrum.hooks.tensors import is_time
from spectrum.models.layouts import registered_layout

H = TypeVar("H", bound=CacheHook)


NAMES = ("transformer", "transformer_2", "unet")
"""What most pipelines call their denoisers."""
_PACKAGES = ("diffusers.models.transformers.", "diffusers.models.unets.", "diffusers.pipelines.")


def named_denoisers(pipe: Any) -> dict[str, Any]:
    """The denoiser modules by the pipeline's names for them, as it calls them, also as `torch.compile` returned them.

    Its transformers and UNet, and its other parts of diffusers' denoiser classes: Stable Cascade's `decoder`,
    Ideogram's `unconditional_transformer`.

    Raises:
        SpectrumError: if it has none.
    """
    found = {name: model for name in NAMES if (model := getattr(pipe, name, None)) is not None}
    parts = getattr(pipe, "components", {})
    found |= {name: part for name, part in parts.items() if isinstance(part, nn.Module) and is_denoiser(part)}
    return found or refuse(f"{type(pipe).__name__} has no transformer or unet to put a caching method on{_then(pipe)}")


def _then(pipe: Any) -> str:
    """What to type for a modular pipeline without a denoiser."""
    if hasattr(pipe, "init_pipeline"):
        return ": these are blocks; call accelerate on the pipeline that init_pipeline() makes of them"
    return ": call load_components() on it first" if hasattr(pipe, "load_components") else ""


def denoisers_as_called(pipe: Any) -> list[Any]:
    """The modules of `named_denoisers`."""
    return list(named_denoisers(pipe).values())


def is_denoiser(part: nn.Module) -> bool:
    """Whether a part of a pipeline is of one of diffusers' classes that take a timestep."""
    cls = type(uncompiled(part))
    return cls.__module__.startswith(_PACKAGES) and any(map(is_time, inspect.signature(cls.forward).parameters))


def loaded_from(pipe: Any) -> str:
    """The folder or the repository that a pipeline's weights come from; empty where they were not loaded.

    The parts of a modular pipeline may come from several: that of its denoiser counts.
    """
    if hasattr(pipe, "get_component_spec"):
        return str(pipe.get_component_spec(next(iter(named_denoisers(pipe)))).pretrained_model_name_or_path or "")
    return str(getattr(pipe, "name_or_path", "") or "")


def scheduler_of(pipe: Any, name: str) -> Any:
    """The scheduler that steps a denoiser: the one with the same words before its name, or the pipeline's only one.

    Kandinsky's `prior_prior` has the `prior_scheduler`, UnCLIP's `super_res_first` the `super_res_scheduler`.

    Args:
        pipe: a diffusers pipeline.
        name: the pipeline's name for the denoiser.

    Raises:
        SpectrumError: if it cannot be told.
    """
    words = name.split("_")
    for count in range(len(words), -1, -1):
        found = getattr(pipe, "_".join([*words[:count], "scheduler"]), None)
        if found is not None:  # its truth value is its length, which some schedulers cannot tell
            return found
    return refuse(
        f"{type(pipe).__name__} has no scheduler that is known to step its {name}, so it cannot be told which step it "
        "is at: call restore(pipe)"
    )


def attached(
    pipe: Any, method: Method, make: Callable[..., H], denoiser: Denoiser | None = None, **options: Any
) -> list[H]:
    """Put a method on every denoiser of a pipeline.

    Args:
        pipe: a diffusers pipeline.
        method: the method.
        make: makes a hook: `CacheHook`, or a class like it.
        denoiser: the layout to use, on the denoisers that have its modules; else the registered one, or else what a
            traced forward shows.
        **options: further arguments of `make`.

    Returns:
        A hook for each denoiser. When one begins a trajectory, the others free what they stored, unless they are at
        the same step: experts take turns, but a denoiser of its own for the unconditional branch does not.

    Raises:
        SpectrumError: if the method cannot serve a denoiser, or one is on it already; none is left on it then.
    """
    hooks: list[H] = []
    try:
        named = {name: (model, uncompiled(model)) for name, model in named_denoisers(pipe).items()}
        own = [name for name, (_, plain) in named.items() if denoiser is not None and denoiser.fits(plain)]
        for name, (model, plain) in named.items():
            layout = denoiser if name in own or not own else None
            layout = layout or registered_layout(plain)
            hooks.append(make(model, layout, functools.partial(scheduler_of, pipe, name), method, **options))
    except BaseException:
        for hook in hooks:
            hook.remove()
        raise
    for hook in hooks:
        hook.on_start = functools.partial(_free, [other for other in hooks if other is not hook])
    return hooks


def _free(hooks: list[H], timesteps: Any, step: int) -> None:
    for hook in hooks:
        if not hook.at(timesteps, step):
            hook.reset()
