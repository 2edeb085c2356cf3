"""Experiments: which runs a table is made of, found among the records, and the command of each that is missing.

An experiment is a file in `configs/experiment`: the lists that it sweeps are the rows of its table.
"""

import csv
import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from spectrum.config.reader import choices, compose_each, group_files, method_files, nearest_schedule
from spectrum.config.schema import ModelConfig, RunConfig, plain_method
from spectrum.core.errors import refuse
from spectrum.models.identity import weights_folder
from spectrum.models.kept_plans import plan_path
from spectrum.records.plan_file import read_plan
from spectrum.records.record import Record


@dataclass(frozen=True)
class Row:
    """One run of an experiment: the keys that set it apart, as on the command line.

    Attributes:
        keys: overrides, `method`, `runs`, `schedule`, `method.forecast.blend` ... to their values.
        command: what makes its record.
        published: figures published for it, by column; empty where there are none.
        plan: the digest of the plan that it samples with; None where it has none, or none was fitted yet.
    """

    keys: Mapping[str, Any]
    command: str
    published: Mapping[str, str] = field(default_factory=dict)
    plan: str | None = None

    @property
    def label(self) -> str:
        """What a table calls it while it has no record."""
        rest = ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in self.keys.items() if key != "method")
        return f"{self.keys['method']} ({rest})" if rest else str(self.keys["method"])


@dataclass(frozen=True)
class Experiment:
    """A table.

    Attributes:
        name: of its file.
        title: heading.
        against: the method that differences are taken to; None for none.
        varies: the key of an ablation; None for a comparison of methods.
        data: what all rows are made on: model, prompts, seeds, batch, steps and size, as records name them.
        rows: its rows.
    """

    name: str
    title: str
    against: str | None
    varies: str | None
    data: Mapping[str, Any]
    rows: list[Row]


def load_experiment(name: str, published: Path | None = None) -> Experiment:
    """The experiment that `configs/experiment/NAME.yaml` describes, as Hydra composes it.

    Args:
        name: its name.
        published: a CSV file of published figures, which are put beside the rows; None for none.

    Raises:
        SpectrumError: if there is no such experiment, or the CSV lacks a line that it names.
    """
    if name not in choices("experiment"):
        refuse(f"there is no experiment {name}; there are {', '.join(choices('experiment'))}")
    composed, chosen = _composed()[name]
    about: Any = OmegaConf.to_container(composed.experiment)
    shared: dict[str, Any] = {
        group: chosen[group] for group in ("model", "prompts") if chosen[group] != _DEFAULT_CHOICES[group]
    }
    wanted = ("prompts.limit", "seeds", "batch", "timing")
    limit, seeds, batch, timing = (OmegaConf.select(composed, key) for key in wanted)
    shared |= {} if limit is None else {"prompts.limit": limit}
    shared |= {} if seeds in (None, [0]) else {"seeds": list(seeds)}
    shared |= {} if batch is None else {"batch": batch}
    shared |= {} if timing in (None, RunConfig.timing) else {"timing": timing}
    sweep = {key: _swept(key, text) for key, text in composed.hydra.sweeper.params.items()}
    model: Any = OmegaConf.to_container(composed.model)
    rows: dict[str, Row] = {}
    for values in itertools.product(*sweep.values()):
        keys = dict(zip(sweep, values, strict=True))
        if keys["method"] == "none":
            keys.pop("runs", None)
        words = " ".join(f"{key}={value}" for key, value in {**shared, **keys}.items()).replace(", ", ",")
        command = f"python run.py {words} eval={chosen['eval']} records=results/records"
        rows.setdefault(
            words, Row(keys, command, _published(published, about.get("published"), keys), _plan(model, keys))
        )
    data = {"name": model["name"], "steps": model["steps"], "file": composed.prompts.get("file"), "limit": limit}
    data |= {"seeds": list(seeds or [0]), "batch": batch or model["batch"], **{key: model[key] for key in _SIZE}}
    return Experiment(name, about["title"], about.get("against"), about.get("varies"), data, list(rows.values()))


_DEFAULT_CHOICES = {"model": "tiny", "prompts": "heldout", "eval": "default"}
"""The choices of `configs/config.yaml`, which a command need not name."""


@functools.cache
def _composed() -> dict[str, tuple[DictConfig, Mapping[str, str]]]:
    """Every experiment as Hydra composes it, with the model, prompts and metrics that it chooses."""
    return compose_each("experiment", _DEFAULT_CHOICES)


