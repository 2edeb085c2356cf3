"""Typed configuration: what a composed config says, checked, and turned into a `Method`."""

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from spectrum.clock import Clock
from spectrum.errors import SpectrumError, check_number, refuse
from spectrum.files import CONFIGS, method_file, read, unknown_key
from spectrum.method import Method, Site, Space, Watch
from spectrum.schedule import plan

PARTS = ("samples", "metrics", "timing")
TOY_BATCH = 8
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class ModelConfig:
    """A pipeline to load and how its authors sample it."""

    name: str
    pipeline: str
    hub: str
    """Repository of the published weights, or `embedded`."""
    weights: str
    """`pretrained`, `random` (`architecture` with seeded weights), `tiny` (the same at toy width), or a folder."""
    revision: str | None
    dtype: str
    steps: int
    height: int
    width: int
    call: dict[str, Any]
    branches: int
    feature: list[int]
    """Shape of one sample's feature, (image tokens, width)."""
    licence: str
    size_gb: float
    batch: int = 1
    """Samples per denoiser call, unless another number is typed."""
    frames: int | None = None
    """Frames of a video; None for a picture."""
    fps: int | None = None
    spare: list[str] = field(default_factory=list)
    """Files of the hub repository that diffusers does not need, as patterns."""
    safetensors: bool = True
    """False where the repository has pickled weights, of which diffusers reads the tensors alone."""
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Parts that the hub repository leaves out, by name: the `class` of transformers, its `hub` and `revision`."""
    vae: list[str] = field(default_factory=list)
    """Pieces that the VAE decodes one after another, as its authors do: `slicing` into samples, `tiling` of them."""
    calibration: dict[str, Any] | None = None
    architecture: dict[str, Any] | None = None
    """What `weights=random` builds, see `spectrum.architecture`."""


@dataclass(frozen=True)
class PromptsConfig:
    """A file of prompts, one a line, or the prompts themselves; `limit` takes the first ones.

    `source` says what a file has to hold that does not ship here.
    """

    file: str | None = None
    text: list[str] | None = None
    limit: int | None = None
    source: str | None = None


@dataclass(frozen=True)
class RunConfig:
    """Everything `run.py` reads. `method` and `schedule` are checked against the functions they name."""

    model: ModelConfig
    method: dict[str, Any]
    schedule: dict[str, Any]
    prompts: PromptsConfig
    runs: int | None = None
    seeds: list[int] = field(default_factory=lambda: [0])
    batch: int = 1
    device: str = "auto"
    out: str = "outputs"
    records: str | None = None
    probe: int = 4
    timing: int = 3
    eval: dict[str, dict[str, Any]] = field(default_factory=lambda: {"psnr": {}, "ssim": {}})
    """Metrics to compute, each with its parameters."""
    experiment: dict[str, Any] | None = None
    """The table that this run belongs to, see `eval.experiment`."""
    logger: dict[str, Any] | None = None
    """A mirror of the record, see `spectrum.logger`."""
    fresh: list[str] = field(default_factory=list)
    """Parts of a stored record to make again."""


def _typed(cls: type[Any], values: Mapping[str, Any], group: str) -> Any:
    known = {f.name: f for f in fields(cls)}
    prefix = f"{group}." if group else ""
    for key in values:
        if key not in known:
            refuse(unknown_key(prefix + str(key), [prefix + name for name in known]))
    missing = [n for n, f in known.items() if n not in values and f.default is MISSING and f.default_factory is MISSING]
    if missing:
        refuse(f"the config has no {prefix}{missing[0]}: type {prefix}{missing[0]}=...")
    return cls(**values)


def parse(composed: DictConfig, typed: Sequence[str] = ()) -> RunConfig:
    """Check a composed config, with the words that were typed for it. Raises `SpectrumError` with the key to change."""
    raw: Any = OmegaConf.to_container(composed, resolve=True)
    raw["model"] = _typed(ModelConfig, _at_width(raw["model"], [word.partition("=")[0] for word in typed]), "model")
    raw["batch"] = raw["model"].batch if raw["batch"] is None else raw["batch"]
    raw["prompts"] = _typed(PromptsConfig, raw["prompts"], "prompts")
    config: RunConfig = _typed(RunConfig, raw, "")
    if config.model.dtype not in DTYPES:
        refuse(f"model.dtype={config.model.dtype} is unknown: type one of {', '.join(DTYPES)}")
    check_number("model.steps", config.model.steps, low=1, integer=True)
    check_number("batch", config.batch, low=1, integer=True)
    check_number("probe", config.probe, low=0, integer=True)
    check_number("timing", config.timing, low=0, integer=True)
    for name in ("height", "width"):
        check_number(f"model.{name}", getattr(config.model, name), low=16, integer=True)
    if not config.seeds:
        refuse("seeds is empty: type for example seeds=[0]")
    for part in config.fresh:
        if part not in PARTS:
            refuse(f"fresh has {part}: type any of {', '.join(PARTS)}, for example fresh=[timing]")
    for seed in config.seeds:
        check_number("seeds", seed, low=0, integer=True)
    return config


def _at_width(model: dict[str, Any], typed: Sequence[str]) -> dict[str, Any]:
    """A model's settings with, for `weights=tiny`, what its file says under `tiny`; what was typed stays."""
    tiny = model.pop("tiny", None)
    if model.get("weights") != "tiny":
        return model
    if tiny is None:
        refuse(f"model={model['name']} has no toy width: type model.weights=pretrained")
    usual = read("model", model["name"])
    kept = {key for key in tiny if f"model.{key}" in typed or model.get(key) != usual.get(key)} - {"architecture"}
    own = {key: value for key, value in tiny.items() if key not in kept}
    merged: Any = OmegaConf.to_container(OmegaConf.merge(model, {k: v for k, v in own.items() if k != "call"}))
    return {"batch": TOY_BATCH, **merged, "call": {**model["call"], **own.get("call", {})}}


