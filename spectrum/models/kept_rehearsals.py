"""The rehearsals that ship for the models: what their networks weigh and hold, so that nobody has to wait for these."""

import dataclasses
import functools
import importlib.metadata
import json
from typing import Any

from spectrum.config.reader import group_file
from spectrum.config.schema import BUILT, RunConfig
from spectrum.models.identity import ASSETS
from spectrum.models.need import Part, Rehearsed, Task
from spectrum.records.files import identity

KEPT = ASSETS / "memory.json"
"""Made by `scripts/memory.py`."""
_SIZES: dict[str, Any] = {"height": None, "width": None, "frames": None, "dtype": None, "call": {}, "vae": []}
"""The settings of a model that change its sizes alone, with what they are where its file has none."""


def kept_rehearsal(config: RunConfig) -> Rehearsed | None:
    """The rehearsal that ships for a config; None where none does, or something that it depends on was changed.

    Another version of diffusers than it was made with may build other networks.
    """
    entry = _kept().get(config.model.name)
    if entry is None or (entry["of"], entry["diffusers"]) != (rehearsal_id(config), _diffusers()):
        return None
    return Rehearsed(
        parts={name: Part(**part) for name, part in entry["parts"].items()},
        tasks=tuple(Task(**task) for task in entry["tasks"]),
        outputs=entry["outputs"],
        modules=entry["modules"],
        failed=tuple(entry["failed"]),
    )


def kept_outputs(config: RunConfig) -> list[list[int]] | None:
    """The shapes of what a model's denoiser returns for one sample at the model's own size; None if none are kept."""
    own = group_file("model", config.model.name)
    sizes = {key: own.get(key, default) for key, default in _SIZES.items()}
    model = dataclasses.replace(config.model, **sizes)
    found = kept_rehearsal(dataclasses.replace(config, model=model, batch=own.get("batch", 1)))
    return found.outputs or None if found is not None else None


def rehearsal_id(config: RunConfig) -> str:
    """Names all that a rehearsal depends on, but for what lies in a model's folder."""
    model = config.model
    kind = "tiny" if model.weights == "tiny" else "full" if model.weights in (*BUILT, "pretrained") else model.weights
    settings = ("pipeline", "hub", "dtype", "height", "width", "frames", "call", "vae", "architecture", "parts")
    return identity([kind, config.batch, *(getattr(model, name) for name in settings)])


def entry_of(config: RunConfig, found: Rehearsed) -> dict[str, Any]:
    """A rehearsal as `KEPT` holds it."""
    return {"of": rehearsal_id(config), "diffusers": _diffusers(), **dataclasses.asdict(found)}


@functools.cache
def _diffusers() -> str:
    return importlib.metadata.version("diffusers")


@functools.cache
def _kept() -> dict[str, Any]:
    return json.loads(KEPT.read_text()) if KEPT.exists() else {}
