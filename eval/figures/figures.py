"""Figures of records: quality against cost, errors over steps, what ran, ablations. Torch is not imported.

Each function makes one matplotlib figure; `plotting.save` writes it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eval.figures.plotting import drawable, label_line_ends, panels, pyplot, set_heading, set_legend, set_title
from eval.figures.styles import Style, line_styles
from eval.metrics.columns import METRICS
from eval.tables.tables import ExperimentTable
from spectrum.records.record import MetricEntry, Record

SKIPPED = "#e6e9ef"
"""The colour of a skipped step in a timeline."""
BEHIND = "#d5d9e0"
"""The colour of the other lines in a small panel."""
Records = Sequence[Record]


def records_by_method(records: Records) -> dict[str, list[Record]]:
    """Caching and control records by method, fewest runs first; the uncached run is left out."""
    found: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda r: r.nfe):
        if record.name != "none":
            found.setdefault(record.name, []).append(record)
    return found


def quality_figure(records: Records, metric: str, title: str) -> Any:
    """A metric against block runs, and against the measured speed-up: a line for each method, with 95 % intervals.

    Args:
        records: records of one reference; where none of them was timed, there is no panel of speed-ups.
        metric: the metric's name.
        title: heading.
    """
    costs = ("runs", "speedup") if any(record.timing for record in records) else ("runs",)
    size = {"figsize": (6.25 * len(costs), 5), "squeeze": False}
    figure, ((*axes,),) = pyplot().subplots(1, len(costs), sharey=True, layout="constrained", **size)
    labels = [_draw_quality(axis, records, metric, cost) for axis, cost in zip(axes, costs, strict=True)]
    for axis in axes[1:]:
        axis.set_ylabel("")
    set_heading(figure, title)
    for axis, (ends, names, styles) in zip(axes, labels, strict=True):
        label_line_ends(figure, axis, ends, names, styles)
    return figure


def quality_panel(records: Records, metric: str, cost: str) -> Any:
    """One of the two panels of `quality_figure` by itself.

    Args:
        records: records of one reference.
        metric: the metric's name.
        cost: `runs`, or `speedup`.
    """
    figure, axis = pyplot().subplots(figsize=(5, 3.6), layout="constrained")
    ends, names, styles = _draw_quality(axis, records, metric, cost)
    label_line_ends(figure, axis, ends, names, styles)
    return figure


def _draw_quality(
    axis: Any, records: Records, metric: str, cost: str
) -> tuple[list[tuple[float, float]], list[str], list[Style]]:
    """Draw a line for each method; where each ends, the methods' names, and their styles."""
    methods = records_by_method([r for r in records if r.metric(metric) is not None])
    ends, names, styles = [], [], []
    for (name, own), style in zip(methods.items(), line_styles(list(methods)), strict=True):
        points = _points(own, metric, cost)
        if points:
            x, y, spread = (list(values) for values in zip(*points, strict=True))
            axis.errorbar(x, y, spread, capsize=2, elinewidth=0.8, **style.line())
            last = 0 if cost == "runs" else -1
            ends.append((x[last], y[last]))
            names.append(name)
            styles.append(style)
    if cost == "runs":
        axis.invert_xaxis()
    labels = {
        "runs": f"block runs of {records[0].steps} (NFE)",
        "speedup": "measured speed-up (uncached / cached, same process)",
    }
    axis.set(xlabel=labels[cost], ylabel=METRICS[metric].title)
    axis.grid(alpha=0.25)
    return ends, names, styles


def _points(records: Records, metric: str, cost: str) -> list[tuple[float, float, float]]:
    """(cost, mean, half-width of its interval) of each record that has them, cheapest axis value first."""
    found = []
    for record in records:
        at = record.nfe if cost == "runs" else record.timing and record.timing.speedup
        mean = record.metric(metric)
        if at is not None and mean is not None:
            found.append((at, mean, record.metrics[metric].interval or 0.0))
    return sorted(found)


def errors_figure(records: Records, title: str) -> Any:
    """The relative error of the velocity after the head at each skipped step, averaged over CFG branches.

    A panel for each record, with the others in grey behind it.

    Args:
        records: records that were probed; those without forecasts are left out.
        title: heading.
    """
    lines = {}
    for number, record in enumerate(records):
        found: dict[int, list[float]] = {}
        for branch in record.forecast_errors.values():
            for error in branch:
                found.setdefault(int(error["step"]), []).append(error["velocity"])
        if found:
            lines[number] = ([*sorted(found)], [float(np.mean(found[step])) for step in sorted(found)])
    return _small_panels([records[i] for i in lines], list(lines.values()), title, "relative L2 error\nof the velocity")


def _small_panels(records: Records, lines: Sequence[tuple[list[int], list[float]]], title: str, label: str) -> Any:
    """A panel for each record's line over the steps, on a logarithmic axis, with the other lines in grey."""
    figure, axes = panels(len(records), *((2.6, 1.6) if len(records) > 1 else (7, 2.2)))
    styles = line_styles([record.name for record in records])
    for number, (axis, record, style) in enumerate(zip(axes, records, styles, strict=True)):
        for steps, values in (*lines[:number], *lines[number + 1 :]):
            axis.plot(steps, values, color=BEHIND, lw=0.7, zorder=1)
        axis.plot(*lines[number], **style.line(ms=3, lw=1.2, zorder=2))
        axis.set_yscale("log")
        axis.grid(alpha=0.25)
        set_title(axis, record.label, size=8)
        axis.tick_params(which="both", labelsize=7)
    figure.supxlabel("denoising step", fontsize=9)
    figure.supylabel(label, fontsize=9)
    set_heading(figure, title)
    return figure


