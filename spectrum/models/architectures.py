"""Pipelines of `weights=random` and `weights=tiny`: a family's own classes, full size or toy width, with drawn weights.

Text encoders are left out: `spectrum.models.inputs` has what stands for prompts.
"""

import copy
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from spectrum.config.schema import ModelConfig
from spectrum.core.errors import refuse
from spectrum.hooks.private_api import kept_in_float32
from spectrum.hooks.scheduler import count_of_calls, starts

SEED = 0
UNCHECKED = "spectrum.models.unchecked"
"""Where parts come from that diffusers and transformers do not have."""


def torch_dtype(name: str) -> torch.dtype:
    """The torch dtype that a config names: `float32`, `bfloat16` or `float16`."""
    return getattr(torch, name)


def build(model: ModelConfig, device: torch.device, drawn_on: torch.device | None = None) -> Any:
    """A pipeline with drawn weights, from the classes and arguments in its model's config, without a progress bar.

    `architecture.components` has for each part its class in diffusers, transformers or `spectrum.models.unchecked`
    under `class`, a `dtype` where it is not the model's, and the arguments of its config. Parts that are not named are
    left out. `architecture.settings` are arguments of the pipeline itself; `architecture.resolutions` are the sizes, as
    width and height, that a toy knows whose pipeline has a list of them, all too large for a toy.

    Args:
        model: the model's config.
        device: where the parts are made; on the meta device they have no weights.
        drawn_on: where the weights are drawn, one at a time, if not there: each device draws other ones.

    Raises:
        SpectrumError: if the config describes no architecture, or names a class that none of them has.
    """
    import diffusers

    architecture = model.architecture or {}
    if not architecture.get("components"):
        refuse(f"model={model.name} describes no architecture: type model.weights=pretrained")
    cls = getattr(diffusers, model.pipeline, None) or refuse(f"diffusers has no pipeline named {model.pipeline}")
    parts: dict[str, Any] = {
        name: _component(name, spec, model, device, drawn_on) for name, spec in architecture["components"].items()
    }
    pipe = assembled(cls, {**parts, **architecture.get("settings", {})})
    if "resolutions" in architecture:
        pipe.resolutions = [tuple(size) for size in architecture["resolutions"]]
    return pipe


def assembled(cls: Any, parts: Mapping[str, Any]) -> Any:
    """A pipeline of its parts, None for those that are not given, without a progress bar."""
    asked = inspect.signature(cls.__init__).parameters.items()
    needed = [name for name, said in asked if name != "self" and said.default is inspect.Parameter.empty]
    pipe = cls(**{**dict.fromkeys(needed), **parts})
    for made in (pipe, *vars(pipe).values()):  # some pipelines are made of others
        if hasattr(made, "set_progress_bar_config"):
            made.set_progress_bar_config(disable=True)
    return pipe


def is_modular(cls: type) -> bool:
    """Whether a class of pipelines is made of blocks (`diffusers.modular_pipelines`)."""
    return hasattr(cls, "default_blocks_name")


def assembled_of_blocks(cls: Any, kept: Sequence[str], parts: Mapping[str, Any]) -> Any:
    """A modular pipeline of some of its class's blocks, without a progress bar.

    Args:
        cls: the class of the pipeline.
        kept: the names of the blocks; what the others would have made is an input of the pipeline's call.
        parts: its parts and its settings by name; those that these blocks do not use are left out.
    """
    blocks = copy.deepcopy(class_of(cls.default_blocks_name, "diffusers")())  # some of its parts are shared by all
    for name in [name for name in blocks.sub_blocks if name not in kept]:
        del blocks.sub_blocks[name]
    pipe = cls(blocks=blocks)
    inside = [blocks]
    for block in inside:
        inside += block.sub_blocks.values()
        if hasattr(block, "set_progress_bar_config"):
            block.set_progress_bar_config(disable=True)
    known = {*pipe.component_names, *(spec.name for spec in blocks.expected_configs)}
    pipe.update_components(**{name: part for name, part in parts.items() if name in known})
    return pipe


