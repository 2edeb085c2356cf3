"""A command line's config: composed by Hydra, then checked as a whole."""

import importlib.util
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, MissingMandatoryValue, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from spectrum.config.messages import one_value, several_values, unknown_key
from spectrum.config.reader import compose_raw, group_file
from spectrum.config.sampling import Sampling, takes_one
from spectrum.config.schema import (
    BYTES,
    OFFLOADS,
    PARTS,
    TOY_BATCH,
    MethodConfig,
    ModelConfig,
    PromptsConfig,
    RunConfig,
)
from spectrum.core.errors import SpectrumError, check_number, refuse

__all__ = ["RunConfig", "compose", "parse"]

_LISTS = ("seeds", "redo", "plugins")
_SIZES = (16, 16384)
"""The smallest and largest height and width, in pixels."""


def compose(overrides: Sequence[str] = ()) -> RunConfig:
    """The checked config of a command line, for commands that are not started by Hydra.

    Args:
        overrides: words like `method=fora` and `schedule.interval=6`.

    Raises:
        SpectrumError: for every setting that cannot be run, with the key to change.
        hydra.errors.HydraException, omegaconf.errors.OmegaConfBaseException: for what cannot be composed.

    Example:
        >>> compose(["method=fora", "seeds=3"]).seeds
        [3]
    """
    for word in overrides:
        if word.startswith("-"):
            refuse(f"there is no option {word}: type settings as key=value, or --help")
    try:
        composed = compose_raw(overrides)
    except HydraException as error:
        several = several_values(error)
        if several is None:
            raise
        raise SpectrumError(one_value(*several)) from None
    return parse(composed, overrides)


def parse(composed: DictConfig, typed: Sequence[str] = ()) -> RunConfig:
    """Check a composed config.

    Args:
        composed: what Hydra composed.
        typed: the words of the command line; what they set stays at toy width.

    Raises:
        SpectrumError: for every setting that cannot be run, with the key to change.
    """
    for group in ("model", "method", "schedule", "prompts", "eval"):
        if OmegaConf.is_missing(composed, group) or composed.get(group) is None:
            refuse(f"the config has no {group}: type {group}=NAME")
    _check_keys(composed)
    model = _model(composed.model, [word.partition("=")[0].lstrip("+") for word in typed])
    try:
        config: Any = OmegaConf.to_object(composed)
    except MissingMandatoryValue as error:
        raise SpectrumError(f"the config has no {error.full_key}: type {error.full_key}=...") from None
    assert isinstance(config, RunConfig)
    config.model = model
    config.batch = model.batch if config.batch is None else config.batch
    for name in _LISTS:
        setattr(config, name, as_list(getattr(config, name)))
    if "run_steps" in config.schedule:
        config.schedule["run_steps"] = as_list(config.schedule["run_steps"])
    text = config.prompts.text
    if text is not None:
        if isinstance(text, dict):
            refuse(f"prompts.text={text} is no prompt: type prompts.text='a cat', or a list of prompts")
        config.prompts.text = as_list(text)
        if not any(word.startswith("prompts.file=") for word in typed):
            config.prompts.file = None
    _check(config)
    return config


def _check_keys(composed: DictConfig) -> None:
    """Refuse keys that were added (`+method.foo=3`) and that no part of the project reads."""
    kinds = {"": RunConfig, "model.": ModelConfig, "method.": MethodConfig, "prompts.": PromptsConfig}
    for prefix, kind in kinds.items():
        node = composed[prefix[:-1]] if prefix else composed
        for name in node:
            if name not in {entry.name for entry in fields(kind)}:
                refuse(unknown_key(f"{prefix}{name}"))


def as_list(value: Any) -> list[Any]:
    """A setting that may be typed as one value, as a list; null is an empty one.

    Example:
        >>> as_list(3), as_list([0, 1]), as_list(None)
        ([3], [0, 1], [])
    """
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple, ListConfig)) else [value]


def _model(composed: DictConfig, typed: Sequence[str]) -> ModelConfig:
    """The model's settings, for `weights=tiny` with those of its toy; what was typed stays."""
    raw: Any = OmegaConf.to_container(composed, resolve=True)
    if raw.get("weights") == "tiny":
        tiny = raw.get("tiny") or refuse(f"model={raw['name']} has no toy width: type model.weights=pretrained")
        own = group_file("model", raw["name"])
        kept = {k for k in tiny if f"model.{k}" in typed or raw.get(k) != own.get(k, raw.get(k))} - {"architecture"}
        changed = {key: value for key, value in tiny.items() if key not in kept}
        alone = "model.batch" in typed or takes_one((raw.get("architecture") or {}).get("embeds"))
        batch = {"batch": raw["batch"] if alone else TOY_BATCH}
        raw = {
            **_merged(_without_replaced(raw, tiny), {k: v for k, v in changed.items() if k != "call"}),
            **batch,
            "call": {**raw["call"], **changed.get("call", {})},
        }
    try:
        found: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(ModelConfig), raw))
        found.vae = as_list(found.vae)
        return found
    except OmegaConfBaseException as error:
        line = str(error).splitlines()[0]
        if "missing mandatory value: " in line:
            line = f"it has no {line.rpartition(': ')[2]}, write one into its file"
        raise SpectrumError(f"the model cannot be read: {line}") from None


