"""Pipelines of `weights=random` and `weights=tiny`: a family's own classes, full size or toy width, with drawn weights.

Text encoders are left out. Each prompt becomes embeddings of the right shape, drawn by a generator that its text seeds,
so the same prompt is the same call everywhere.
"""

import hashlib
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from spectrum.config.schema import ModelConfig
from spectrum.core.errors import refuse
from spectrum.hooks.private_api import execution_device, kept_in_float32
from spectrum.hooks.scheduler import count_of_calls, starts

SEED = 0
UNCHECKED = "spectrum.models.unchecked"
"""Where parts come from that diffusers and transformers do not have."""


def torch_dtype(name: str) -> torch.dtype:
    """The torch dtype that a config names: `float32`, `bfloat16` or `float16`."""
    return getattr(torch, name)


def build(model: ModelConfig, device: torch.device) -> Any:
    """A pipeline with drawn weights, from the classes and arguments in its model's config, without a progress bar.

    `architecture.components` has for each part its class in diffusers, transformers or `spectrum.models.unchecked`
    under `class`, a `dtype` where it is not the model's, and the arguments of its config. Parts that are not named are
    left out. `architecture.settings` are arguments of the pipeline itself; `architecture.resolutions` are the sizes, as
    width and height, that a toy knows whose pipeline has a list of them, all too large for a toy.

    Args:
        model: the model's config.
        device: where the parts are made.

    Raises:
        SpectrumError: if the config describes no architecture, or names a class that none of them has.
    """
    import diffusers

    architecture = model.architecture or {}
    if not architecture.get("components"):
        refuse(f"model={model.name} describes no architecture: type model.weights=pretrained")
    cls = getattr(diffusers, model.pipeline, None) or refuse(f"diffusers has no pipeline named {model.pipeline}")
    parts: dict[str, Any] = {
        name: _component(name, spec, model, device) for name, spec in architecture["components"].items()
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


def _component(name: str, spec: Mapping[str, Any], model: ModelConfig, device: torch.device) -> Any:
    """One part of a pipeline from its config. A module is made on the device, in its dtype, as diffusers loads one."""
    given = dict(spec)
    kind, dtype = given.pop("class"), torch_dtype(given.pop("dtype", model.dtype))
    cls = class_of(kind, "diffusers", "transformers", UNCHECKED, where=f"architecture.components.{name}: ")
    if not hasattr(cls, "parameters"):
        return cls.from_config(given) if hasattr(cls, "from_config") else cls(**given)
    config = getattr(cls, "config_class", None)  # of a class of transformers
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            made = cls.from_config(given) if config is None else cls(config(**given))
            return _as_loaded(randomise(made), dtype)
    finally:
        torch.set_default_dtype(default)


def _as_loaded(module: nn.Module, dtype: torch.dtype) -> nn.Module:
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
def randomise(module: nn.Module, seed: int = SEED) -> nn.Module:
    """Draw every parameter of a module at random, so that no block is switched off by a zero initialisation.

    Matrices and kernels get a standard deviation of `1 / sqrt(inputs)`; the weights of norms lie around 1, biases
    around 0.

    Args:
        module: changed in place.
        seed: of the generator; one is made for each device.

    Returns:
        The module, in evaluation mode.
    """
    generators: dict[torch.device, torch.Generator] = {}
    for name, parameter in module.named_parameters():
        generator = generators.setdefault(parameter.device, torch.Generator(parameter.device).manual_seed(seed))
        flat = parameter.ndim < 2
        parameter.normal_(0, 0.1 if flat else parameter[0].numel() ** -0.5, generator=generator)
        if flat and name.endswith("weight"):
            parameter.add_(1)
    return module.eval()


def prompt_inputs(pipe: Any, embeds: Mapping[str, Any], prompts: Sequence[str]) -> dict[str, Any]:
    """What a pipeline without text encoders is called with instead of prompts.

    The numbers of a prompt are drawn by a generator that its text seeds. Arguments named `negative...` are those of an
    empty prompt.

    Args:
        pipe: the pipeline.
        embeds: for each argument what it is for one prompt: `[tokens, width]` for normal numbers in the denoiser's
            dtype; `{shape: [layers, tokens, width], batch: 1}` where prompts are not the first dimension; `{ones:
            [tokens], dtype: bool}` or `{zeros: [tokens]}` for a mask; `{each: [tokens, width]}` for a list with one
            tensor for each prompt; `{labels: 1000}` for class numbers (a prompt that is a number or a class's name is
            that class; where the classes have no names, any other draws one); `{picture: [3, height, width]}` for a
            picture in [0, 1], with `pil: true` as a PIL picture; `{lengths: tokens}` for where each prompt's tokens
            begin and the last one's end.
        prompts: the prompts of one batch.

    Returns:
        The arguments by name.

    Raises:
        SpectrumError: for a prompt that is no class, where the classes have names.
    """
    model = next(m for n in ("transformer", "unet") if (m := getattr(pipe, n, None)) is not None)
    found: dict[str, Any] = {}
    for name, spec in embeds.items():
        texts = [""] * len(prompts) if name.startswith("negative") else list(prompts)
        if isinstance(spec, Mapping) and "labels" in spec:
            found[name] = [_label(getattr(pipe, "labels", {}), text, spec["labels"]) for text in texts]
        else:
            found[name] = _values(name.removeprefix("negative_"), spec, texts, execution_device(pipe), model.dtype)
    return found


def _values(name: str, spec: Any, texts: Sequence[str], device: torch.device, dtype: torch.dtype) -> Any:
    kind = spec if isinstance(spec, Mapping) else {"shape": spec}
    for value, fill in enumerate(("zeros", "ones")):
        if fill in kind:
            mask = torch.full((len(texts), *kind[fill]), value, device=device)
            return mask.to(getattr(torch, kind.get("dtype", "bool")))
    if "lengths" in kind:
        return torch.arange(len(texts) + 1, dtype=torch.int32, device=device) * kind["lengths"]
    if "picture" in kind and kind.get("pil"):
        from diffusers.utils.pil_utils import numpy_to_pil

        drawn = [_drawn(name, text, kind["picture"], torch.rand) for text in texts]
        return numpy_to_pil(torch.stack(drawn).permute(0, 2, 3, 1).numpy())
    if "picture" in kind:
        return torch.stack([_drawn(name, text, kind["picture"], torch.rand) for text in texts]).to(device, dtype)
    drawn = [_drawn(name, text, kind.get("each") or kind["shape"]).to(device, dtype) for text in texts]
    return drawn if "each" in kind else torch.stack(drawn, kind.get("batch", 0))


def _label(known: Mapping[str, int], text: str, count: int) -> int:
    number = int(text) if text.isdecimal() else known.get(text, -1)
    if known and not 0 <= number < count:
        refuse(
            f'{text!r} is no class of this model: type prompts=inline "prompts.text={[*known][:2]}" with names of its '
            "classes; for model=tiny_dit prompts=classes, or prompts=classes_calibration to fit on"
        )
    return number if 0 <= number < count else _seed("label", text) % count


def _seed(name: str, text: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{name} {text}".encode()).digest()[:6])


def _drawn(name: str, text: str, shape: Sequence[int], draw: Callable[..., Tensor] = torch.randn) -> Tensor:
    return draw(*shape, generator=torch.Generator("cpu").manual_seed(_seed(name, text)))