def _function(path: str, group: str) -> Callable[..., Any]:
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return refuse(f"{group} names {path}, which cannot be imported")


def _bind(path: str, group: str, values: dict[str, Any], missing: str) -> Any:
    """The function at `path` with its keyword parameters taken from `values`; taken ones are removed.

    A null leaves a parameter its default; one that has none is refused with the line `missing`.
    """
    function = _function(path, group)
    bound = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and name in values:
            value = values.pop(name)
            if value is not None:
                bound[name] = value
            elif parameter.default is parameter.empty:
                refuse(missing)
    return functools.partial(function, **bound)


def fill(values: Mapping[str, Any], *found: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with each null taken from the first of `found` that has it: the model's fit, then the method's usual."""
    return {
        key: next((f[key] for f in found if f.get(key) is not None), None) if value is None else value
        for key, value in values.items()
    }


def _enum(kind: type[StrEnum], value: Any, key: str) -> Any:
    try:
        return kind(value)
    except ValueError:
        return refuse(f"{key}={value} is unknown: type one of {', '.join(map(str, kind))}")


def build_method(
    method: Mapping[str, Any],
    schedule: Mapping[str, Any],
    calibration: Mapping[str, Any] | None = None,
    model: str = "",
) -> Method:
    """The `Method` that a `method` and a `schedule` config describe.

    `calibration` holds what was fitted for the model, by method name. Raises `SpectrumError` for a key that the
    method's functions do not take, and for a value that was never fitted for this model.
    """
    name = method["name"]
    fitted = (calibration or {}).get(name, {})
    usual = method.get("usual") or {}
    own, timing = fill(method, fitted, usual), fill(schedule, fitted, usual)
    missing = (
        f"{name} has no coefficients for the model {model or 'given'}: fit them with python scripts/calibrate.py "
        f"model={model or 'NAME'} method={name}"
    )
    for key in ("name", "steps", "solver", "usual"):
        own.pop(key, None)
    timing.pop("ladder", None)
    rule = _bind(timing.pop("function"), "schedule", timing, missing)
    space = _enum(Space, own.pop("space", "feature"), "method.space")
    site = _enum(Site, own.pop("site", "exit"), "method.site")
    clock = _enum(Clock, own.pop("clock", "step"), "method.clock")
    watch = _enum(Watch, own.pop("watch", "signal"), "method.watch")
    plain: dict[str, Any] = {key: own.pop(key) for key in ("accumulate", "follow", "front") if key in own}
    paths = {key: own.pop(key, None) for key in ("forecast", "drift", "mend")}
    parts = {key: _bind(path, "method", own, missing) if path else None for key, path in paths.items()}
    for group, left in (("method", own), ("schedule", timing)):
        if left:
            key = next(iter(left))
            refuse(f"{group}.{key} is no parameter of {name}'s {group}: take it out")
    return Method(name, schedule=rule, space=space, site=site, clock=clock, watch=watch, **{**plain, **parts})


def at_runs(config: RunConfig, calibration: Mapping[str, Any] | None) -> RunConfig:
    """The config with `runs` met: its schedule's parameter looked up on the schedule's `ladder`, or the steps cut.

    Refuses when no value on the ladder gives that many runs, and says which numbers it does give.
    """
    if config.runs is None or config.method["name"] == "none":
        return config
    check_number("runs", config.runs, low=1, integer=True)
    values: dict[str, Any] = {**asdict(config), "model": config.model, "prompts": config.prompts}
    if "steps" in config.method:
        return RunConfig(**{**values, "method": {**config.method, "steps": config.runs}})
    given: dict[int, dict[str, Any]] = {}
    fitted = (calibration or {}).get(config.method["name"], {}).get("ladder", {})
    given.update({int(runs): dict(found) for runs, found in fitted.items()})
    for key, rungs in (config.schedule.get("ladder") or {}).items():
        for rung in rungs:
            method = build_method(config.method, {**config.schedule, key: rung}, calibration, config.model.name)
            given.setdefault(len(plan(method.schedule, config.model.steps)), {key: rung})
    if config.runs not in given:
        if not given:
            name, model = config.method["name"], config.model.name
            refuse(
                f"what makes {name} run {config.runs} steps of {model} is not known: type its schedule's parameter in "
                "place of runs=, or fit a schedule that decides by the data with python scripts/calibrate.py "
                f"model={model} method={name}"
            )
        has = ", ".join(map(str, sorted(given)))
        refuse(f"this schedule cannot run exactly {config.runs} of {config.model.steps} steps; type runs= one of {has}")
    return RunConfig(**{**values, "schedule": {**config.schedule, **given[config.runs]}})


def compose(overrides: Sequence[str]) -> RunConfig:
    """The checked config of a command line, for commands that are not Hydra's own."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return parse(hydra_compose("config", list(overrides)), overrides)


def load_method(name: str, overrides: Sequence[str] = (), calibration: Mapping[str, Any] | None = None) -> Method:
    """The method that `configs/method/NAME.yaml` describes, with command-line style overrides.

    `calibration` holds what was fitted for the model, by method name.
    """
    method = method_file(name)
    given = {key: value for key, _, value in (o.partition("=") for o in overrides)}
    chosen = given.pop("schedule", None)
    rule = read("schedule", chosen or method["schedule"])
    del method["schedule"]
    merged: Any = OmegaConf.create({"method": method, "schedule": rule})
    known = [f"{group}.{key}" for group, keys in merged.items() for key in keys]
    for key in given:
        if key not in known:
            refuse(unknown_key(key, known))
    try:
        merged = OmegaConf.merge(merged, OmegaConf.from_dotlist([f"{key}={value}" for key, value in given.items()]))
    except (OmegaConfBaseException, YAMLError) as error:
        raise SpectrumError(str(error).splitlines()[0]) from None
    plain: Any = OmegaConf.to_container(merged)
    return build_method(plain["method"], plain["schedule"], calibration)