def _swept(key: str, text: Any) -> list[Any]:
    """The values of one key of a sweep, parsed as Hydra parses them: `[0,1],[2]` are two lists."""
    (override,) = OverridesParser.create().parse_overrides([f"{key}={text}"])
    if not override.is_sweep_override():
        return [yaml.safe_load(str(override.get_value_string()))]
    return [yaml.safe_load(word) for word in override.sweep_string_iterator()]


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


def _plan(model: dict[str, Any], keys: Mapping[str, Any]) -> str | None:
    """The digest of a row's plan: that of the file it names, or the one kept for its model and runs."""
    if "weights" not in (method_files()[str(keys["method"])][0]["forecast"] or {}):
        return None
    folder = weights_folder(ModelConfig(**model))
    path = Path(keys["plan"]) if keys.get("plan") else plan_path(folder, model["steps"], keys.get("runs"))
    return read_plan(path).digest if path is not None and path.is_file() else None


def find_record(row: Row, records: Sequence[Record]) -> Record | None:
    """The record of a row: every setting of its method and schedule is that of the row.

    A setting that a file leaves null is the model's own fit, and matches any value. If the row asks for `runs`, the
    record with the nearest number of runs is taken, at most half a run off.

    Args:
        row: the row.
        records: records made on the experiment's data.

    Raises:
        SpectrumError: if two records fit that differ in the code of their method alone.
    """
    same = [r for r in records if _same_method(r, row.keys) and _plan_of(r) == row.plan]
    runs = row.keys.get("runs")
    if runs is not None:
        same = sorted((r for r in same if abs(r.nfe - runs) <= 0.5), key=lambda r: abs(r.nfe - runs))
    if not same:
        return None
    twins = [r for r in same if r.settings == same[0].settings and r.code != same[0].code]
    if twins:
        refuse(
            f"the records {same[0].id} and {twins[0].id} have the same settings, and other code of {same[0].name} made "
            "each: delete the older one"
        )
    return same[0]


def _plan_of(record: Record) -> str | None:
    """The digest of the plan that a record was made with; empty for a forced one, which no row asks for."""
    about = record.method.get("plan")
    return about if about is None else about.get("digest") if about.get("sigmas") else ""


_SIZE = ("height", "width", "dtype", "call")


def made_on_same_data(records: Sequence[Record], data: Mapping[str, Any]) -> list[Record]:
    """The records made with the model, prompts, seeds, batch, steps and size that all rows of an experiment share.

    Args:
        records: any records.
        data: `Experiment.data`.
    """

    def data_of(record: Record) -> dict[str, Any]:
        own, source = record.model, record.prompts_from
        found = {"name": own["name"], "steps": record.steps, "file": source.file, "limit": source.limit}
        return {**found, "seeds": record.seeds, "batch": record.batch, **{key: own[key] for key in _SIZE}}

    return [record for record in records if data_of(record) == data]


def _same_method(record: Record, keys: Mapping[str, Any]) -> bool:
    """Whether a record was made with the method and schedule that a row's keys describe."""
    own, own_schedule = method_files()[str(keys["method"])]
    wanted = _leaves(own) | {key: value for key, value in keys.items() if key.startswith("method.")}
    if "runs" in keys and own["steps"] is not None:
        wanted.pop("method.steps", None)
    stored = _leaves(plain_method(record.method))
    if record.name != own["name"] or any(stored.get(k) != v for k, v in wanted.items() if v is not None):
        return False
    name, differs = nearest_schedule(record.schedule)
    if name != keys.get("schedule", own_schedule):
        return False
    rule = group_files("schedule")[name]
    searched = set(rule.get("runs_search") or {}) if "runs" in keys else set()
    of_a_plan = {"run_steps"} if "method.forecast.weights" in wanted else set()
    free = {key for key, value in rule.items() if value is None} | searched | of_a_plan
    asked = {key.partition(".")[2]: value for key, value in keys.items() if key.startswith("schedule.")}
    as_asked = all(record.schedule.get(key) == value for key, value in asked.items())
    return as_asked and not set(differs) - free - set(asked)


def _leaves(settings: Mapping[str, Any], prefix: str = "method.") -> dict[str, Any]:
    """Nested settings by their dotted keys."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        nested = isinstance(value, Mapping) and key != "fallback"
        found |= _leaves(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return found
