"""List the model families: entry, config, what each method can do on it, whether weights are on this machine.

python scripts/models.py [format=json]
python scripts/models.py --probe [toys=NAME,NAME] [to=FILE]    what the hook does on every denoiser class of diffusers
"""

import json
import re
import textwrap
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from spectrum.commands.guard import bad_input, options, wants_help
from spectrum.config.compose import compose
from spectrum.config.reader import RESULTS, choices, group_file
from spectrum.core.errors import refuse
from spectrum.models.fitted import fits_of
from spectrum.models.identity import on_this_machine, weights_folder
from spectrum.models.layouts import DENOISERS

MATRIX = RESULTS / "conformance.md"
USAGE = "python scripts/models.py [format=json]"
OPTIONS = {"format": "text, or json"}


def refusals(matrix: Path) -> dict[str, list[str]] | None:
    """By model the methods that its toy refused, from the conformance matrix; None where there is no matrix."""
    if not matrix.exists():
        return None
    found: dict[str, list[str]] = {}
    for line in matrix.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) > 3 and re.match(r"refused", cells[2]):
            found.setdefault(cells[0], []).append(cells[1])
    return found


def model_facts(name: str, refused: list[str] | None) -> dict[str, Any]:
    """What is known of one model; `refused` is None where it is not known which methods it refuses."""
    model = compose([f"model={name}"]).model
    parts = (group_file("model", name).get("architecture") or {}).get("components", {})
    folder = weights_folder(model)
    if folder:
        parts = {
            part: {"class": json.loads((folder / part / "config.json").read_text())["_class_name"]}
            for part in ("transformer", "unet")
            if (folder / part).is_dir()
        }
    (denoiser,) = (spec["class"] for part, spec in parts.items() if part in ("transformer", "unet"))
    size = f"{model.width}x{model.height}" + (f"x{model.frames}" if model.frames else "")
    return {
        "model": name,
        "denoiser": denoiser,
        "exit": str(DENOISERS[denoiser].exits[0]) if denoiser in DENOISERS else "found at the first call",
        "size": size,
        "steps": model.steps,
        "fitted": sorted(fits_of(model)),
        "refused": refused,
        "weights": "here" if on_this_machine(model) else f"{model.size_gb:g} GB",
        "hub": model.hub,
    }


def main(words: list[str]) -> int:
    """Print the table, or JSON. A model whose file is broken is named with the reason; the others are listed.

    Args:
        words: `format=json`; with `--probe` those of the command `probe`.

    Returns:
        0; with `--probe` what that returns.
    """
    if "--probe" in words:
        from spectrum.commands import probe

        return probe.main([word for word in words if word != "--probe"])
    if wants_help(words, __doc__ or "", OPTIONS):
        return 0
    given = options(words, OPTIONS, USAGE)
    if given.get("format", "text") not in ("text", "json"):
        refuse(f"format={given['format']} is unknown: type format=text or format=json")
    refused = refusals(MATRIX)
    rows, broken = [], []
    for name in choices("model"):
        try:
            rows.append(model_facts(name, None if refused is None else refused.get(name, [])))
        except Exception as error:
            broken.append(f"{name}: {bad_input(error) or f'{type(error).__name__}: {error}'}")
    if given.get("format") == "json":
        print(json.dumps(rows, indent=1))
    else:
        print_models(rows)
    if broken:
        refuse("these models cannot be read: " + "; ".join(broken))
    return 0


def print_models(rows: list[dict[str, Any]]) -> None:
    """Print the table of models, 80 columns wide."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for head in ("model", "denoiser", "exit", "size", "steps", "weights"):
        right = "right" if head == "steps" else "left"
        table.add_column(head, overflow="fold", justify=right, no_wrap=head in ("model", "size", "weights"))
    for facts in rows:
        short = re.sub(r"Transformer[23]DModel|ConditionModel", "", facts["denoiser"])
        cells = [facts["model"], short, facts["exit"], facts["size"], str(facts["steps"]), facts["weights"]]
        table.add_row(*cells)
    Console().print(table)
    for key, title in (("fitted", "fitted"), ("refused", "refuses")):
        for methods in sorted({tuple(facts[key]) for facts in rows if facts[key]}):
            models = [facts["model"] for facts in rows if tuple(facts[key]) == methods]
            line = f"{title} {', '.join(methods)}: {', '.join(models)}"
            print(textwrap.fill(line, 80, subsequent_indent="  "))
    if any(facts["refused"] is None for facts in rows):
        print("which methods a model refuses: results/conformance.md in the project's checkout")
    print("teacache and magcache need a fit (scripts/calibrate.py); other methods run")
    print("unless refused. model.weights=pretrained (the weights above), random (full")
    print("architecture, drawn weights), tiny (toy width)")
