"""Fit the plans of a study, and sample the held-out prompts with each.

python scripts/plans.py study=planner                               write it to outputs/plan_study/planner.json
python scripts/plans.py study=planner to=results/plan_study/planner.json write the committed one
python scripts/plans.py study=planner part=1/2                      measure every second row alone, beside part=2/2

A study is a file in configs/plan_study, which lists its rows. Each row is kept in outputs/plan_study/NAME as soon as
it is measured, and is taken from there as long as the code, the settings and the plan that it samples with are the
same; so a broken study goes on, and the command without part= puts the parts together.
"""

import dataclasses
import json
from pathlib import Path

from rich.console import Console

from spectrum.bench.plan_study import PlanBench, Trial, trials_of
from spectrum.bench.progress import Progress
from spectrum.bench.prompts import read_prompts
from spectrum.commands.guard import options, quiet, wants_help
from spectrum.config.compose import compose
from spectrum.config.reader import choices
from spectrum.core.errors import SpectrumError, refuse
from spectrum.models.identity import model_identity, model_kind
from spectrum.records.files import identity, writable, write_json
from spectrum.records.study_file import FORMAT, Study, StudyRow, write_study

USAGE = "python scripts/plans.py study=NAME [to=FILE] [part=1/2]"
OPTIONS = {
    "study": "a file of configs/plan_study",
    "to": "the file to write; outputs/plan_study/NAME.json by default",
    "part": "measure the rows of one part alone, and write no file: 1/2 and 2/2 side by side",
}


def main(words: list[str]) -> None:
    """Measure a study and write it.

    Args:
        words: `study=NAME`, `to=FILE`, `part=1/2`.

    Raises:
        SpectrumError: if there is no such study, or it cannot be written.
    """
    if wants_help(words, __doc__ or "", OPTIONS):
        return
    given = options(words, OPTIONS, USAGE)
    name = given.get("study", "")
    if name not in choices("plan_study"):
        refuse(f"which study? type study= with one of {', '.join(choices('plan_study'))}")
    to = Path(given.get("to", f"outputs/plan_study/{name}.json"))
    if to.is_dir():
        refuse(f"to={to} is a folder: type to=FILE")
    first, every = _part(given.get("part", "1/1"))
    if "part" not in given:
        writable(to.parent, "to")
    folder = Path("outputs/plan_study") / name
    folder.mkdir(parents=True, exist_ok=True)
    quiet()
    trials = trials_of(name)
    journals = folder / f"journals-{first + 1}-{every}"
    rows = _measured(trials[first::every], folder, journals, Console())
    if "part" in given:
        print(f"part {given['part']}: {len(rows)} of {len(trials)} rows in {folder}")
        return
    write_study(to, _study(name, trials, rows))
    print(f"{len(rows)} rows: {to}")


def _part(text: str) -> tuple[int, int]:
    """(the first row, every how many) of a part; `2/3` is (1, 3)."""
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        refuse(f"part={text} is no part: type part=1/2")
    return int(number) - 1, int(count)


def _measured(trials: list[Trial], folder: Path, journals: Path, console: Console) -> list[StudyRow]:
    """The rows of some trials; those that are not kept in the folder are measured, and kept there."""
    rows, refused = [], []
    with Progress(console) as progress:
        journals.mkdir(exist_ok=True)
        bench = PlanBench(journals, folder.parent, progress.start)
        try:
            done = progress.start("rows", len(trials), "rows")
            for trial in trials:
                try:
                    rows.append(_row(trial, folder, bench, console))
                except SpectrumError as error:
                    refused.append(f"{trial.text}: {error}")
                    console.print(refused[-1], markup=False, highlight=False, soft_wrap=True)
                done(1)
        finally:
            bench.close()
    if refused:
        refuse(f"{len(refused)} of {len(trials)} rows cannot be measured, the first of them {refused[0]}")
    return rows


def _row(trial: Trial, folder: Path, bench: PlanBench, console: Console) -> StudyRow:
    """A row from its file in a folder, or else measured and kept there."""
    path = folder / f"{trial.id}.json"
    if path.exists():
        return StudyRow(**json.loads(path.read_text()))
    row = bench.measured(trial)
    write_json(path, dataclasses.asdict(row))
    console.print(f"{trial.text}: {sum(row.psnr) / len(row.psnr):.2f} dB", highlight=False)
    return row


def _study(name: str, trials: list[Trial], rows: list[StudyRow]) -> Study:
    config = compose(["method=none", *trials[0].sample_words])
    return Study(
        format=FORMAT,
        name=name,
        model=config.model.name,
        model_kind=model_kind(config.model),
        model_identity=model_identity(config.model),
        prompts=identity(read_prompts(config.prompts)),
        samples=len(rows[0].psnr),
        seeds=config.seeds,
        batch=config.batch or 1,
        rows=rows,
    )