def _without_replaced(raw: Mapping[str, Any], tiny: Mapping[str, Any]) -> dict[str, Any]:
    """A model's settings without the parts whose toys are of another class, which does not know their arguments."""
    parts = (raw.get("architecture") or {}).get("components", {})
    toys = tiny.get("architecture", {}).get("components", {})
    kept = {name: own for name, own in parts.items() if toys.get(name, own).get("class", own["class"]) == own["class"]}
    return {**raw, "architecture": {**raw["architecture"], "components": kept}} if parts else dict(raw)


def _merged(values: Any, changes: Any) -> dict[str, Any]:
    merged: Any = OmegaConf.to_container(OmegaConf.merge(OmegaConf.create(values), changes))
    return merged


def _check(config: RunConfig) -> None:
    """Refuse what has the right type and cannot be run all the same."""
    model = config.model
    if model.dtype not in BYTES:
        refuse(f"model.dtype={model.dtype} is unknown: type one of {', '.join(BYTES)}")
    check_number("model.steps", model.steps, low=1, integer=True)
    check_number("batch", config.batch or 0, low=1, integer=True)
    if (config.batch or 1) > 1 and takes_one(Sampling.of(config).embeds):
        refuse(f"batch={config.batch}: {config.model.pipeline} takes one sample a call: type batch=1")
    if config.offload not in OFFLOADS:
        refuse(f"offload={config.offload} is unknown: type one of {', '.join(OFFLOADS)}")
    limit = config.memory_limit_gb
    if limit is not None and not (limit > 0 and math.isfinite(limit)):
        refuse(f"memory_limit_gb={limit} is no number above 0: type how many GiB may be used, or leave it out")
    check_number("probe", config.probe, low=0, integer=True)
    check_number("timing", config.timing, low=0, integer=True)
    for name in ("height", "width"):
        _check_side(f"model.{name}", getattr(model, name))
    _check_call(model.call)
    _check_lists(config)


def _check_side(key: str, size: int) -> None:
    check_number(key, size, low=_SIZES[0], integer=True)
    if size > _SIZES[1]:
        refuse(f"{key}={size} is more than any model here can make: type at most {_SIZES[1]}")
    if size % 8:
        refuse(f"{key}={size} must be a multiple of 8: type {size - size % 8} or {size - size % 8 + 8}")


def _check_call(call: dict[str, Any]) -> None:
    for key, value in call.items():
        if isinstance(value, float):
            check_number(f"model.call.{key}", value)
    length = call.get("max_sequence_length")
    if length is not None:
        check_number("model.call.max_sequence_length", length, low=1, integer=True)


def _check_lists(config: RunConfig) -> None:
    if config.out.strip() == "":
        refuse("out is empty: type out=FOLDER, or leave it out")
    if not config.seeds:
        refuse("seeds is empty: type for example seeds=[0]")
    for seed in config.seeds:
        check_number("seeds", seed, low=0, integer=True)
    config.seeds = [int(seed) for seed in config.seeds]
    if len(set(config.seeds)) != len(config.seeds):
        refuse(f"seeds={config.seeds} has a seed twice: type each once")
    for part in config.redo:
        if part not in PARTS:
            refuse(f"redo={part} is unknown: type any of {', '.join(PARTS)}, for example redo=[timing]")
    if "profile" in config.redo and not config.profile:
        refuse("redo=[profile] makes a profile again: type profile=true beside it")
    for package in config.plugins:
        _check_plugin(package)


def _check_plugin(package: Any) -> None:
    """Refuse a package that cannot be found; it is not imported."""
    if not isinstance(package, str) or not package.isidentifier():
        refuse(f"plugins={package} is no package: type plugins=[NAME] with the name that is imported, without dots")
    if package not in sys.modules and importlib.util.find_spec(package) is None:
        refuse(
            f"plugins={package}: there is no package {package} here: install it, or put the folder that holds it into "
            "PYTHONPATH"
        )
