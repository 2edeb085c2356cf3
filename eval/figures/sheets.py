"""The pictures of one run: its samples beside the reference, its timeline, its forecast errors.

Prompts are drawn as they were typed: nothing in them is markup or a formula.
"""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.figures.figures import draw_steps, label_timelines
from eval.figures.plotting import drawable, pyplot, save, set_legend, set_title
from eval.figures.styles import METHODS

TITLE_LETTERS = 60
"""How many letters of a prompt stand over its column."""


def draw_sheet(path: Path, prompts: Sequence[str], images: Mapping[str, Any], gain: float | None = 4.0) -> None:
    """Draw samples in lines, with one column for each prompt.

    Args:
        path: the file.
        prompts: the prompts, as column titles.
        images: by title, (count, 3, height, width) images in [0, 1]. The first title's are the reference.
        gain: under each other line comes its difference to the reference, times this, around grey; None leaves the
            differences out.
    """
    titles = list(images)
    reference = images[titles[0]]
    lines = [(titles[0], reference)]
    for title in titles[1:]:
        lines.append((title, images[title]))
        if gain is not None:
            lines.append((f"difference x{gain:g}", (0.5 + gain * (images[title] - reference) / 2).clamp(0, 1)))
    size = (1.45 * len(prompts) + 1, 1.5 * len(lines))
    figure, axes = pyplot().subplots(len(lines), len(prompts), figsize=size, squeeze=False, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)
    for line, (title, pictures) in enumerate(lines):
        for axis, picture in zip(axes[line], pictures, strict=False):
            axis.imshow(picture.permute(1, 2, 0).numpy(), interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            for side in axis.spines.values():
                side.set_visible(False)
        label = textwrap.fill(drawable(title), 16, break_long_words=False)
        axes[line][0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8, parse_math=False)
    for axis, prompt in zip(axes[0], prompts, strict=True):
        axis.set_title(textwrap.fill(drawable(prompt)[:TITLE_LETTERS], 20), fontsize=8, parse_math=False)
    save(figure, path)


def write_film(path: Path, videos: Sequence[Sequence[Any]], fps: float) -> None:
    """Write videos side by side as one mp4. Does nothing if the package imageio-ffmpeg is missing.

    Args:
        path: the file.
        videos: those of each line, (frames, 3, height, width) in [0, 1], all of one size.
        fps: frames per second.
    """
    try:
        import imageio_ffmpeg
    except ImportError:
        return
    import torch

    grid = torch.cat([torch.cat(list(row), dim=-1) for row in videos], dim=-2)
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


def draw_timeline(path: Path, branches: Mapping[str, Sequence[int]], steps: int, title: str) -> None:
    """Draw which steps ran (filled) and which were skipped, with one line for each CFG branch.

    Args:
        path: the file.
        branches: by CFG branch, the steps that ran.
        steps: how many steps there are.
        title: heading.
    """
    figure, axis = pyplot().subplots(figsize=(8, 0.9 + 0.35 * len(branches)), layout="constrained")
    for line, runs in enumerate(branches.values()):
        draw_steps(axis, line, runs, steps, METHODS["spectrum"].colour)
    label_timelines(axis, list(branches), steps)
    set_title(axis, title)
    save(figure, path)


def draw_forecast_errors(path: Path, branches: Mapping[str, Sequence[Mapping[str, float]]], title: str) -> None:
    """Draw the relative L2 error of the forecast feature and of the velocity after the head, at each skipped step.

    Args:
        path: the file.
        branches: by CFG branch, `step`, `feature` and `velocity` of each skipped step.
        title: heading.
    """
    figure, axis = pyplot().subplots(figsize=(8, 3), layout="constrained")
    for name, errors in branches.items():
        steps = [e["step"] for e in errors]
        (line,) = axis.plot(steps, [e["feature"] for e in errors], marker="o", ms=3, lw=1, label=f"feature, {name}")
        look = {"marker": "x", "ms": 4, "lw": 0, "color": line.get_color()}
        axis.plot(steps, [e["velocity"] for e in errors], label=f"velocity, {name}", **look)
    axis.set(yscale="log", xlabel="denoising step", ylabel="relative L2 error")
    axis.grid(alpha=0.3)
    set_legend(axis)
    set_title(axis, title)
    save(figure, path)
