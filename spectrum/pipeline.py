"""Loading a pipeline: the embedded model, a folder, or a hub model that is on this machine."""

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import huggingface_hub
import torch

from spectrum.architecture import build
from spectrum.config import DTYPES, ModelConfig
from spectrum.errors import SpectrumError, refuse
from spectrum.files import names, read
from spectrum.prompts import ASSETS
from spectrum.store import identity

EMBEDDED = ASSETS / "tiny"


BUILT = {"random": "random weights, full size", "tiny": "random weights, toy width"}


def weights_folder(model: ModelConfig) -> Path | None:
    """The local folder a model's weights are in; None where they come from the hub or are drawn."""
    if model.weights == "pretrained":
        return EMBEDDED if model.hub == "embedded" else None
    if model.weights in BUILT:
        return None
    if not Path(model.weights).is_dir():
        refuse(
            f"model={model.name}: there is no folder {model.weights}: type model.weights=pretrained, random, tiny, or "
            "a folder of diffusers weights"
        )
    return Path(model.weights)


def model_kind(model: ModelConfig) -> str:
    """Which of the kinds of model a figure was made with, for people."""
    embedded = "embedded, trained" if weights_folder(model) else "real weights"
    return BUILT.get(model.weights, embedded)


def on_this_machine(model: ModelConfig) -> bool:
    """Whether a model's weights can be loaded without a download, as far as their index tells."""
    if model.weights in BUILT or weights_folder(model) is not None:
        return True
    found = huggingface_hub.try_to_load_from_cache(model.hub, "model_index.json", revision=model.revision)
    return isinstance(found, str)


@cache
def digest(folder: Path) -> str:
    """SHA-256 over the names and bytes of a folder's configs and weights."""
    total = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.suffix in (".json", ".safetensors", ".txt", ".model")):
        if path.name not in ("digest.json", "calibration.json"):
            total.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


def model_identity(model: ModelConfig) -> str:
    """What pins the weights: the folder's digest, the hub name and its revision, or what random ones are drawn for."""
    if model.weights in BUILT:
        return f"{model.weights}:{identity(model.architecture)}"
    folder = weights_folder(model)
    own = digest(folder) if folder else f"{model.hub}@{model.revision or _commit(model.hub, 'model_index.json')}"
    parts = {part["hub"]: part.get("revision") or _commit(part["hub"], "config.json") for part in model.parts.values()}
    return "+".join([own, *(f"{hub}@{revision}" for hub, revision in parts.items())])


def _commit(hub: str, file: str) -> str:
    """The commit that this machine's copy of a hub repository is of."""
    found = huggingface_hub.try_to_load_from_cache(hub, file) if not Path(hub).is_dir() else None
    return Path(found).parent.name if isinstance(found, str) else "main"


def calibration(model: ModelConfig) -> dict[str, Any]:
    """What was fitted for this model, by method: from its config, or `calibration.json` beside its weights.

    What was fitted on other weights than those that lie there now, or with another config (another grid of steps on the
    same weights), is left out, as if it had never been fitted.
    """
    if model.weights in BUILT:
        return {}
    folder = weights_folder(model)
    stored = folder / "calibration.json" if folder else None
    found = json.loads(stored.read_text()) if stored and stored.exists() else {}
    here = {"config": model.name, "model": model_identity(model)} if found else {}
    own = {name: fit for name, fit in found.items() if here.items() <= fit["fitted_on"].items()}
    return {**own, **(model.calibration or {})}


def fitted_for(pipe: Any) -> dict[str, Any]:
    """What is kept for a pipeline's weights, by method: beside them in their folder, or in their model's config."""
    name = str(getattr(pipe, "name_or_path", "") or "")
    for model in names("model"):
        if name == read("model", model)["hub"]:
            return dict(read("model", model).get("calibration") or {})
    stored = Path(name) / "calibration.json"
    if not name or not stored.is_file():
        return {}
    found, own = json.loads(stored.read_text()), digest(Path(name))
    return {method: fit for method, fit in found.items() if fit["fitted_on"]["model"] == own}


def device_of(name: str) -> torch.device:
    """`auto` takes the accelerator if there is one. Refuses a device that is not there."""
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        torch.empty(1, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:
        return refuse(f"device={name} is not usable here ({str(error).splitlines()[0]}): type device=cpu")


def load_pipeline(model: ModelConfig, device: torch.device) -> Any:
    """The model's diffusers pipeline on `device`, in its dtype, without a progress bar. Never downloads.

    `weights=random` and `tiny` have no text encoders: they are called with `spectrum.architecture.prompt_inputs`.

    Raises `SpectrumError` naming the model, its licence page, the login and download commands and the size when its
    weights are not on this machine, and naming the folder when they are damaged.
    """
    import diffusers

    cls = getattr(diffusers, model.pipeline, None) or refuse(f"diffusers has no pipeline named {model.pipeline}")
    if model.weights in BUILT:
        return _in_pieces(build(model, device), model)
    folder = weights_folder(model)
    if folder is not None:
        _check_digest(folder)
    components = (model.architecture or {}).get("components", {})
    own = {name: DTYPES[spec["dtype"]] for name, spec in components.items() if "dtype" in spec}
    dtype = DTYPES[model.dtype]
    try:
        pipe = cls.from_pretrained(
            folder or model.hub,
            revision=model.revision,
            torch_dtype={**own, "default": dtype} if own else dtype,
            local_files_only=True,
            use_safetensors=model.safetensors or None,
            **{name: _part(part, DTYPES[model.dtype]) for name, part in model.parts.items()},
        )
    except Exception as error:
        if folder is None:
            raise SpectrumError(_absent(model)) from None
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SpectrumError(f"the weights in {folder} cannot be loaded ({reason})") from None
    pipe.set_progress_bar_config(disable=True)
    return _in_pieces(pipe.to(device), model)


def _in_pieces(pipe: Any, model: ModelConfig) -> Any:
    for piece in model.vae:
        switch = getattr(pipe.vae, f"enable_{piece}", None)
        switch() if switch else refuse(f"model.vae={piece} is nothing that {type(pipe.vae).__name__} can do")
    return pipe


def _part(spec: Mapping[str, Any], dtype: torch.dtype) -> Any:
    """A part from a repository of its own: a text encoder in the model's dtype, or a tokenizer."""
    import transformers

    cls: Any = getattr(transformers, spec["class"], None) or refuse(f"transformers has no class named {spec['class']}")
    kind = {"dtype": dtype} if hasattr(cls, "parameters") else {}
    return cls.from_pretrained(spec["hub"], revision=spec.get("revision"), local_files_only=True, **kind)


def _check_digest(folder: Path) -> None:
    note = folder / "digest.json"
    if note.exists() and json.loads(note.read_text())["sha256"] != digest(folder):
        refuse(f"the weights in {folder} do not match their digest, a file is damaged or changed: restore the folder")


def _absent(model: ModelConfig) -> str:
    page = f"https://huggingface.co/{model.hub}"
    revision = f" --revision {model.revision}" if model.revision else ""
    spare = "".join(f" --exclude '{pattern}'" for pattern in model.spare)
    others = "".join(f' and "hf download {hub}"' for hub in dict.fromkeys(p["hub"] for p in model.parts.values()))
    return (
        f"model={model.name}: the weights of {model.hub} ({model.size_gb:g} GB) are not on this machine. Accept "
        f"the {model.licence} at {page}, log in with 'hf auth login', fetch them with "
        f'"hf download {model.hub}{revision}{spare}"{others}, and run the same command again; or '
        "type model.weights=random for its architecture alone"
    )
