"""What the files under `configs` say, read without Hydra and without torch."""

import difflib
import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from spectrum.errors import refuse

_HERE = Path(__file__).resolve().parent
CONFIGS = next(path for path in (_HERE.parent / "configs", _HERE / "configs") if (path / "config.yaml").exists())


def unknown_key(key: str, known: Sequence[str]) -> str:
    """One line for a key that does not exist, with the nearest one that does."""
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"there is no key {key}" + (f": did you mean {near[0]}?" if near else f"; there are {', '.join(known)}")


@functools.cache
def names(group: str) -> tuple[str, ...]:
    """The choices of a config group."""
    return tuple(sorted(path.stem for path in (CONFIGS / group).glob("*.yaml")))


@functools.cache
def read(group: str, name: str) -> Mapping[str, Any]:
    """What `configs/GROUP/NAME.yaml` says, read once; not to be changed. Refuses a name that is not there."""
    if name not in names(group):
        refuse(f"there is no {group} {name}; there are {', '.join(names(group))}")
    raw: Any = OmegaConf.to_container(OmegaConf.load(CONFIGS / group / f"{name}.yaml"))
    return raw


def known_keys() -> list[str]:
    """Every dotted key that some config sets, for suggestions."""
    keys: set[str] = set()
    for path in CONFIGS.rglob("*.yaml"):
        group = path.parent.name if path.parent != CONFIGS else ""
        for line in path.read_text().splitlines():
            found = re.match(r"( *)(\w+):", line)
            if found and found[2] not in ("defaults", "hydra", "method"):
                keys.add(f"{group}.{found[2]}" if group else found[2])
    return sorted(keys)


def method_file(name: str) -> dict[str, Any]:
    """What `configs/method/NAME.yaml` says of the method, and under `schedule` the name of its own schedule."""
    raw = read("method", name)
    return {**raw["method"], "schedule": raw["defaults"][0]["override /schedule@_global_.schedule"]}


def nearest_schedule(schedule: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The file of `configs/schedule` that a schedule is nearest to, and what it has otherwise than that file."""
    best: tuple[str, dict[str, Any]] | None = None
    for name in names("schedule"):
        usual = read("schedule", name)
        if usual["function"] == schedule["function"]:
            differs = {k: v for k, v in schedule.items() if k != "ladder" and v != usual.get(k)}
            if best is None or len(differs) < len(best[1]):
                best = name, differs
    return best or (str(schedule["function"]), {})
