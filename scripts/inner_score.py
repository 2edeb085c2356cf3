"""How well the score without sampling ranks schedules as sampling with them does: Spearman's correlation.

python scripts/inner_score.py [runs=6,10,14] [schedules=100] [to=outputs/inner_score.json] [model=tiny] [key=value ...]

Schedules are drawn for each number of runs: anywhere (any steps beside the first), and near (three moves from the one
that the planner finds). Each is sampled with weights fitted in the loop on 8 calibration prompts, and scored without
sampling in every way that planners know, with the gain of errors and without it. Schedules that were scored before are
taken from the journal in outputs/plans.
"""

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np
from rich.console import Console

from eval.tables.inner_score import table
from spectrum.bench.fitting import Asked, Fitting
from spectrum.bench.progress import Progress
from spectrum.bench.prompts import read_prompts
from spectrum.bench.provenance import environment
from spectrum.commands.calibrate import check_fit_prompts
from spectrum.commands.guard import guarded, quiet, split_options, wants_help, with_defaults
from spectrum.config.compose import compose
from spectrum.core.errors import refuse
from spectrum.models.identity import model_identity, model_kind
from spectrum.models.kept_plans import PLANS
from spectrum.models.pipelines import device_of, load_pipeline
from spectrum.planning.evaluate import Evaluate
from spectrum.planning.planners import Runs, check_budget, moved
from spectrum.planning.scores import KINDS, cost_of, shortest
from spectrum.records.files import write_json

MOVES = 3
"""From the planner's schedule to those near it."""
TRIES = 50
"""How many schedules are drawn for each one that is wanted, before it is given up that there are so many."""
OPTIONS = {
    "runs": "numbers of block runs with commas between them; 6,10,14 by default",
    "schedules": "how many are drawn of each kind; 100 by default",
    "to": "the file; outputs/inner_score.json by default",
}


def drawn(kind: str, start: Runs, steps: int, count: int, random: np.random.Generator) -> list[Runs]:
    """Different schedules with as many runs as `start`.

    Args:
        kind: `anywhere`, or `near` for `MOVES` moves from `start`.
        start: a good schedule.
        steps: number of denoising steps.
        count: how many.
        random: draws them.

    Returns:
        The run steps of each.

    Raises:
        SpectrumError: if so many different ones are not found.
    """
    found: dict[Runs, None] = {}
    for _ in range(TRIES * count):
        if len(found) == count:
            break
        if kind == "near":
            schedule = start
            for _ in range(MOVES):
                schedule = moved(schedule, steps, random)
        else:
            free = random.choice(np.arange(1, steps), len(start) - 1, replace=False)
            schedule = (0, *sorted(int(step) for step in free))
        found[schedule] = None
    if len(found) < count:
        refuse(f"there are only about {len(found)} schedules of {len(start)} runs {kind}: type schedules={len(found)}")
    return list(found)


def scored(evaluate: Evaluate, runs: int, count: int, progress: Progress) -> list[dict[str, Any]]:
    """Both kinds of schedules for one number of runs, with what sampling and every score say of them.

    Args:
        evaluate: samples with a schedule.
        runs: number of block runs.
        count: how many schedules of each kind.
        progress: shows how far it is.

    Returns:
        For each kind `runs`, `drawn`, `schedules`, `sampled` (dB) and `scores` (by name).
    """
    own, plain = evaluate.traced(), evaluate.traced(gain=False)
    tables = {kind: own.table(kind) for kind in KINDS} | {f"{kind}, no gain": plain.table(kind) for kind in KINDS}
    start = shortest(tables["fitted"], runs)
    found = []
    for number, kind in enumerate(("anywhere", "near")):
        schedules = drawn(kind, start, evaluate.steps, count, np.random.default_rng([runs, number]))
        done = progress.start(f"{runs} runs, {kind}", count, "schedules")
        sampled = []
        for schedule in schedules:
            sampled.append(evaluate(schedule))
            done(1)
        scores = {name: [-cost_of(whole, schedule) for schedule in schedules] for name, whole in tables.items()}
        about = {"runs": runs, "drawn": kind, "schedules": [list(one) for one in schedules]}
        found.append({**about, "sampled": sampled, "scores": scores})
    return found


def _number(key: str, text: str, usual: str) -> int:
    if not text.isdecimal() or int(text) < 2:
        refuse(f"{key}={text} is no whole number of at least 2: type {key}={usual}")
    return int(text)


def main() -> None:
    """Draw, sample and score; print the table and keep the values."""
    if wants_help(sys.argv[1:], __doc__ or "", OPTIONS):
        return
    given, words = split_options(sys.argv[1:], OPTIONS, "python scripts/inner_score.py runs=10")
    budgets = [_number("runs", word, "10") for word in given.get("runs", "6,10,14").split(",")]
    count = _number("schedules", given.get("schedules", "100"), "100")
    config = compose(with_defaults(words, "method=none", "prompts=calibration", "prompts.limit=8", "batch=8"))
    check_fit_prompts(config)
    for runs in budgets:
        check_budget(config.model.steps, runs)
    quiet()
    console, device = Console(), device_of(config.device)
    pipe = load_pipeline(config.model, device)
    found: list[dict[str, Any]] = []
    with Progress(console) as progress, Fitting(config, [pipe], Asked(budgets[0]).site, progress.start) as fitting:
        for runs in budgets:
            evaluate = fitting.evaluate(Asked(runs), Path(config.out) / PLANS)
            found += scored(evaluate, runs, count, progress)
    about: dict[str, Any] = {"model": config.model.name, "model_identity": model_identity(config.model)}
    about |= {"model_kind": model_kind(config.model), "prompts": len(read_prompts(config.prompts))}
    write_json(Path(given.get("to", "outputs/inner_score.json")), {**about, "rows": found, **environment(device)})
    console.print(table(found), markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(guarded(main))
