"""List the model families: entry, config, what each method can do on it, whether weights are on this machine.

python scripts/models.py [format=json]
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from rich import box
from rich.console import Console
from rich.table import Table

from spectrum.config import ModelConfig, compose
from spectrum.denoisers import DENOISERS
from spectrum.errors import refuse
from spectrum.files import names, read
from spectrum.main import guarded, pairs
from spectrum.pipeline import calibration, on_this_machine, weights_folder

MATRIX = ROOT / "results" / "conformance.md"


def refusals(matrix: Path) -> dict[str, list[str]]:
    """By model the methods that its toy refused, from the conformance matrix."""
    found: dict[str, list[str]] = {}
    for line in matrix.read_text().splitlines() if matrix.exists() else []:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) > 3 and re.match(r"refused", cells[2]):
            found.setdefault(cells[0], []).append(cells[1])
    return found


def row(name: str, refused: list[str]) -> dict[str, Any]:
    """What is known of one model."""
    model: ModelConfig = compose([f"model={name}"]).model
    parts = read("model", name).get("architecture", {}).get("components", {})
    folder = weights_folder(model)
    if folder:
        parts = {
            "transformer": {"class": json.loads((folder / "transformer" / "config.json").read_text())["_class_name"]}
        }
    (denoiser,) = (spec["class"] for part, spec in parts.items() if part in ("transformer", "unet"))
    size = f"{model.width}x{model.height}" + (f"x{model.frames}" if model.frames else "")
    return {
        "model": name,
        "denoiser": denoiser,
        "exit": DENOISERS[denoiser].exit,
        "size": size,
        "steps": model.steps,
        "fitted": sorted(calibration(model)),
        "refused": refused,
        "weights": "here" if on_this_machine(model) else f"{model.size_gb:g} GB",
        "hub": model.hub,
    }


def main() -> None:
    """Print the table, or JSON."""
    given = pairs(sys.argv[1:], ("format",), "python scripts/models.py [format=json]")
    if given.get("format", "text") not in ("text", "json"):
        refuse(f"format={given['format']} is unknown: type format=text or format=json")
    refused = refusals(MATRIX)
    rows = [row(name, refused.get(name, [])) for name in names("model")]
    if given.get("format") == "json":
        print(json.dumps(rows, indent=1))
        return
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for head in ("model", "denoiser", "exit", "size", "steps", "weights", "fitted", "refuses"):
        right = "right" if head == "steps" else "left"
        table.add_column(head, overflow="fold", justify=right, no_wrap=head in ("model", "size", "weights"))
    for r in rows:
        short = re.sub(r"Transformer[23]DModel|ConditionModel", "", r["denoiser"])
        cells = [r["model"], short, r["exit"], r["size"], str(r["steps"]), r["weights"]]
        table.add_row(*cells, ", ".join(r["fitted"]), ", ".join(r["refused"]))
    Console().print(table)
    print("teacache and magcache need a fit (scripts/calibrate.py); every other method that is not refused runs")
    print("model.weights=pretrained (the weights above), random (full architecture, drawn weights), tiny (toy width)")


if __name__ == "__main__":
    sys.exit(guarded(main))
