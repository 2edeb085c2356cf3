"""Experiments: which runs a table is made of, found among the records, and the command of each that is missing.

An experiment is a file in `configs/experiment`: the lists it sweeps are the table's rows. Reads files alone.
"""

import csv
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from spectrum.errors import refuse
from spectrum.files import method_file, nearest_schedule, read


@dataclass(frozen=True)
class Row:
    """One run of an experiment: the keys that set it apart, as on the command line.

    Attributes:
        keys: overrides, `method`, `runs`, `schedule`, `method.blend` ... to their values.
        command: what makes its record.
        published: figures published for it, by column; empty where there are none.
    """

    keys: Mapping[str, Any]
    command: str
    published: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """What a table calls it while it has no record."""
        rest = ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in self.keys.items() if key != "method")
        return f"{self.keys['method']} ({rest})" if rest else str(self.keys["method"])


@dataclass(frozen=True)
class Experiment:
    """A table: its title, the method its intervals compare with, what all its rows share, and the rows."""

    name: str
    title: str
    against: str | None
    shared: Mapping[str, Any]
    rows: list[Row]


def load(name: str, published: Path | None = None) -> Experiment:
    """The experiment that `configs/experiment/NAME.yaml` describes, with figures published for its rows."""
    raw = read("experiment", name)
    about = raw["experiment"]
    shared = {key: value for key, value in _choices(raw.get("defaults", [])).items() if key != "eval"}
    shared |= {f"prompts.{key}": value for key, value in raw.get("prompts", {}).items()}
    shared |= {key: raw[key] for key in ("seeds", "timing") if key in raw}
    sweep = {key: _values(text) for key, text in raw["hydra"]["sweeper"]["params"].items()}
    rows: dict[str, Row] = {}
    for values in itertools.product(*sweep.values()):
        keys = dict(zip(sweep, values, strict=True))
        if keys["method"] == "none":
            keys.pop("runs", None)
        words = " ".join(f"{key}={value}" for key, value in {**shared, **keys}.items()).replace(", ", ",")
        metrics = _choices(raw.get("defaults", [])).get("eval", "default")
        command = f"python run.py {words} eval={metrics} records=results/records"
        rows.setdefault(words, Row(keys, command, _published(published, about.get("published"), keys)))
    return Experiment(name, about["title"], about.get("against"), shared, list(rows.values()))


def _choices(defaults: Sequence[Any]) -> dict[str, str]:
    """The config groups that an experiment's defaults list sets, without slashes."""
    pairs = [next(iter(entry.items())) for entry in defaults if isinstance(entry, dict)]
    return {key.removeprefix("override ").removeprefix("/"): value for key, value in pairs}


def _values(text: Any) -> list[Any]:
    return [yaml.safe_load(word) for word in str(text).split(",")]


def _published(path: Path | None, wanted: Mapping[str, Any] | None, keys: Mapping[str, Any]) -> dict[str, str]:
    """The published figures of a row: its line of `published.csv`, found by model, method and setting."""
    setting = (wanted or {}).get("settings", {}).get(str(keys["method"]), {}).get(keys.get("runs", 0))
    if path is None or wanted is None or setting is None:
        return {}
    with path.open() as file:
        for line in csv.DictReader(file):
            if (line["model"], line["method"], line["setting"]) == (wanted["model"], keys["method"], setting):
                return {key: value for key, value in line.items() if value}
    return refuse(f"{path} has no line {wanted['model']}, {keys['method']}, {setting}")


def find(row: Row, records: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The record of a row among those of its experiment's data: every setting of its method and schedule is the same.

    A setting that a file leaves null is the model's own fit and matches any value. With `runs` asked for, the record
    whose runs are nearest is taken, at most half a run off.
    """
    same = [r for r in records if _same_method(r, row.keys)]
    runs = row.keys.get("runs")
    if runs is not None:
        same = sorted((r for r in same if abs(r["nfe"] - runs) <= 0.5), key=lambda r: abs(r["nfe"] - runs))
    return same[0] if same else None


def same_data(records: Sequence[dict[str, Any]], shared: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Those made with the model, prompts, seeds, steps and size that an experiment's rows share."""
    prompts = read("prompts", str(shared.get("prompts", "heldout")))
    model = read("model", str(shared.get("model", "tiny")))
    limit = shared.get("prompts.limit", prompts.get("limit"))
    sampled = [model["name"], model["steps"], prompts.get("file"), limit, shared.get("seeds", [0])]
    sampled += [model[key] for key in ("height", "width", "dtype", "call")]

    def of(record: dict[str, Any]) -> list[Any]:
        own, given = record["model"], record["prompts_from"]
        found = [own["name"], record["steps"], given["file"], given["limit"], record["seeds"]]
        return found + [own[key] for key in ("height", "width", "dtype", "call")]

    return [record for record in records if of(record) == sampled]


def _same_method(record: Mapping[str, Any], keys: Mapping[str, Any]) -> bool:
    usual = method_file(str(keys["method"]))
    own = usual.pop("schedule")
    given = {key.partition(".")[2]: value for key, value in keys.items() if key.startswith("method.")}
    wanted = {**usual, **given}
    if "runs" in keys:
        wanted.pop("steps", None)
    stored = record["method"]
    if stored["name"] != wanted["name"] or any(stored.get(k) != v for k, v in wanted.items() if v is not None):
        return False
    name, differs = nearest_schedule(record["schedule"])
    rule = read("schedule", name)
    free = {k for k, v in rule.items() if v is None} | (set(rule.get("ladder") or {}) if "runs" in keys else set())
    asked = {key.partition(".")[2]: value for key, value in keys.items() if key.startswith("schedule.")}
    as_asked = all(record["schedule"].get(key) == value for key, value in asked.items())
    return name == keys.get("schedule", own) and as_asked and not set(differs) - free - set(asked)
