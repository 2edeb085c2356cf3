"""A pipeline whose networks have shapes and no weights, on torch's meta device: what it needs can be told from it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spectrum.config.schema import BUILT, ModelConfig
from spectrum.core.errors import SpectrumError, refuse
from spectrum.models.architectures import UNCHECKED, as_loaded, build, class_of, made_in, torch_dtype
from spectrum.models.identity import weights_folder
from spectrum.models.meter import META
from spectrum.models.sources import cached_file


def shadow(model: ModelConfig) -> Any:
    """The pipeline of a model without its weights, in its dtypes, without a progress bar; nothing large is read.

    Args:
        model: the model's config.

    Returns:
        The pipeline: of drawn weights as `build` makes it, else from the configs that lie beside the weights.

    Raises:
        SpectrumError: if neither is here.
    """
    folder = config_folder(model)
    if folder is None:
        return build(model, META)
    import diffusers

    index = json.loads((folder / "model_index.json").read_text())
    given = {name: _network(folder, name, kind[1], model) for name, kind in index.items() if _is_network(kind)}
    given |= {name: _part(spec, model) for name, spec in model.parts.items()}
    pipe = getattr(diffusers, model.pipeline).from_pretrained(folder, local_files_only=True, **given)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def config_folder(model: ModelConfig) -> Path | None:
    """The folder with a pipeline's configs; None for one that is built, or whose configs are not on this machine."""
    if model.weights in BUILT:
        return None
    folder = weights_folder(model)
    if folder is None:
        index = cached_file(model.hub, "model_index.json", model.revision)
        folder = None if index is None else index.parent
    return folder if folder is not None and (folder / "model_index.json").exists() else None


def _is_network(kind: Any) -> bool:
    """Whether an entry of `model_index.json` names a class with weights."""
    if not isinstance(kind, list) or len(kind) != 2 or kind[1] is None:
        return False
    try:
        return hasattr(class_of(kind[1], "diffusers", "transformers", UNCHECKED), "parameters")
    except SpectrumError:
        return False


def _network(folder: Path, name: str, kind: str, model: ModelConfig) -> Any:
    dtype = (model.architecture or {}).get("components", {}).get(name, {}).get("dtype", model.dtype)
    return _made(class_of(kind, "diffusers", "transformers", UNCHECKED), dtype, folder, {"subfolder": name})


def _part(spec: Mapping[str, Any], model: ModelConfig) -> Any:
    cls = class_of(spec["class"], "diffusers", "transformers")
    if "config" in spec:
        return cls.from_config(dict(spec["config"]))
    where = {key: spec[key] for key in ("revision", "subfolder") if key in spec}
    if not hasattr(cls, "parameters"):
        return cls.from_pretrained(spec["hub"], local_files_only=True, **where)
    return _made(cls, model.dtype, spec["hub"], where)


def _made(cls: Any, dtype: str, source: Any, where: Mapping[str, Any]) -> Any:
    """A network from the config that lies beside its weights, without these."""
    try:
        if hasattr(cls, "load_config"):
            config = cls.load_config(source, local_files_only=True, **where)
            made = made_in(torch_dtype(dtype), META, lambda: cls.from_config(config))
        else:
            config = cls.config_class.from_pretrained(source, local_files_only=True, **where)
            made = made_in(torch_dtype(dtype), META, lambda: cls(config))
    except (OSError, ValueError) as error:
        return refuse(f"the config of {cls.__name__} in {source} cannot be read ({str(error).splitlines()[0]})")
    return as_loaded(made, torch_dtype(dtype)).eval()
