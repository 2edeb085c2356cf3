"""Rewrite records of format 2 as this version's: new names of settings, new ids, nothing measured again.

python scripts/migrate_records.py records=FOLDER            write them to outputs/records
python scripts/migrate_records.py records=FOLDER to=FOLDER

Format 3 names functions by `_target_`, and the digest of the method's code is part of an id. The code of the methods
did not change between the two formats, so the new ids are those that the same command gives now. Every id that a record
holds is worked out again from what it names; a record whose ids do not fit its own settings is refused.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from eval.metrics.measure import asked
from spectrum.bench.identity import sample_id, schedule_settings, settings_id
from spectrum.bench.resolve import label, reference_of
from spectrum.commands.guard import guarded, options, records_folder, wants_help
from spectrum.config.code import method_code
from spectrum.config.methods import build_method
from spectrum.config.reader import method_file
from spectrum.config.schema import ModelConfig, PromptsConfig, RunConfig, changed_settings, method_from
from spectrum.core.errors import refuse
from spectrum.core.method import Method
from spectrum.models.identity import model_identity
from spectrum.records.files import identity, writable
from spectrum.records.record import FORMAT, parse_record, write_record

USAGE = "python scripts/migrate_records.py records=FOLDER [to=FOLDER]"
OPTIONS = {"records": "the folder of the old records", "to": "where the new ones go; outputs/records by default"}
SIGNALS = {
    "signal": "teacache",
    "modulated": "modulated_input",
    "front": "front_residual",
    "latents": "latents",
}
RENAMED = {"front": "front_blocks", "follow": "shared_decision", "usual": "fallback"}
NODES = {"forecast": "forecast", "drift": "drift", "mend": "correct"}
PARAMETERS: tuple[Mapping[str, Any], ...] = ({}, {"model": "tiny"}, {"model": "tiny", "checkpoint": None})


def moved(path: str) -> str:
    """The new dotted path of a function."""
    for module in ("forecast", "schedule"):
        path = path.replace(f"spectrum.{module}.", f"spectrum.core.{module}.")
    return path


def new_method(old: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a method under their new names."""
    own, _ = method_file(old["name"])
    found: dict[str, Any] = {"name": old["name"]}
    parameters = dict(old)
    for before, after in NODES.items():
        path = parameters.pop(before, None)
        if path is not None:
            known = [key for key in own[after] if not key.startswith("_")]
            found[after] = {"_target_": moved(path), "_partial_": True}
            found[after] |= {key: parameters.pop(key) for key in known if key in parameters}
    if "watch" in parameters:
        found["signal"] = SIGNALS[parameters.pop("watch")]
    for key, value in parameters.items():
        found[RENAMED.get(key, key)] = value
    if "fallback" in found:
        found["fallback"] = {RENAMED.get(key, key): value for key, value in found["fallback"].items()}
    return found


def config_of(old: Mapping[str, Any]) -> tuple[RunConfig, Method]:
    """The config and the method that a record was made with."""
    known = {entry.name for entry in fields(ModelConfig)}
    method = method_from(new_method(old["method"]))
    schedule = {key: value for key, value in old["schedule"].items() if key not in ("function", "ladder")}
    schedule = {"_target_": moved(old["schedule"]["function"]), "_partial_": True, **schedule}
    config = RunConfig(
        model=ModelConfig(**{key: value for key, value in old["model"].items() if key in known}),
        method=method,
        schedule=schedule,
        prompts=PromptsConfig(**old["prompts_from"]),
        eval={},
        seeds=old["seeds"],
        batch=old["batch"],
    )
    return config, build_method(method, schedule)


def new_metrics(old: Mapping[str, Any], ids: tuple[str, str]) -> dict[str, Any]:
    """The metrics of a record with the ids that its new names give."""
    found = {}
    for name, entry in old["metrics"].items():
        for parameters in PARAMETERS:
            if asked(name, parameters, old["id"], old["reference"]) == entry["asked"]:
                key = asked(name, parameters, *ids)
                found[name] = {**entry, "asked": key, "id": identity([key, entry["provenance"].get("sha256")])}
                break
        else:
            refuse(f"{old['id']}: the id of its {name} does not fit its settings")
    return found


def migrated(old: Mapping[str, Any]) -> Any:
    """A record of this version's format."""
    config, method = config_of(old)
    if model_identity(config.model) != old["model_identity"]:
        refuse(f"{old['id']} was made with other weights than those that are here")
    base = reference_of(config)
    settings = settings_id(config, old["prompts"])
    name = config.method.name
    ids = f"{name}-{sample_id(settings, method)}", f"none-{settings_id(base, old['prompts'])}"
    timing = old["timing"] and {**old["timing"], "id": identity([ids[0], old["timing"]["hardware"]])}
    model = {key: value for key, value in vars(config.model).items() if key != "tiny"}
    return parse_record(
        {
            **old,
            "format": FORMAT,
            "id": ids[0],
            "reference": ids[1],
            "settings": settings,
            "code": method_code(method),
            "label": label(config),
            "model": model,
            "method": changed_settings(config.method),
            "schedule": schedule_settings(config.schedule),
            "metrics": new_metrics(old, ids),
            "timing": timing,
        },
        old["id"],
    )


def main() -> None:
    """Migrate a folder of records."""
    words = sys.argv[1:]
    if wants_help(words, __doc__ or "", OPTIONS):
        return
    given = options(words, OPTIONS, USAGE)
    if "records" not in given:
        refuse(f"which records? type {USAGE}")
    paths = sorted(records_folder(Path(given["records"])).glob("*.json"))
    to = writable(Path(given.get("to", "outputs/records")), "to")
    for path in paths:
        record = migrated(json.loads(path.read_text()))
        write_record(to / f"{record.id}.json", record)
    print(f"{len(paths)} records written to {to}")


if __name__ == "__main__":
    sys.exit(guarded(main))
