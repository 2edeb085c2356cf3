"""Which weights a model has: the folder they lie in, their digest, and the name that pins them in a record."""

import hashlib
import json
from functools import cache
from pathlib import Path

from spectrum.config.schema import BUILT, ModelConfig
from spectrum.core.errors import refuse
from spectrum.models.sources import EMBEDDED_HUB, cached_file, model_item
from spectrum.records.files import identity

ASSETS = Path(__file__).resolve().parent.parent / "assets"
EMBEDDED = ASSETS / "tiny"
"""The folder of the embedded model."""


def weights_folder(model: ModelConfig) -> Path | None:
    """The local folder that a model's weights are in; None where they come from the hub or are drawn.

    Raises:
        SpectrumError: if `model.weights` names a folder that is not there.
    """
    if model.weights == "pretrained":
        where, _, name = model.hub.partition("/")
        return ASSETS / (name or EMBEDDED.name) if where == EMBEDDED_HUB else None
    if model.weights in BUILT:
        return None
    if not model.weights.strip() or not Path(model.weights).is_dir():
        refuse(
            f"model={model.name}: there is no folder {model.weights}: type model.weights=pretrained, random, tiny, or "
            "a folder of diffusers weights"
        )
    return Path(model.weights)


def model_kind(model: ModelConfig) -> str:
    """Which kind of model a figure was made with, for people."""
    if model.weights in BUILT:
        return BUILT[model.weights]
    folder = weights_folder(model)
    if folder is None:
        return "real weights"
    return "embedded, trained" if folder.resolve().parent == ASSETS else f"weights of the user's folder {folder.name}"


def on_this_machine(model: ModelConfig) -> bool:
    """Whether a model's weights can be loaded without a download, as far as their index tells."""
    if model.weights in BUILT or weights_folder(model) is not None:
        return True
    item = model_item(model)
    return item is None or item.here


@cache
def digest(folder: Path) -> str:
    """SHA-256 over the names and bytes of a folder's configs and weights, without what was fitted on them."""
    total = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.suffix in (".json", ".safetensors", ".txt", ".model")):
        if path.name not in ("digest.json", "calibration.json") and path.parent.name != "plans":
            total.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


def check_digest(folder: Path) -> None:
    """Refuse a folder whose files do not match the digest that lies beside them; one without a digest passes."""
    note = folder / "digest.json"
    if not note.exists():
        return
    try:
        expected = json.loads(note.read_text())["sha256"]
    except (ValueError, KeyError, TypeError, UnicodeDecodeError):
        refuse(f"{note} is damaged: restore the folder, or delete the file to load its weights unchecked")
    if expected != digest(folder):
        refuse(f"the weights in {folder} do not match their digest, a file is damaged or changed: restore the folder")


def model_identity(model: ModelConfig) -> str:
    """What pins a model's weights in a record.

    A folder's digest, the hub's name and revision, or for built models the digest of their architecture.
    """
    if model.weights in BUILT:
        return f"{model.weights}:{identity(model.architecture)}"
    folder = weights_folder(model)
    own = digest(folder) if folder else f"{model.hub}@{model.revision or _commit(model.hub, 'model_index.json')}"
    published = [part for part in model.parts.values() if "hub" in part]
    parts: dict[str, str] = {}
    for part in published:
        file = "/".join([*filter(None, [part.get("subfolder")]), "config.json"])
        pinned = None if Path(part["hub"]).is_dir() else part.get("revision")
        commit = pinned or _commit(part["hub"], file)
        parts[part["hub"]] = commit if parts.get(part["hub"], "main") == "main" else parts[part["hub"]]
    return "+".join([own, *(f"{hub}@{revision}" for hub, revision in parts.items())])


def _commit(hub: str, file: str) -> str:
    """The commit that this machine's copy of a hub repository is of."""
    found = None if Path(hub).is_dir() else cached_file(hub, file)
    return "main" if found is None else found.parents[file.count("/")].name
