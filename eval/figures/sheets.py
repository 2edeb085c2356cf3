"""The pictures of one run: its samples beside the reference, its timeline, its forecast errors."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.figures.plotting import pyplot, save


def draw_sheet(path: Path, prompts: list[str], rows: dict[str, Any], gain: float | None = 4.0) -> None:
    """Draw samples in rows, with one column for each prompt.

    Args:
        path: the file.
        prompts: the prompts, as column titles.
        rows: by title, (count, 3, height, width) images in [0, 1]. The first row is the reference.
        gain: under each other row comes its difference to the reference, times this, around grey; None leaves the
            differences out.
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


def write_film(path: Path, rows: Sequence[Sequence[Any]], fps: float) -> None:
    """Write videos side by side as one mp4. Does nothing if the package imageio-ffmpeg is missing.

    Args:
        path: the file.
        rows: the videos of each row, (frames, 3, height, width) in [0, 1], all of one size.
        fps: frames per second.
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


def draw_timeline(path: Path, branches: dict[str, list[int]], steps: int, title: str) -> None:
    """Draw which steps ran (filled) and which were skipped, with one line for each CFG branch."""
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


def draw_forecast_errors(path: Path, branches: dict[str, list[dict[str, float]]], title: str) -> None:
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
