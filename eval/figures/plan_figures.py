"""Figures of plan studies. Torch is not imported.

Each function makes one matplotlib figure; `plotting.save` writes it.
"""

from typing import Any

import numpy as np

from eval.figures.plotting import drawable, label_line_ends, pyplot, set_heading, set_title
from eval.figures.styles import line_styles
from eval.statistics import interval
from eval.tables.plan_studies import name_of, value_of, varying
from spectrum.records.study_file import Study


def budget_figure(study: Study, title: str) -> Any:
    """The PSNR of each method against its mean number of runs, with intervals.

    Args:
        study: a study whose rows are methods at several numbers of runs.
        title: heading.
    """
    figure, axis = pyplot().subplots(figsize=(8, 4.6), layout="constrained")
    lines: dict[str, list[tuple[float, float, float]]] = {}
    for row in study.rows:
        mean, half = interval(row.psnr, len(study.seeds))
        lines.setdefault(value_of(row, "method"), []).append((row.nfe, mean, half))
    styles = line_styles(list(lines))
    for (name, points), style in zip(lines.items(), styles, strict=True):
        x, y, halves = zip(*sorted(points), strict=True)
        more = {"lw": 2.4, "zorder": 5} if name == "planned" else {}
        axis.errorbar(x, y, np.nan_to_num(halves), capsize=2, elinewidth=0.8, **style.line(**more))
    axis.set_xticks(sorted({round(row.nfe) for row in study.rows}))
    axis.set(xlabel="runs of the blocks out of 50 steps", ylabel="PSNR to the uncached run (dB)")
    axis.grid(alpha=0.25)
    set_heading(figure, title)
    ends = [max(points)[:2] for points in lines.values()]
    label_line_ends(figure, axis, ends, list(lines), styles)
    return figure


def plan_study_figure(study: Study, title: str) -> Any:
    """The PSNR of each row of a plan study with its interval, a panel for each number of runs.

    Args:
        study: the study.
        title: heading.
    """
    keys = varying(study)
    budgets = list(dict.fromkeys(value_of(row, "runs") for row in study.rows))
    tallest = max(sum(value_of(row, "runs") == runs for row in study.rows) for runs in budgets)
    figure, axes = pyplot().subplots(
        1,
        len(budgets),
        figsize=(5.6 * len(budgets), max(2.4, 1.2 + 0.17 * tallest)),
        layout="constrained",
        squeeze=False,
    )
    for axis, runs in zip(axes[0], budgets, strict=True):
        rows = [row for row in study.rows if value_of(row, "runs") == runs]
        means, halves = zip(*(interval(row.psnr, len(study.seeds)) for row in rows), strict=True)
        axis.errorbar(means, range(len(rows)), xerr=np.nan_to_num(halves), fmt="o", ms=4, lw=1.2, color="#1f5fbf")
        axis.set_yticks(range(len(rows)), [drawable(name_of(row, keys)) for row in rows], fontsize=7)
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.grid(axis="x", alpha=0.3)
        axis.set_xlabel("PSNR to the uncached run (dB)")
        set_title(axis, f"{runs} runs")
    set_heading(figure, title)
    return figure
