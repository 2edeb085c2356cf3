"""Draw the figures from records and studies alone, as PNG and SVG.

python scripts/figures.py                       write them to outputs/figures
python scripts/figures.py to=results/figures    write the committed ones
python scripts/figures.py records=FOLDER        from other records
"""

import json
from pathlib import Path
from typing import Any

from eval.figures import cpu_figure, figures, plan_figures
from eval.figures.plotting import save
from eval.tables import cpu, tables
from eval.tables.experiments import load_experiment
from eval.tables.tables import ExperimentTable
from spectrum.commands.guard import options, records_folder, wants_help
from spectrum.config.reader import RESULTS, choices, plan_study
from spectrum.records.files import writable
from spectrum.records.record import read_records
from spectrum.records.study_file import read_studies

KINDS = ("png", "svg")


def save_in_both_formats(figure: Any, to: Path, name: str) -> None:
    """Write a figure as PNG and as SVG.

    Args:
        figure: a matplotlib figure.
        to: the folder.
        name: of the files.
    """
    for kind in KINDS:
        save(figure, to / f"{name}.{kind}")
    print(f"{to / name}.{{{','.join(KINDS)}}}")


def draw_experiment(name: str, table: ExperimentTable, to: Path) -> None:
    """Draw an ablation's figure, or a comparison's: quality against cost, and at 14 runs errors, timelines and weights.

    Args:
        name: of the experiment, and of the files.
        table: the experiment with its records.
        to: the folder.
    """
    varies = table.experiment.varies
    if varies:
        save_in_both_formats(figures.ablation_figure(table, varies), to, name)
        return
    records = table.records
    on = f"{table.experiment.title}: {records[0].model_kind}, {records[0].samples} samples"
    save_in_both_formats(figures.quality_figure(records, "psnr", on), to, name)
    few = [r for r in records if abs(r.nfe - 14) <= 0.5]
    if not few or len({round(r.nfe) for r in records if r.name != "none"}) > 2:
        return
    cached = [r for r in few if r.caches]
    weighted = [r for r in records if r.weights and r.name.startswith("spectrum")]
    parts = {
        "errors": figures.errors_figure(few, f"{on}: forecast error at 14 runs"),
        "timelines": figures.timelines_figure(cached, "Steps that ran the blocks"),
        "weights": figures.weights_figure(weighted, "Weights of the forecast at each skipped step"),
    }
    for part, figure in parts.items():
        save_in_both_formats(figure, to, f"{name}_{part}")


USAGE = "python scripts/figures.py [to=FOLDER] [records=FOLDER]"
OPTIONS = {
    "records": "the folder of the records; results/records by default",
    "to": "where the figures go; outputs/figures by default, results/figures for the committed ones",
}


def main(words: list[str]) -> None:
    """Draw all that the records and studies allow.

    Args:
        words: `records=FOLDER`, `to=FOLDER`.

    Raises:
        SpectrumError: if there are no records, or the figures cannot be written.
    """
    if wants_help(words, __doc__ or "", OPTIONS):
        return
    given = options(words, OPTIONS, USAGE)
    records = read_records(records_folder(Path(given.get("records", RESULTS / "records"))))
    to = writable(Path(given.get("to", "outputs/figures")), "to")
    for name in choices("experiment"):
        table = tables.match_rows(load_experiment(name), records)
        if not table.missing:
            draw_experiment(name, table, to)
        elif table.records:
            print(
                f"{name}: {len(table.missing)} of {len(table.rows)} rows have no record, so it is not drawn: type "
                f"python run.py experiment={name}"
            )
    for study in read_studies(RESULTS / "plan_study"):
        about = plan_study(study.name)
        title = f"{about['title']}: {study.model_kind}, {study.samples} samples"
        draw = plan_figures.budget_figure if about.get("across") == "runs" else plan_figures.plan_study_figure
        save_in_both_formats(draw(study, title), to, study.name)
    for path in sorted((RESULTS / "study").glob("*.json")):
        trace = json.loads(path.read_text())
        title = f"One full run of {len(trace['about']['prompts'])} prompts, {path.stem}: forecasts past a run, offline"
        save_in_both_formats(figures.distance_figure(trace, title), to, f"{path.stem}_distance")
    if embedded := cpu.read_parts(RESULTS / "cpu").get("embedded"):
        title = f"The embedded model beside the caches of others on a CPU, {embedded['batch']} samples a call"
        save_in_both_formats(cpu_figure.shares_figure(embedded, title), to, "cpu")
