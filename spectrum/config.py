"""Typed configuration: what a composed config says, checked, and turned into a `Method`."""

import difflib
import functools
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from spectrum.clock import Clock
from spectrum.errors import SpectrumError, check_number, refuse
from spectrum.method import Method, Site, Space
from spectrum.schedule import plan

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_HERE = Path(__file__).resolve().parent
CONFIGS = next(path for path in (_HERE.parent / "configs", _HERE / "configs") if (path / "config.yaml").exists())


@dataclass(frozen=True)
class ModelConfig:
    """A pipeline to load and how its authors sample it."""

    name: str
    pipeline: str
    weights: str
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
    calibration: dict[str, Any] | None = None


@dataclass(frozen=True)
class PromptsConfig:
    """A file of prompts, one a line, or the prompts themselves; `limit` takes the first ones."""

    file: str | None = None
    text: list[str] | None = None
    limit: int | None = None


@dataclass(frozen=True)
class RunConfig:
    """Everything `run.py` reads. `method` and `schedule` are checked against the functions they name."""

    model: ModelConfig
    method: dict[str, Any]
    schedule: dict[str, Any]
    prompts: PromptsConfig
    runs: int | None = None
    seeds: list[int] = field(default_factory=lambda: [0])
    batch: int = 16
    device: str = "auto"
    out: str = "outputs"
    records: str | None = None
    probe: int = 4
    timing: int = 3


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


def unknown_key(key: str, known: Sequence[str]) -> str:
    """One line for a key that does not exist, with the nearest one that does."""
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"there is no key {key}" + (f": did you mean {near[0]}?" if near else f"; there are {', '.join(known)}")


def parse(composed: DictConfig) -> RunConfig:
    """Check a composed config. Raises `SpectrumError` with the key to change."""
    raw: Any = OmegaConf.to_container(composed, resolve=True)
    raw["model"] = _typed(ModelConfig, raw["model"], "model")
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
    for seed in config.seeds:
        check_number("seeds", seed, low=0, integer=True)
    return config


def _function(path: str, group: str) -> Callable[..., Any]:
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return refuse(f"{group} names {path}, which cannot be imported")


def _bind(path: str, group: str, values: dict[str, Any], missing: str) -> Any:
    """The function at `path` with its keyword parameters taken from `values`; taken ones are removed.

    A parameter that is null and may not be is refused with the line `missing`.
    """
    function = _function(path, group)
    bound = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and name in values:
            bound[name] = values.pop(name)
            if bound[name] is None and parameter.default is not None:
                refuse(missing)
    return functools.partial(function, **bound)


def fill(values: Mapping[str, Any], fitted: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with each null taken from what was fitted for the model, where it was."""
    return {key: fitted.get(key) if value is None else value for key, value in values.items()}


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
    own, timing = fill(method, fitted), fill(schedule, fitted)
    missing = (
        f"{name} has no coefficients for the model {model or 'given'}: fit them with python scripts/calibrate.py "
        f"model={model or 'NAME'} method={name}"
    )
    for key in ("name", "steps", "solver"):
        own.pop(key, None)
    timing.pop("ladder", None)
    rule = _bind(timing.pop("function"), "schedule", timing, missing)
    space = _enum(Space, own.pop("space", "feature"), "method.space")
    site = _enum(Site, own.pop("site", "exit"), "method.site")
    clock = _enum(Clock, own.pop("clock", "step"), "method.clock")
    paths = {key: own.pop(key, None) for key in ("forecast", "drift")}
    parts = {key: _bind(path, "method", own, missing) if path else None for key, path in paths.items()}
    for group, left in (("method", own), ("schedule", timing)):
        if left:
            key = next(iter(left))
            refuse(f"{group}.{key} is no parameter of {name}'s {group}: take it out")
    return Method(name, parts["forecast"], rule, space, site, clock, parts["drift"])


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
        has = ", ".join(map(str, sorted(given))) or "none"
        refuse(f"this schedule cannot run exactly {config.runs} of {config.model.steps} steps; type runs= one of {has}")
    return RunConfig(**{**values, "schedule": {**config.schedule, **given[config.runs]}})


def compose(overrides: Sequence[str]) -> RunConfig:
    """The checked config of a command line, for commands that are not Hydra's own."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return parse(hydra_compose("config", list(overrides)))


def method_file(name: str) -> dict[str, Any]:
    """What `configs/method/NAME.yaml` says of the method, and under `schedule` the name of its own schedule."""
    folder = CONFIGS / "method"
    if not (folder / f"{name}.yaml").exists():
        refuse(f"there is no method {name}; there are {', '.join(sorted(p.stem for p in folder.glob('*.yaml')))}")
    raw: Any = OmegaConf.to_container(OmegaConf.load(folder / f"{name}.yaml"))
    return {**raw["method"], "schedule": raw["defaults"][0]["override /schedule@_global_.schedule"]}


def load_method(name: str, overrides: Sequence[str] = ()) -> Method:
    """The method that `configs/method/NAME.yaml` describes, with command-line style overrides."""
    method = method_file(name)
    chosen = [o.partition("=")[2] for o in overrides if o.startswith("schedule=")]
    path = CONFIGS / "schedule" / f"{(chosen or [method.pop('schedule')])[-1]}.yaml"
    method.pop("schedule", None)
    if not path.exists():
        refuse(
            f"there is no schedule {path.stem}; there are {', '.join(sorted(p.stem for p in path.parent.glob('*')))}"
        )
    merged: Any = OmegaConf.create({"method": method, "schedule": OmegaConf.load(path)})
    OmegaConf.set_struct(merged, True)
    try:
        merged = OmegaConf.merge(
            merged, OmegaConf.from_dotlist([o for o in overrides if not o.startswith("schedule=")])
        )
    except OmegaConfBaseException as error:
        raise SpectrumError(str(error).splitlines()[0]) from None
    plain: Any = OmegaConf.to_container(merged)
    return build_method(plain["method"], plain["schedule"])
