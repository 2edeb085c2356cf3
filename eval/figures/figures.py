"""Figures of records: quality against cost, errors over steps, what ran, ablations. Torch is not imported."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eval.figures.plotting import pyplot, save
from eval.metrics.columns import METRICS
from eval.tables.tables import Filled
from spectrum.records.record import MetricEntry, Record

COLOURS = {
    "fewer_steps": "#8a8f98", "fewer_steps_unipc": "#3d4350", "fora": "#c98a1b", "taylorseer": "#2f8f5b",
    "teacache": "#b0413e", "spectrum": "#1f5fbf", "spectrum_blend": "#7aa7ea", "lagrange": "#7a4fa3",
    "fora_modules": "#c98a1b", "taylorseer_modules": "#2f8f5b", "magcache": "#0aa1a8", "first_block_cache": "#e0679a",
    "dbcache": "#8c2d5a", "easycache": "#7fbf3f", "seacache": "#ff8c42", "hicache": "#8d6748", "resilphase": "#16181d",
    "foca": "#b8b000", "freqca": "#c6a3dd",
}  # fmt: skip
LINES = {"fewer_steps": "--", "fewer_steps_unipc": "--", "fora_modules": ":", "taylorseer_modules": ":"}
Records = Sequence[Record]


def colour(name: str, position: int = 0) -> str:
    """A method's colour, the same in every figure."""
    return COLOURS.get(name, f"C{position}")


def grouped(records: Records) -> dict[str, list[Record]]:
    """Caching and control records by method, fewest runs first; the uncached run is left out."""
    found: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda r: r.nfe):
        if record.name != "none":
            found.setdefault(record.name, []).append(record)
    return found


def curve(path: Path, records: Records, metric: str, title: str) -> None:
    """A metric against NFE, and against the speed-up reached, one line a method, with 95 % intervals."""
    figure, axes = pyplot().subplots(1, 2, figsize=(10.5, 4.2), sharey=True, layout="constrained")
    for number, (name, rows) in enumerate(grouped(records).items()):
        style = {
            "color": colour(name, number),
            "ls": LINES.get(name, "-"),
            "marker": "o",
            "ms": 4,
            "lw": 1.5,
        }
        for axis, axis_rows, cost in (
            (axes[0], rows, lambda r: r.nfe),
            (axes[1], [r for r in rows if r.timing], lambda r: r.timing.speedup),
        ):
            entries = [r.metrics[metric] for r in axis_rows if metric in r.metrics]
            x = [cost(r) for r in axis_rows if metric in r.metrics]
            spread = [entry.interval or 0.0 for entry in entries]
            axis.errorbar(x, [e.mean for e in entries], spread, label=name, capsize=2, elinewidth=0.8, **style)
    axes[0].set(xlabel="block runs of 50 (NFE)", ylabel=METRICS[metric].title)
    axes[0].invert_xaxis()
    axes[1].set(xlabel="measured speed-up (uncached / cached, same process)")
    axes[1].legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    for axis in axes:
        axis.grid(alpha=0.25)
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    save(figure, path)


def errors(path: Path, records: Records, title: str) -> None:
    """The relative error of the velocity after the head at each skipped step, averaged over CFG branches."""
    figure, axis = pyplot().subplots(figsize=(8.5, 3.6), layout="constrained")
    for number, record in enumerate(records):
        branches = [b for b in record.forecast_errors.values() if b]
        if not branches:
            continue
        steps = sorted({e["step"] for branch in branches for e in branch})
        by_step = {s: [e["velocity"] for b in branches for e in b if e["step"] == s] for s in steps}
        name = record.name
        style = {"color": colour(name, number), "marker": ".", "ms": 5, "lw": 1}
        axis.plot(steps, [float(np.mean(by_step[s])) for s in steps], label=record.label, **style)
    axis.set(yscale="log", xlabel="denoising step", ylabel="relative L2 error of the velocity")
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8, frameon=False)
    axis.set_title(title, fontsize=10, loc="left")
    save(figure, path)


