"""Draw the figures from records and studies alone, as PNG and SVG.

python scripts/figures.py                                results/figures
python scripts/figures.py records=FOLDER to=FOLDER       other records
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from eval import experiment, figures, tables
from eval.tables import Filled
from spectrum.files import names, read
from spectrum.main import guarded, pairs
from spectrum.store import read_records

KINDS = ("png", "svg")


def both(draw: Callable[..., None], to: Path, name: str, *given: Any) -> None:
    """Draw one figure in both formats."""
    for kind in KINDS:
        draw(to / f"{name}.{kind}", *given)
    print(f"{to / name}.{{{','.join(KINDS)}}}")


def of_experiment(name: str, filled: Filled, to: Path) -> None:
    """An ablation's figure, or a comparison's curve, errors, timelines and weights."""
    varies = read("experiment", name)["experiment"].get("varies")
    if varies:
        both(figures.ablation, to, name, filled, varies)
        return
    budgets = {round(r["nfe"]) for r in filled.records if r["method"]["name"] != "none"}
    first = filled.records[0]
    on = f"{filled.experiment.title}: {first['model_kind']}, {first['samples']} samples"
    both(figures.curve, to, name, filled.records, "psnr", on)
    if len(budgets) > 2:
        return
    few = [r for r in filled.records if abs(r["nfe"] - 14) <= 0.5]
    both(figures.errors, to, f"{name}_errors", few, f"{on}: forecast error at 14 runs")
    both(figures.timelines, to, f"{name}_timelines", [r for r in few if r["method"]["forecast"]], "Steps that ran")
    weighted = [r for r in filled.records if r["weights"] and r["method"]["name"].startswith("spectrum")]
    both(figures.weights, to, f"{name}_weights", weighted, "Weights of the forecast at each skipped step")


def main() -> None:
    """Draw all that the records and studies allow."""
    given = pairs(sys.argv[1:], ("records", "to"), "python scripts/figures.py [records=FOLDER] [to=FOLDER]")
    records = read_records(Path(given.get("records", ROOT / "results" / "records")))
    to = Path(given.get("to", ROOT / "results" / "figures"))
    for name in names("experiment"):
        filled = tables.fill(experiment.load(name), records)
        if not filled.missing:
            of_experiment(name, filled, to)
        elif filled.records:
            print(f"{name}: {len(filled.missing)} of {len(filled.rows)} rows have no record, so it is not drawn: type "
                  f"python run.py experiment={name}")  # fmt: skip
    for path in sorted((ROOT / "results" / "study").glob("*.json")):
        study = json.loads(path.read_text())
        title = f"One full run of {len(study['about']['prompts'])} prompts, {path.stem}: forecasts past a run, offline"
        both(figures.distance, to, f"{path.stem}_distance", study, title)


if __name__ == "__main__":
    sys.exit(guarded(main, models=False))