def timelines_figure(records: Records, title: str) -> Any:
    """Which steps ran the blocks, a line for each record (of its first CFG branch).

    Args:
        records: the records.
        title: heading.
    """
    figure, axis = pyplot().subplots(figsize=(8.5, 0.9 + 0.32 * len(records)), layout="constrained")
    styles = line_styles([record.name for record in records])
    for line, (record, style) in enumerate(zip(records, styles, strict=True)):
        draw_steps(axis, line, next(iter(record.runs.values())), record.steps, style.colour)
    label_timelines(axis, [record.label for record in records], max(r.steps for r in records))
    set_title(axis, title)
    return figure


def draw_steps(axis: Any, line: int, runs: Sequence[int], steps: int, colour: str) -> None:
    """Draw one line of a timeline: a box for each step, filled where the blocks ran.

    Args:
        axis: a matplotlib axis.
        line: the line's number.
        runs: the steps that ran.
        steps: how many there are.
        colour: of those that ran.
    """
    colours = [colour if step in set(runs) else SKIPPED for step in range(steps)]
    axis.barh([line] * steps, [0.86] * steps, left=np.arange(steps) + 0.07, color=colours, height=0.7)


def label_timelines(axis: Any, labels: Sequence[str], steps: int) -> None:
    """Name the lines of a timeline, the first on top, and take away what a timeline does not need.

    Args:
        axis: a matplotlib axis.
        labels: the lines' names.
        steps: how many steps the axis shows.
    """
    axis.set_yticks(range(len(labels)), [drawable(label) for label in labels], fontsize=8, parse_math=False)
    axis.invert_yaxis()
    axis.set(xlabel="denoising step", xlim=(0, steps))
    axis.tick_params(left=False)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)


def ablation_figure(table: ExperimentTable, key: str) -> Any:
    """PSNR against the values of one key, a line for each method and number of runs, with 95 % intervals.

    Args:
        table: the experiment with its records.
        key: the key that it varies, for example `method.forecast.blend`.
    """
    figure, axis = pyplot().subplots(figsize=(8, 3.6), layout="constrained")
    lines: dict[tuple[str, str], list[tuple[Any, MetricEntry]]] = {}
    for row, record in table.rows:
        if record is not None:
            rest = [f"{k.rpartition('.')[2]} {v}" for k, v in row.keys.items() if k not in (key, "method")]
            name = str(row.keys["method"]) if key != "method" else ""
            lines.setdefault((name, ", ".join(rest)), []).append((row.keys[key], record.metrics["psnr"]))
    values = list(dict.fromkeys(value for line in lines.values() for value, _ in line))
    styles = line_styles([name or rest for name, rest in lines])
    ends = []
    for points, style in zip(lines.values(), styles, strict=True):
        x, y = [values.index(value) for value, _ in points], [entry.mean for _, entry in points]
        axis.errorbar(x, y, [entry.interval or 0.0 for _, entry in points], capsize=2, elinewidth=0.8, **style.line())
        ends.append((x[-1], y[-1]))
    ticks = [drawable(str(value)) for value in values]
    axis.set_xticks(range(len(values)), ticks, fontsize=8, parse_math=False)
    axis.set(xlabel=key, ylabel="PSNR (dB)")
    axis.grid(alpha=0.25)
    set_title(axis, table.experiment.title, size=9)
    label_line_ends(figure, axis, ends, [", ".join(filter(None, names)) for names in lines], styles)
    return figure


def distance_figure(study: Mapping[str, Any], title: str) -> Any:
    """Error against forecast distance: of the feature and of the velocity, a line for each forecaster.

    Args:
        study: what `scripts/study.py` made of a trace.
        title: heading.
    """
    figure, axes = pyplot().subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    names = list(study["by_distance"])
    for axis, part in zip(axes, ("feature", "velocity"), strict=True):
        for (name, points), style in zip(study["by_distance"].items(), line_styles(names), strict=True):
            x = [p["distance"] for p in points]
            axis.plot(x, [p[part] for p in points], label=name, **style.line(ms=3.5, lw=1.2))
        axis.set(yscale="log", xlabel="steps past the last run", ylabel=f"relative L2 error of the {part}")
        axis.grid(alpha=0.25)
    set_legend(axes[1])
    set_heading(figure, title)
    return figure


def weights_figure(records: Records, title: str) -> Any:
    """`sum w` and `|w|_1` of each skipped step, a line for each record.

    Args:
        records: records with weights.
        title: heading.
    """
    figure, axes = pyplot().subplots(1, 2, figsize=(12, 3.4), layout="constrained")
    styles = line_styles([record.name for record in records])
    parts = {"sum": "sum of the weights", "l1": "sum of their absolute values"}
    for axis, (part, label) in zip(axes, parts.items(), strict=True):
        for record, style in zip(records, styles, strict=True):
            steps = [w["step"] for w in record.weights]
            axis.plot(steps, [w[part] for w in record.weights], label=record.label, **style.line(ms=3, lw=1))
        axis.set(xlabel="skipped step", ylabel=label)
        axis.grid(alpha=0.25)
    set_legend(axes[1], loc="upper left", bbox_to_anchor=(1.0, 1.0))
    set_heading(figure, title)
    return figure
