"""Rehearse the models that ship, each at its own size, and keep what their networks weigh and hold.

python scripts/memory.py [models=flux,sd35] [to=spectrum/assets/memory.json]

A plan and a refusal read the file in the place of a rehearsal. Run it again when a model's config or diffusers changes.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from spectrum.bench.rehearsal import rehearse
from spectrum.commands.guard import guarded, options, quiet, wants_help
from spectrum.config.compose import compose
from spectrum.config.reader import choices
from spectrum.core.errors import refuse
from spectrum.models.kept_rehearsals import KEPT, entry_of
from spectrum.records.files import write_bytes

USAGE = "python scripts/memory.py [models=flux,sd35] [to=FILE]"
OPTIONS = {"models": "names with commas between them; all by default", "to": f"the file; {KEPT.name} by default"}


def main() -> None:
    """Rehearse the models, and write the file."""
    if wants_help(sys.argv[1:], __doc__ or "", OPTIONS):
        return
    given = options(sys.argv[1:], OPTIONS, USAGE)
    quiet()
    path = Path(given.get("to", KEPT))
    known = choices("model")
    before = _before(path)
    found = {name: entry for name, entry in before.items() if name in known}
    for name in given["models"].split(",") if "models" in given else known:
        began = time.monotonic()
        config = compose([f"model={name}"])
        found[name] = entry_of(config, rehearse(config))
        write_bytes(path, _text(found).encode())
        print(f"{name}: {time.monotonic() - began:.0f} s {' '.join(found[name]['failed'])}", flush=True)


def _before(path: Path) -> dict[str, Any]:
    """What the file holds already."""
    try:
        found = json.loads(path.read_text()) if path.exists() else {}
    except (OSError, ValueError) as error:
        return refuse(f"to={path} cannot be read ({error}): delete it, or name another file")
    if not isinstance(found, dict) or not all(isinstance(entry, dict) for entry in found.values()):
        return refuse(f"to={path} holds no rehearsals: name another file")
    return found


def _text(found: dict[str, Any]) -> str:
    """JSON with a line for each model."""
    lines = [f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in sorted(found.items())]
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    sys.exit(guarded(main))
