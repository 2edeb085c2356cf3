"""What a person sees: the table in the terminal, the sheet, the timeline, the forecast errors. Functions of records."""

import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from eval.columns import METRICS
from spectrum.store import write_bytes

WIDE = 130
BASE = ("method", "NFE", "latency", "speed-up", "efficiency")


def shown_metrics(records: Sequence[dict[str, Any]]) -> list[str]:
    """The metrics that any of the records holds, in the order of `eval.columns`."""
    return [name for name in METRICS if any(name in record["metrics"] for record in records)]


def columns(records: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """Column heads of the records' table."""
    return (*BASE, *(METRICS[name].title for name in shown_metrics(records)))


def cell(name: str, record: Mapping[str, Any]) -> str:
    """A metric's mean ± half of its interval; `same` for the reference itself, empty where it was not computed."""
    entry = record["metrics"].get(name)
    if entry is None:
        return ""
    if record["id"] == record["reference"] and METRICS[name].identical is not None:
        return "same"
    digits, mean, spread = METRICS[name].digits, entry["mean"], entry.get("interval")
    if mean is None:
        return "same"
    return f"{mean:.{digits}f}" + ("" if spread is None else f" ± {spread:.{digits}f}")


def row(record: dict[str, Any], metrics: Sequence[str]) -> tuple[str, ...]:
    """A record as the cells of `BASE` and of `metrics`."""
    timing = record.get("timing")
    cells = [record["label"], f"{record['nfe']:.3g} / {record['steps']}"]
    if timing:
        latency = timing["seconds_per_sample"]["candidate"]["denoise"]
        shown = f"{1000 * latency:.0f} ms" if latency < 1 else f"{latency:.2f} s"
        cells += [shown, f"{timing['speedup']:.2f}x", f"{100 * efficiency(record):.0f} %"]
    else:
        cells += ["", "", ""]
    return (*cells, *(cell(name, record) for name in metrics))


def efficiency(record: dict[str, Any]) -> float:
    """The speed-up reached over the ideal one, `speed-up / (steps / runs)`."""
    return record["timing"]["speedup"] * record["nfe"] / record["steps"]


def order(record: dict[str, Any]) -> tuple[Any, ...]:
    """Sort key of a comparison: uncached first, then by runs, most first, then by name."""
    return (record["method"]["name"] != "none", -record["nfe"], record["label"])


def show(records: list[dict[str, Any]], console: Console | None = None) -> None:
    """Print the comparison of records of one model; a narrow terminal gets the first two metrics alone."""
    console = console or Console()
    first, metrics = records[0], shown_metrics(records)
    hidden = metrics[2:] if console.width < WIDE else []
    metrics = [name for name in metrics if name not in hidden]
    title = (
        f"{first['model']['name']} ({first['model_kind']}), {first['samples']} samples, {first['hardware']['device']}"
    )
    more = f" Also in the record: {', '.join(METRICS[name].title for name in hidden)}." if hidden else ""
    caption = "To the uncached run: mean ± half of its 95 % interval. Latency: denoising, per image." + more
    table = Table(title=title, caption=caption, box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    heads = (*BASE, *(METRICS[name].title for name in metrics))
    table.add_column(heads[0], min_width=15, overflow="fold")
    for name in heads[1:]:
        table.add_column(name.replace("efficiency", "eff."), justify="right", no_wrap=True)
    for record in records:
        table.add_row(*row(record, metrics))
    console.print(table)


def markdown(records: Sequence[dict[str, Any]]) -> str:
    """The comparison as a Markdown table."""
    metrics = shown_metrics(records)
    return pipes(columns(records), [row(record, metrics) for record in records])


def pipes(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its first column left-aligned and the others right."""
    rule = "|" + " --- |" + " ---: |" * (len(heads) - 1)
    lines = ["| " + " | ".join(cells) + " |" for cells in (heads, *rows)]
    return "\n".join([lines[0], rule, *lines[1:]]) + "\n"


def sheet(path: Path, prompts: list[str], rows: dict[str, Any], gain: float | None = 4.0) -> None:
    """Draw pictures in rows, one column a prompt; `rows` maps titles to (count, 3, height, width) images in [0, 1].

    The first row is the reference; under each other one comes its difference to it, times `gain`, around gray, unless
    `gain` is None.
    """
    plt = pyplot()
    titles = list(rows)
    reference = rows[titles[0]]
    lines = [(titles[0], reference)]
    for title in titles[1:]:
        lines.append((title, rows[title]))
        if gain is not None:
            lines.append((f"difference x{gain:g}", (0.5 + gain * (rows[title] - reference) / 2).clamp(0, 1)))
    figure, axes = plt.subplots(
        len(lines),
        len(prompts),
        figsize=(1.45 * len(prompts) + 1, 1.5 * len(lines)),
        squeeze=False,
        layout="constrained",
    )
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)
    for line, (title, images) in enumerate(lines):
        for column, axis in enumerate(axes[line]):
            axis.imshow(images[column].permute(1, 2, 0).numpy(), interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            for side in axis.spines.values():
                side.set_visible(False)
            if line == 0:
                axis.set_title(textwrap.fill(prompts[column][:60], 20), fontsize=8)
        label = textwrap.fill(title, 16, break_long_words=False)
        axes[line][0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
    save(figure, path)


def film(path: Path, rows: Sequence[Sequence[Any]], fps: float) -> None:
    """Write videos beside and under one another as one mp4; needs imageio-ffmpeg, and does nothing without it.

    Each of `rows` holds videos (frames, 3, height, width) in [0, 1], all of one size.
    """
    try:
        import imageio_ffmpeg
    except ImportError:
        return
    import torch

    grid = torch.cat([torch.cat(list(row), dim=-1) for row in rows], dim=-2)
    pixels = (grid[..., : grid.shape[-2] // 2 * 2, : grid.shape[-1] // 2 * 2] * 255).round().byte().permute(0, 2, 3, 1)
    draft = path.with_name(f".draft-{path.name}")
    writer = imageio_ffmpeg.write_frames(
        str(draft), (pixels.shape[2], pixels.shape[1]), fps=round(fps), macro_block_size=2, ffmpeg_log_level="error"
    )
    writer.send(None)
    for frame in pixels:
        writer.send(frame.contiguous().numpy())
    writer.close()
    draft.replace(path)


def timeline(path: Path, branches: dict[str, list[int]], steps: int, title: str) -> None:
    """Draw which steps ran (filled) and which were skipped, one line a CFG branch."""
    figure, axis = pyplot().subplots(figsize=(8, 0.9 + 0.35 * len(branches)))
    for line, runs in enumerate(branches.values()):
        colours = ["#1f5fbf" if step in runs else "#e6e9ef" for step in range(steps)]
        axis.barh([line] * steps, [0.86] * steps, left=[s + 0.07 for s in range(steps)], color=colours, height=0.7)
    axis.set_yticks(range(len(branches)), list(branches))
    axis.set_xlim(0, steps)
    axis.invert_yaxis()
    axis.set_xlabel("denoising step")
    axis.set_title(title, fontsize=10, loc="left")
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.tick_params(left=False)
    save(figure, path)


def forecast_errors(path: Path, branches: dict[str, list[dict[str, float]]], title: str) -> None:
    """Draw the relative L2 error of the forecast feature and of the velocity after the head, at each skipped step."""
    figure, axis = pyplot().subplots(figsize=(8, 3))
    for name, errors in branches.items():
        steps = [e["step"] for e in errors]
        (line,) = axis.plot(steps, [e["feature"] for e in errors], marker="o", ms=3, lw=1, label=f"feature, {name}")
        axis.plot(
            steps,
            [e["velocity"] for e in errors],
            marker="x",
            ms=4,
            lw=0,
            color=line.get_color(),
            label=f"velocity, {name}",
        )
    axis.set_yscale("log")
    axis.set_xlabel("denoising step")
    axis.set_ylabel("relative L2 error")
    axis.set_title(title, fontsize=10, loc="left")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, frameon=False)
    save(figure, path)


def pyplot() -> Any:
    """Matplotlib without a screen."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def save(figure: Any, path: Path) -> None:
    """Write a figure whole, in the format of its name, and close it."""
    buffer = io.BytesIO()
    metadata = {"Date": None} if path.suffix == ".svg" else {}
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": path.stem}):
        figure.savefig(buffer, format=path.suffix[1:], dpi=130, bbox_inches="tight", metadata=metadata)
    pyplot().close(figure)
    write_bytes(path, buffer.getvalue())