def timelines(path: Path, records: Records, title: str) -> None:
    """Which steps ran the blocks, one line a record (its first CFG branch)."""
    figure, axis = pyplot().subplots(figsize=(8.5, 0.9 + 0.32 * len(records)), layout="constrained")
    for line, record in enumerate(records):
        runs, steps = set(next(iter(record.runs.values()))), record.steps
        shades = [colour(record.name, line) if step in runs else "#e6e9ef" for step in range(steps)]
        axis.barh([line] * steps, [0.86] * steps, left=np.arange(steps) + 0.07, color=shades, height=0.7)
    axis.set_yticks(range(len(records)), [record.label for record in records], fontsize=8)
    axis.invert_yaxis()
    axis.set(xlabel="denoising step", xlim=(0, max(r.steps for r in records)))
    axis.tick_params(left=False)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.set_title(title, fontsize=10, loc="left")
    save(figure, path)


def ablation(path: Path, filled: Filled, key: str) -> None:
    """PSNR against the values of one key, a line for each method and budget, with 95 % intervals."""
    figure, axis = pyplot().subplots(figsize=(6.4, 3.6), layout="constrained")
    lines: dict[tuple[str, str], list[tuple[Any, MetricEntry]]] = {}
    for row, record in filled.rows:
        if record is not None:
            rest = [f"{k.rpartition('.')[2]} {v}" for k, v in row.keys.items() if k not in (key, "method")]
            name = str(row.keys["method"]) if key != "method" else ""
            lines.setdefault((name, ", ".join(rest)), []).append((row.keys[key], record.metrics["psnr"]))
    values = list(dict.fromkeys(value for line in lines.values() for value, _ in line))
    for number, ((name, rest), points) in enumerate(lines.items()):
        x = [values.index(value) for value, _ in points]
        style = {"color": colour(name, number) if key != "method" else f"C{number}", "marker": "o", "ms": 4, "lw": 1.3}
        style["ls"] = "-" if "14" in rest or not rest else "--"
        y, spread = [p.mean for _, p in points], [p.interval for _, p in points]
        axis.errorbar(x, y, spread, label=", ".join(filter(None, (name, rest))), capsize=2, elinewidth=0.8, **style)
    axis.set_xticks(range(len(values)), [str(value) for value in values], fontsize=8)
    axis.set(xlabel=key, ylabel="PSNR (dB)")
    axis.grid(alpha=0.25)
    axis.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    axis.set_title(filled.experiment.title, fontsize=9, loc="left")
    save(figure, path)


def distance(path: Path, study: Mapping[str, Any], title: str) -> None:
    """Error against forecast distance: feature and velocity, one line a forecaster, from a study of a trace."""
    figure, axes = pyplot().subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    for axis, part in zip(axes, ("feature", "velocity"), strict=True):
        for number, (name, points) in enumerate(study["by_distance"].items()):
            x = [p["distance"] for p in points]
            axis.plot(x, [p[part] for p in points], marker=".", lw=1.2, label=name, color=f"C{number}")
        axis.set(yscale="log", xlabel="steps past the last run", ylabel=f"relative L2 error of the {part}")
        axis.grid(alpha=0.25)
    axes[1].legend(fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    save(figure, path)


def weights(path: Path, records: Records, title: str) -> None:
    """`sum w` and `|w|_1` of each skipped step, one line a record."""
    figure, axes = pyplot().subplots(1, 2, figsize=(10, 3.4), layout="constrained")
    for number, record in enumerate(records):
        steps = [w["step"] for w in record.weights]
        style = {"color": colour(record.name, number), "marker": ".", "lw": 1, "label": record.label}
        for axis, part in zip(axes, ("sum", "l1"), strict=True):
            axis.plot(steps, [w[part] for w in record.weights], **style)
    for axis, name in zip(axes, ("sum of the weights", "sum of their absolute values"), strict=True):
        axis.set(xlabel="skipped step", ylabel=name)
        axis.grid(alpha=0.25)
    axes[1].legend(fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    save(figure, path)