def class_of(name: str, *libraries: str, where: str = "") -> Any:
    """A class of one of the libraries; dots lead to one that the library does not name at its top.

    What a library only imports is none of its classes.

    Raises:
        SpectrumError: if none of them has it.
    """
    inside, _, own = name.rpartition(".")
    for library in libraries:
        try:
            module = importlib.import_module(f"{library}.{inside}" if inside else library)
        except ImportError:
            continue
        found = getattr(module, own, None)
        if isinstance(found, type) and f"{found.__module__}.".startswith(f"{library}."):
            return found
    return refuse(f"{where}there is no {name} in {' or '.join(libraries)}")


def _component(
    name: str, spec: Mapping[str, Any], model: ModelConfig, device: torch.device, drawn_on: torch.device | None = None
) -> Any:
    """One part of a pipeline from its config."""
    given = dict(spec)
    kind, dtype = given.pop("class"), torch_dtype(given.pop("dtype", model.dtype))
    cls = class_of(kind, "diffusers", "transformers", UNCHECKED, where=f"architecture.components.{name}: ")
    if not hasattr(cls, "parameters"):
        return cls.from_config(given) if hasattr(cls, "from_config") else cls(**given)
    config = getattr(cls, "config_class", None)  # of a class of transformers
    made = made_in(dtype, device, lambda: cls.from_config(given) if config is None else cls(config(**given)))
    return as_loaded(randomise(made, on=drawn_on), dtype)


def made_in(dtype: torch.dtype, device: torch.device, make: Callable[[], Any]) -> Any:
    """The network that a function makes, on a device and in a dtype."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            return make()
    finally:
        torch.set_default_dtype(default)


def as_loaded(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The module with its parameters in the dtypes that diffusers would load them in.

    What its weights file would hold is converted to `dtype`, but for the parts that diffusers leaves in float32.
    """
    stored, in_float32 = module.state_dict().keys(), kept_in_float32(module)
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if name in stored and tensor.is_floating_point():
            tensor.data = tensor.data.to(torch.float32 if in_float32 & set(name.split(".")) else dtype)
    return module


def count_of_calls_of(model: ModelConfig, steps: int) -> int:
    """At how many timesteps a denoiser is called (`spectrum.hooks.scheduler.count_of_calls`), from the config alone."""
    described = model.architecture or {}
    scheduler = _component("scheduler", described["components"]["scheduler"], model, torch.device("cpu"))
    return count_of_calls(scheduler, steps)


def starts_of(model: ModelConfig, steps: int) -> list[int]:
    """The steps at which a denoiser takes over (`spectrum.hooks.scheduler.starts`), from the config alone."""
    described = model.architecture or {}
    boundary = described.get("settings", {}).get("boundary_ratio")
    if boundary is None:
        return [0]
    scheduler = _component("scheduler", described["components"]["scheduler"], model, torch.device("cpu"))
    return starts(scheduler, boundary, steps)


@torch.no_grad()
def randomise(module: nn.Module, seed: int = SEED, on: torch.device | None = None) -> nn.Module:
    """Draw every parameter of a module at random, so that no block is switched off by a zero initialisation.

    Matrices and kernels get a standard deviation of `1 / sqrt(inputs)`; the weights of norms lie around 1, biases
    around 0.

    Args:
        module: changed in place; on the meta device there is nothing to change.
        seed: of the generator; one is made for each device.
        on: the device that draws; each parameter's own by default.

    Returns:
        The module, in evaluation mode.
    """
    generators: dict[torch.device, torch.Generator] = {}
    for name, parameter in module.named_parameters():
        if parameter.is_meta:  # shapes alone: there is nothing to draw
            continue
        drawn = parameter if on in (None, parameter.device) else torch.empty_like(parameter, device=on)
        generator = generators.setdefault(drawn.device, torch.Generator(drawn.device).manual_seed(seed))
        flat = parameter.ndim < 2
        drawn.normal_(0, 0.1 if flat else parameter[0].numel() ** -0.5, generator=generator)
        if flat and name.endswith("weight"):
            drawn.add_(1)
        if drawn is not parameter:
            parameter.copy_(drawn)
    return module.eval()
