"""Draw the figures from records and studies alone, as PNG and SVG.

python scripts/figures.py                       write them to outputs/figures
python scripts/figures.py to=results/figures    write the committed ones
python scripts/figures.py records=FOLDER        from other records
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eval.figures import figures
from eval.tables import tables
from eval.tables.experiments import load_experiment
from eval.tables.tables import Filled
from spectrum.commands.guard import options, wants_help
from spectrum.config.reader import RESULTS, choices
from spectrum.core.errors import refuse
from spectrum.records.record import read_records

KINDS = ("png", "svg")


def draw_in_both_formats(draw: Callable[..., None], to: Path, name: str, *given: Any) -> None:
    """Draw one figure in both formats."""
    for kind in KINDS:
        draw(to / f"{name}.{kind}", *given)
    print(f"{to / name}.{{{','.join(KINDS)}}}")


def draw_experiment(name: str, filled: Filled, to: Path) -> None:
    """An ablation's figure, or a comparison's curve, errors, timelines and weights."""
    varies = filled.experiment.varies
    if varies:
        draw_in_both_formats(figures.ablation, to, name, filled, varies)
        return
    budgets = {round(r.nfe) for r in filled.records if r.name != "none"}
    first = filled.records[0]
    on = f"{filled.experiment.title}: {first.model_kind}, {first.samples} samples"
    draw_in_both_formats(figures.curve, to, name, filled.records, "psnr", on)
    if len(budgets) > 2:
        return
    few = [r for r in filled.records if abs(r.nfe - 14) <= 0.5]
    draw_in_both_formats(figures.errors, to, f"{name}_errors", few, f"{on}: forecast error at 14 runs")
    draw_in_both_formats(figures.timelines, to, f"{name}_timelines", [r for r in few if r.caches], "Steps that ran")
    weighted = [r for r in filled.records if r.weights and r.name.startswith("spectrum")]
    draw_in_both_formats(
        figures.weights, to, f"{name}_weights", weighted, "Weights of the forecast at each skipped step"
    )


USAGE = "python scripts/figures.py [to=FOLDER] [records=FOLDER]"
OPTIONS = {
    "records": "the folder of the records; results/records by default",
    "to": "where the figures go; outputs/figures by default, results/figures for the committed ones",
}


def main(words: list[str]) -> None:
    """Draw all that the records and studies allow.

    Args:
        words: `records=FOLDER`, `to=FOLDER`.
    """
    if wants_help(words, __doc__ or "", OPTIONS):
        return
    given = options(words, OPTIONS, USAGE)
    folder = Path(given.get("records", RESULTS / "records"))
    if not folder.is_dir():
        refuse(f"there is no folder {folder}: make records with python run.py records={folder}")
    records = read_records(folder)
    to = Path(given.get("to", "outputs/figures"))
    for name in choices("experiment"):
        filled = tables.match_rows(load_experiment(name), records)
        if not filled.missing:
            draw_experiment(name, filled, to)
        elif filled.records:
            print(
                f"{name}: {len(filled.missing)} of {len(filled.rows)} rows have no record, so it is not drawn: type "
                f"python run.py experiment={name}"
            )
    for path in sorted((RESULTS / "study").glob("*.json")):
        study = json.loads(path.read_text())
        title = f"One full run of {len(study['about']['prompts'])} prompts, {path.stem}: forecasts past a run, offline"
        draw_in_both_formats(figures.distance, to, f"{path.stem}_distance", study, title)
