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

from omegaconf import DictConfig, OmegaConf

from spectrum.clock import Clock
from spectrum.errors import SpectrumError, check_number, refuse
from spectrum.method import Method, Site, Space, plan_method

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


def _function(path: str, key: str) -> Callable[..., Any]:
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return refuse(f"{key} names {path}, which cannot be imported")


def _bind(path: str, key: str, group: str, values: dict[str, Any], calibrated: Mapping[str, Any]) -> Any:
    """The function at `path` with its keyword parameters taken from `values`; taken ones are removed.

    A parameter that is null and has no default of its own comes from the model's calibration.
    """
    function = _function(path, key)
    bound = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY or name not in values:
            continue
        value = values.pop(name)
        if value is None and parameter.default is not None:
            value = calibrated.get(name, MISSING)
            if value is MISSING:
                refuse(calibrated.get("missing") or f"{group}.{name} has no value: type {group}.{name}=...")
        bound[name] = value
    return functools.partial(function, **bound)


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
    own, timing = dict(method), dict(schedule)
    name = own.pop("name")
    fitted = dict((calibration or {}).get(name, {}))
    fitted["missing"] = (
        f"{name} has no coefficients for the model {model or 'given'}: fit them with python scripts/calibrate.py "
        f"model={model or 'NAME'} method={name}"
    )
    timing.pop("ladder", None)
    rule = _bind(timing.pop("function"), "schedule.function", "schedule", timing, fitted)
    space = _enum(Space, own.pop("space", "feature"), "method.space")
    site = _enum(Site, own.pop("site", "exit"), "method.site")
    clock = _enum(Clock, own.pop("clock", "step"), "method.clock")
    for key in ("steps", "solver"):
        own.pop(key, None)
    paths = {key: own.pop(key, None) for key in ("forecast", "drift")}
    parts = {k: _bind(path, f"method.{k}", "method", own, fitted) if path else None for k, path in paths.items()}
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
            nfe = plan_method(Method("probe", _any_forecast, method.schedule), config.model.steps).nfe
            given.setdefault(nfe or 0, {key: rung})
    if config.runs not in given:
        has = ", ".join(map(str, sorted(given))) or "none"
        refuse(
            f"this schedule cannot run exactly {config.runs} of {config.model.steps} steps; it has {has}: type runs="
        )
    return RunConfig(**{**values, "schedule": {**config.schedule, **given[config.runs]}})


def _any_forecast(times: Sequence[float], target: float, span: tuple[float, float]) -> Any:
    from spectrum.forecast import reuse

    return reuse(times, target, span)


def compose(overrides: Sequence[str]) -> RunConfig:
    """The checked config of a command line, for commands that are not Hydra's own."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return parse(hydra_compose("config", list(overrides)))


def load_method(name: str, overrides: Sequence[str] = ()) -> Method:
    """The method that `configs/method/NAME.yaml` describes, with command-line style overrides."""
    folder = CONFIGS / "method"
    path = folder / f"{name}.yaml"
    if not path.exists():
        refuse(f"there is no method {name}; there are {', '.join(sorted(p.stem for p in folder.glob('*.yaml')))}")
    composed: Any = OmegaConf.load(path)
    chosen = composed.defaults[0]["override /schedule@_global_.schedule"]
    for override in overrides:
        if override.startswith("schedule="):
            chosen = override.partition("=")[2]
    schedule = OmegaConf.load(CONFIGS / "schedule" / f"{chosen}.yaml")
    merged: Any = OmegaConf.create({"method": composed.method, "schedule": schedule})
    changes = OmegaConf.from_dotlist([o for o in overrides if not o.startswith("schedule=")])
    try:
        OmegaConf.set_struct(merged, True)
        merged = OmegaConf.merge(merged, changes)
    except Exception as error:  # omegaconf raises many kinds; all mean a key that is not there
        raise SpectrumError(str(error).splitlines()[0]) from None
    plain: Any = OmegaConf.to_container(merged)
    return build_method(plain["method"], plain["schedule"])
