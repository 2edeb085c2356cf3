"""Loads a pipeline: the embedded model, a folder, a hub model that is on this machine, or one with drawn weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from spectrum.config.schema import BUILT, ModelConfig
from spectrum.core.errors import SpectrumError, refuse
from spectrum.models.architectures import build, class_of, torch_dtype
from spectrum.models.identity import check_digest, on_this_machine, weights_folder
from spectrum.models.offload import check_offload, placed
from spectrum.models.pieces import in_pieces
from spectrum.models.sources import model_item


class AbsentWeightsError(SpectrumError):
    """A model's published weights are not on this machine. The message says how to get them."""


def device_of(name: str) -> torch.device:
    """The torch device that `device=` names; `auto` takes the accelerator if there is one, `gpu` insists on it.

    Raises:
        SpectrumError: if the device is not there.
    """
    if name in ("auto", "gpu"):
        found = torch.accelerator.current_accelerator(check_available=True)
        if found is None and name == "gpu":
            refuse("device=gpu: torch finds no accelerator here; type device=cpu")
        return found or torch.device("cpu")
    if name == "meta":
        refuse("device=meta holds no numbers: type device=cpu, auto, cuda or mps")
    try:
        torch.empty(1, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].partition("Expected one of")[0] or "torch knows no such device"
        return refuse(f"device={name} cannot be used here ({reason}): type device=cpu, auto, cuda or mps")


def load_pipeline(model: ModelConfig, device: torch.device, offload: str = "none") -> Any:
    """A model's diffusers pipeline, in its dtype, without a progress bar. Nothing is downloaded.

    Pipelines with drawn weights (`weights=random` and `tiny`) have no text encoders: they are called with
    `spectrum.models.inputs.prompt_inputs`.

    Args:
        model: the model's config.
        device: where the pipeline is put.
        offload: what lies on the CPU while it is not at work: `none`, `model` or `group`, see
            `spectrum.models.offload.placed`.

    Raises:
        AbsentWeightsError: if the weights are not on this machine; the message has the licence's page, the command that
            downloads them, and the size.
        SpectrumError: if they are damaged.
    """
    import diffusers

    cls = getattr(diffusers, model.pipeline, None) or refuse(f"diffusers has no pipeline named {model.pipeline}")
    _check_packages(cls, model)
    check_offload(offload, device)
    if model.weights in BUILT:
        return in_pieces(_built(model, device, offload), model)
    folder = weights_folder(model)
    if folder is not None:
        check_digest(folder)
    components = (model.architecture or {}).get("components", {})
    own = {name: torch_dtype(spec["dtype"]) for name, spec in components.items() if "dtype" in spec}
    dtype = torch_dtype(model.dtype)
    try:
        pipe = cls.from_pretrained(
            folder or model.hub,
            revision=model.revision,
            torch_dtype={**own, "default": dtype} if own else dtype,
            local_files_only=True,
            use_safetensors=model.safetensors or None,
            variant=model.variant if folder is None or _has_variant(folder, model.variant) else None,
            **{name: _part(part, own.get(name, dtype)) for name, part in model.parts.items()},
        )
    except Exception as error:
        if not on_this_machine(model):
            raise AbsentWeightsError(_absent(model)) from None
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        where = f"in {folder}" if folder else f"of {model.hub}"
        raise SpectrumError(f"the weights {where} cannot be loaded ({reason})") from None
    pipe.set_progress_bar_config(disable=True)
    return in_pieces(placed(pipe, device, offload), model)


def _built(model: ModelConfig, device: torch.device, offload: str) -> Any:
    """A pipeline with drawn weights; offloaded ones are drawn on the device all the same, so that they are equal."""
    if offload == "none":
        return build(model, device)
    return placed(build(model, torch.device("cpu"), drawn_on=device), device, offload)


def _check_packages(cls: Any, model: ModelConfig) -> None:
    """Refuse a pipeline that diffusers offers only beside a package which is not installed.

    Raises:
        SpectrumError: with the package.
    """
    from diffusers.utils.import_utils import DummyObject

    if isinstance(cls, DummyObject):
        try:
            cls()
        except ImportError as error:
            refuse(f"model={model.name}: {' '.join(str(error).split())}")


def _has_variant(folder: Path, variant: str | None) -> bool:
    """Whether weight files in a pipeline's folder are marked so: `unet/diffusion_pytorch_model.fp16.safetensors`."""
    return any(folder.glob(f"*/*.{variant}[.-]*"))


def _part(spec: Mapping[str, Any], dtype: torch.dtype) -> Any:
    """A part from a repository of its own, a network in its dtype; or one that is made from a config alone."""
    cls = class_of(spec["class"], "diffusers", "transformers")
    if "config" in spec:
        return cls.from_config(dict(spec["config"]))
    where = {"revision": spec.get("revision"), **({"subfolder": spec["subfolder"]} if "subfolder" in spec else {})}
    named = "torch_dtype" if cls.__module__.startswith("diffusers.") else "dtype"
    kind = {named: dtype} if hasattr(cls, "parameters") else {}
    return cls.from_pretrained(spec["hub"], local_files_only=True, **where, **kind)


def _absent(model: ModelConfig) -> str:
    item = model_item(model)
    return f"model={model.name}: not on this machine: {item.missing if item else model.hub}"
