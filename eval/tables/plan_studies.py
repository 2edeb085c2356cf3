"""The tables of plan studies: one line a row, or one factor across. Pure functions of the study, without torch."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eval.statistics import interval, worst
from eval.tables.comparison import csv_text, markdown_table, with_half
from spectrum.records.plan_file import FITTED
from spectrum.records.study_file import Study, StudyRow

DEFAULTS = {"method": "planned", "forecast": FITTED, "planner": "traced", "site": "output"}
"""What a key that a row does not name stands for."""
PROMPTS = {"heldout": "held-out prompts", "development": "development prompts", "classes": "held-out classes"}
"""What the tables call a list of prompts."""
SHOWN = ("runs", "planner.run_steps")
"""Keys that have columns of their own."""
NONE = "-"


def title_of(about: Mapping[str, Any], study: Study) -> str:
    """Heading and what the study was made on.

    Args:
        about: its file in `configs/plan_study`.
        study: the study.
    """
    prompts, seeds = study.samples // len(study.seeds), len(study.seeds)
    kind = PROMPTS.get(name := about.get("sampled", {}).get("prompts", "heldout"), f"{name} prompts")
    each = "1 seed" if seeds == 1 else f"{seeds} seeds"
    return (
        f"# {about['title']}\n\nModel: {study.model} ({study.model_kind}). Each row has {study.samples} samples: "
        f"{prompts} {kind} with {each}, in batches of {study.batch}. "
        "PSNR is to the uncached run with the same settings, in dB, ± half of the 95 % interval over the prompts."
    )


def varying(study: Study) -> list[str]:
    """The keys of a study's rows that are not the same in all of them."""
    keys = dict.fromkeys(key for row in study.rows for key in row.keys)
    return [key for key in keys if len({repr(row.keys.get(key, DEFAULTS.get(key))) for row in study.rows}) > 1]


def value_of(row: StudyRow, key: str) -> str:
    """A row's value of a key as text; empty where the row does not name it and nothing stands for that.

    A row of a method, or of a plan that ships, was not fitted for the study, so no planner stands for it.
    """
    default = DEFAULTS.get(key, "") if "method" not in row.keys else ""
    return str(row.keys.get(key, default))


def name_of(row: StudyRow, keys: Sequence[str]) -> str:
    """What a table calls a row: its values of some keys.

    Args:
        row: the row.
        keys: the keys; those that have a column are left out.
    """
    words = []
    for key in keys:
        value = value_of(row, key)
        if key in SHOWN or not value:
            continue
        short = key.removeprefix("at.").removeprefix("model.").removeprefix("call.")
        words.append(value if key in DEFAULTS else f"{'at ' if key.startswith('at.') else ''}{short} {value}")
    return ", ".join(words) or "as it is"


def psnr_cell(row: StudyRow, study: Study) -> str:
    """The mean PSNR ± half of its interval."""
    return with_half(*interval(row.psnr, len(study.seeds)), 2)


def markdown(about: Mapping[str, Any], study: Study) -> str:
    """A study's table, with what is across it as columns, or a line for each row.

    Args:
        about: its file in `configs/plan_study`.
        study: the study.
    """
    return f"{title_of(about, study)}\n\n{body(about, study)}"


def body(about: Mapping[str, Any], study: Study) -> str:
    """The same without a heading."""
    across = about.get("across")
    table = _long(study) if across is None else _across(study, across)
    return f"{table}\n{about.get('note', '')}".rstrip() + "\n"


def _long(study: Study) -> str:
    keys = varying(study)
    heads = ["", "runs", "PSNR (dB)", "PSNR, worst 5 %", "cost of the fit", "run steps"]
    lines = []
    for row in study.rows:
        cost = NONE if row.full_runs is None else f"{row.full_runs:.0f}"
        low = f"{worst(row.psnr, len(study.seeds))[0]:.2f}"
        steps = " ".join(map(str, row.run_steps))
        lines.append([name_of(row, keys), f"{row.nfe:g}", psnr_cell(row, study), low, cost, steps])
    return markdown_table(heads, lines)


def _across(study: Study, across: str) -> str:
    keys = [key for key in varying(study) if key != across]
    columns = list(dict.fromkeys(value_of(row, across) for row in study.rows))
    columns = sorted(columns, key=float, reverse=True) if across == "runs" else columns
    found: dict[tuple[str, ...], dict[str, StudyRow]] = {}
    rivals: dict[tuple[str, ...], list[StudyRow]] = {}
    for row in study.rows:
        line = (name_of(row, keys),) if across == "runs" else (name_of(row, keys), value_of(row, "runs"))
        found.setdefault(line, {})[value_of(row, across)] = row
        rivals.setdefault((value_of(row, "runs"),) if across == "runs" else line, []).append(row)
    fewest = 3 if across == "runs" else 2
    best = [max(rows, key=lambda row: float(np.mean(row.psnr))) for rows in rivals.values() if len(rows) >= fewest]
    lines = []
    for line, cells in found.items():
        shown = {key: psnr_cell(row, study) for key, row in cells.items()}
        marked = {key: f"**{text}**" if cells[key] in best else text for key, text in shown.items()}
        lines.append([*line, *(marked.get(column, NONE) for column in columns)])
    return markdown_table([f"by {across}", *(["runs"] if across != "runs" else []), *columns], lines)


def csv_table(study: Study) -> str:
    """Every row with its keys and figures, as CSV."""
    keys = list(dict.fromkeys(key for row in study.rows for key in row.keys))
    heads = [*keys, "nfe", "psnr", "psnr_interval", "psnr_worst", "full_runs", "run_steps", "commit"]
    lines = []
    for row in study.rows:
        mean, half = interval(row.psnr, len(study.seeds))
        low = worst(row.psnr, len(study.seeds))[0]
        figures = [f"{value:.12g}" for value in (mean, half, low)]
        steps, commit = " ".join(map(str, row.run_steps)), row.made_with.get("git", {}).get("commit")
        own = [str(row.keys[key]) if key in row.keys else None for key in keys]
        lines.append([*own, row.nfe, *figures, row.full_runs, steps, commit])
    return csv_text(heads, lines)
