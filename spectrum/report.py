"""What a person sees: the table in the terminal, the sheet, the timeline, the forecast errors. Functions of records."""

import json
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

COLUMNS = ("method", "NFE", "latency", "speed-up", "efficiency", "PSNR (dB)", "SSIM")


def row(record: dict[str, Any]) -> tuple[str, ...]:
    """A record as the cells of `COLUMNS`."""
    timing, fidelity = record.get("timing"), record["metrics"]
    cells = [record["label"], f"{record['nfe']:.3g} / {record['steps']}"]
    if timing:
        latency = 1000 * timing["seconds_per_sample"]["candidate"]["denoise"]
        cells += [f"{latency:.0f} ms", f"{timing['speedup']:.2f}x"]
        cells.append(f"{100 * timing['speedup'] / (record['steps'] / record['nfe']):.0f} %")
    else:
        cells += ["", "", ""]
    for name, digits in (("psnr", 2), ("ssim", 3)):
        mean, spread = fidelity[name]["mean"], fidelity[name]["interval"]
        cells.append("same" if mean is None else f"{mean:.{digits}f} ± {spread:.{digits}f}")
    return tuple(cells)


def order(record: dict[str, Any]) -> tuple[Any, ...]:
    """Sort key of a comparison: uncached first, then by runs, most first, then by name."""
    return (record["method"]["name"] != "none", -record["nfe"], record["label"])


def show(records: list[dict[str, Any]], console: Console | None = None) -> None:
    """Print the comparison of records of one model."""
    first = records[0]
    count = first["samples"]
    title = f"{first['model']['name']} ({first['model_kind']}), {count} samples, {first['hardware']['device']}"
    caption = "PSNR and SSIM to the uncached run: mean ± half of its 95 % interval. Latency: denoising, per image."
    table = Table(title=title, caption=caption, box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    table.add_column(COLUMNS[0], min_width=17, overflow="fold")
    for name in COLUMNS[1:]:
        table.add_column(name, justify="right", no_wrap=True)
    for record in records:
        table.add_row(*row(record))
    (console or Console()).print(table)


def markdown(records: list[dict[str, Any]]) -> str:
    """The comparison as a Markdown table."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + " --- |" + " ---: |" * (len(COLUMNS) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row(record)) + " |" for record in records]) + "\n"


def sheet(path: Path, prompts: list[str], columns: dict[str, Any], gain: float = 4.0) -> None:
    """Draw pictures side by side, one row a prompt; `columns` maps titles to (count, 3, height, width) in [0, 1].

    The first column is the reference; after each other one comes its difference to it, times `gain`, around gray.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    titles = list(columns)
    reference = columns[titles[0]]
    wide = 1 + 2 * (len(titles) - 1)
    figure, axes = plt.subplots(len(prompts), wide, figsize=(1.7 * wide, 1.9 * len(prompts)), squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for line, prompt in enumerate(prompts):
        axes[line][0].imshow(reference[line].permute(1, 2, 0).numpy())
        axes[line][0].set_title(prompt if len(prompt) < 42 else prompt[:40] + "…", fontsize=7, loc="left")
        for i, title in enumerate(titles[1:]):
            image = columns[title][line]
            difference = (0.5 + gain * (image - reference[line]) / 2).clamp(0, 1)
            axes[line][1 + 2 * i].imshow(image.permute(1, 2, 0).numpy())
            axes[line][2 + 2 * i].imshow(difference.permute(1, 2, 0).numpy())
    for i, title in enumerate([titles[0], *(t for name in titles[1:] for t in (name, f"difference x{gain:g}"))]):
        axes[-1][i].text(0.5, -0.08, title, transform=axes[-1][i].transAxes, ha="center", va="top", fontsize=8)
    figure.tight_layout(pad=0.4, h_pad=0.8)
    _save(figure, path)


def timeline(path: Path, branches: dict[str, list[int]], steps: int, title: str) -> None:
    """Draw which steps ran (filled) and which were skipped, one line a CFG branch."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(8, 0.9 + 0.35 * len(branches)))
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
    _save(figure, path)


def forecast_errors(path: Path, branches: dict[str, list[dict[str, float]]], title: str) -> None:
    """Draw the relative L2 error of the forecast feature and of the velocity after the head, at each skipped step."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(8, 3))
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
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    import io

    import matplotlib.pyplot as plt

    from spectrum.record import write_bytes

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, bbox_inches="tight")
    plt.close(figure)
    write_bytes(path, buffer.getvalue())


def read_record(path: Path) -> dict[str, Any]:
    """A record from its file. Refuses one that cannot be read."""
    from spectrum.errors import refuse

    try:
        return json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        return refuse(f"the record {path} cannot be read ({error}): run its command again")
