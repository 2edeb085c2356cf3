"""The one reader of configs: Hydra's compose over the folder `configs`. Needs no torch."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from spectrum.config.overrides import check_overrides
from spectrum.config.schema import plain_method, register
from spectrum.core.errors import refuse

_HERE = Path(__file__).resolve().parent.parent
CONFIGS = next(path for path in (_HERE / "configs", _HERE.parent / "configs") if (path / "config.yaml").exists())
"""The folder of the configs: beside the package in a checkout, inside it where it is installed."""
RESULTS = Path("results") if CONFIGS.parent == _HERE else CONFIGS.parent / "results"
"""The folder of the committed records: the checkout's; where the project is installed, that of the working folder."""
GROUPS = ("model", "method", "schedule", "prompts", "eval", "logger", "planner", "experiment")


@contextmanager
def _hydra() -> Iterator[None]:
    """Hydra ready to compose: the one that runs the command, or one of our own."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    register()
    if GlobalHydra.instance().is_initialized():
        yield
        return
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        yield


def compose_raw(overrides: Sequence[str] = (), name: str | None = "config", hydra: bool = False) -> DictConfig:
    """What Hydra composes from a command line's overrides.

    Args:
        overrides: words like `method=fora` and `schedule.interval=6`.
        name: the file to start from, relative to `configs`; None to start from nothing.
        hydra: whether the result keeps Hydra's own settings, under `hydra`.

    Raises:
        hydra.errors.HydraException, omegaconf.errors.OmegaConfBaseException: for what cannot be composed.
    """
    from hydra import compose

    check_overrides(overrides)
    with _hydra():
        return compose(name, list(overrides), return_hydra_config=hydra)


def choices(group: str) -> tuple[str, ...]:
    """The names in a config group, sorted."""
    return tuple(sorted(path.stem for path in (CONFIGS / group).glob("*.yaml")))


def compose_each(group: str, defaults: Mapping[str, str]) -> dict[str, tuple[DictConfig, Mapping[str, str]]]:
    """What each file of a group composes to, all in one composition: a composition costs Hydra 50 ms, a file 5 ms.

    Args:
        group: a config group.
        defaults: the other groups that its files may override, each with its choice where they do not.

    Returns:
        By name, what the file and its choices of the other groups compose to, and those choices.

    Raises:
        hydra.errors.HydraException, omegaconf.errors.OmegaConfBaseException: for what cannot be composed.

    Example:
        >>> compose_each("method", {"schedule": "always"})["fora"][1]
        {'schedule': 'fixed_interval_from_end'}
    """
    from hydra.errors import HydraException

    words = []
    for name in choices(group):
        words += [f"+{other}@each.{name}.{other}={choice}" for other, choice in defaults.items()]
        words.append(f"+{group}@each.{name}={name}")
    try:
        composed = compose_raw(words, name=None, hydra=True)
    except HydraException:  # a file that is based on another one, or overrides more, has to be composed alone
        alone = {name: compose_raw([f"{group}={name}"], hydra=True) for name in choices(group)}
        return {name: (one, {key: one.hydra.runtime.choices[key] for key in defaults}) for name, one in alone.items()}
    chosen = composed.hydra.runtime.choices
    return {
        name: (composed.each[name], {key: chosen[f"{key}@each.{name}.{key}"] for key in defaults})
        for name in choices(group)
    }


@functools.cache
def group_file(group: str, name: str) -> Mapping[str, Any]:
    """What `configs/GROUP/NAME.yaml` says by itself. Cached: not to be changed.

    Raises:
        SpectrumError: if there is no such file.
    """
    if name not in choices(group):
        refuse(f"there is no {group} {name}; there are {', '.join(choices(group))}")
    raw: Any = OmegaConf.to_container(compose_raw(name=f"{group}/{name}"))
    for part in group.split("/"):
        raw = raw[part]
    return raw


def plan_study(name: str) -> Mapping[str, Any]:
    """What `configs/plan_study/NAME.yaml` says. It is no group of Hydra's: it lists the rows of a study.

    Raises:
        SpectrumError: if there is no such file.
    """
    if name not in choices("plan_study"):
        refuse(f"there is no study {name}: type one of {', '.join(choices('plan_study'))}")
    return yaml.safe_load((CONFIGS / "plan_study" / f"{name}.yaml").read_text())


@functools.cache
def method_files() -> Mapping[str, tuple[Mapping[str, Any], str]]:
    """`method_file` of every method, by name. Cached: not to be changed."""
    found: dict[str, tuple[Mapping[str, Any], str]] = {}
    for name, (composed, chosen) in compose_each("method", {"schedule": "always"}).items():
        raw: Any = OmegaConf.to_container(composed.method, enum_to_str=True)
        found[name] = plain_method(raw), chosen["schedule"]
    return found


@functools.cache
def group_files(group: str) -> Mapping[str, Mapping[str, Any]]:
    """`group_file` of every file in a group, by name, in one composition. Cached: not to be changed."""
    composed = compose_raw([f"+{group}@{name}={name}" for name in choices(group)], name=None)
    found: Any = OmegaConf.to_container(composed)
    return found


@functools.cache
def method_file(name: str) -> tuple[Mapping[str, Any], str]:
    """(what `configs/method/NAME.yaml` says of the method with all defaults, the name of its own schedule).

    Cached: not to be changed.
    """
    if name not in choices("method"):
        refuse(f"there is no method {name}; there are {', '.join(choices('method'))}")
    composed = compose_raw([f"method={name}"], hydra=True)
    raw: Any = OmegaConf.to_container(composed.method, enum_to_str=True)
    return raw, composed.hydra.runtime.choices["schedule"]


def nearest_schedule(schedule: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The file of `configs/schedule` that a schedule is nearest to, and what it has otherwise than that file."""
    best: tuple[str, dict[str, Any]] | None = None
    for name, own in group_files("schedule").items():
        if own["_target_"] == schedule["_target_"]:
            differs = {k: v for k, v in schedule.items() if k != "runs_search" and v != own.get(k)}
            if best is None or len(differs) < len(best[1]):
                best = name, differs
    return best or (str(schedule["_target_"]), {})
