"""What all figures share: matplotlib without a screen, text as it was typed, labels at line ends, whole files."""

import functools
import io
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eval.figures.styles import Style
from spectrum.records.files import write_bytes

DPI = 130
PANEL_COLUMNS = 4
"""The most panels side by side in a figure of small panels."""


def pyplot() -> Any:
    """Matplotlib's pyplot, without a screen."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


@functools.cache
def _font() -> Any:
    """The font that figures are drawn with, DejaVu Sans unless a matplotlibrc says otherwise."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    return get_font(findfont(FontProperties()))


def drawable(text: str) -> str:
    """A text in letters that the figures' font has: others are transliterated, so that no box is drawn.

    Draw what it returns with `parse_math=False`, or `$` starts a formula.

    Args:
        text: any text, a prompt or a name.

    Example:
        >>> drawable("a 狐 $x$")
        'a Hu $x$'
    """
    found = "".join(_drawable_letter(letter) for letter in unicodedata.normalize("NFC", text))
    return " ".join(found.split(" "))


def _drawable_letter(letter: str) -> str:
    if letter.isspace():
        return "\n" if letter == "\n" else " "
    if unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Co", "Cn"):
        return ""  # control, joining and direction marks, and what no font has
    if _font().get_char_index(ord(letter)):
        return letter
    from anyascii import anyascii

    return anyascii(letter) or ("" if unicodedata.category(letter).startswith("M") else "?")


def figure_bytes(figure: Any, kind: str, name: str) -> bytes:
    """A figure as the content of a file, and close it. The same figure gives the same bytes.

    Args:
        figure: a matplotlib figure.
        kind: png or svg.
        name: what the ids in an SVG are made from.
    """
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        metadata = {"Date": None} if kind == "svg" else {}
        figure.savefig(buffer, format=kind, dpi=DPI, bbox_inches="tight", metadata=metadata)
    pyplot().close(figure)
    return buffer.getvalue()


def save(figure: Any, path: Path) -> None:
    """Write a figure, whole or not at all, and close it.

    Args:
        figure: a matplotlib figure.
        path: its file; the ending is the format, png or svg.
    """
    write_bytes(path, figure_bytes(figure, path.suffix[1:], path.stem))


def set_heading(figure: Any, text: str) -> None:
    """Put a heading over the left edge of a figure."""
    figure.suptitle(drawable(text), fontsize=10, x=0.01, ha="left", parse_math=False)


def set_title(axis: Any, text: str, size: float = 10) -> None:
    """Put a title over the left edge of an axis."""
    axis.set_title(drawable(text), fontsize=size, loc="left", parse_math=False)


def set_legend(axis: Any, size: float = 8, **where: Any) -> None:
    """Put a legend into an axis, for a handful of lines. Many lines are labelled at their ends: `label_line_ends`.

    Args:
        axis: a matplotlib axis with labelled lines.
        size: of the text, in points.
        where: more arguments of matplotlib's `legend`.
    """
    for text in axis.legend(fontsize=size, frameon=False, **where).get_texts():
        text.set_text(drawable(text.get_text()))
        text.set_parse_math(False)


def spread(wanted: Sequence[float], gap: float, low: float = -np.inf, high: float = np.inf) -> list[float]:
    """Positions as near as possible to the wanted ones, at least `gap` apart and in the same order.

    Args:
        wanted: positions, in any order.
        gap: the least distance of two of them.
        low: where the first may be; it gives way where there is not enough room.
        high: where the last may be.

    Returns:
        A position for each wanted one.

    Example:
        >>> spread([1.0, 1.0, 5.0], gap=2.0)
        [0.0, 2.0, 5.0]
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    groups: list[tuple[float, int]] = []  # (centre, how many), no two of them touching

    def inside(centre: float, count: int) -> tuple[float, int]:
        half = gap * (count - 1) / 2
        return max(min(centre, high - half), low + half), count

    for i in order:
        groups.append(inside(wanted[i], 1))
        while len(groups) > 1:
            (before, more), (centre, count) = groups[-2:]
            if centre - before >= gap * (more + count) / 2:
                break
            groups[-2:] = [inside((before * more + centre * count) / (more + count), more + count)]
    placed = [centre + gap * (k - (count - 1) / 2) for centre, count in groups for k in range(count)]
    found = [0.0] * len(wanted)
    for i, position in zip(order, placed, strict=True):
        found[i] = position
    return found


def label_line_ends(
    figure: Any, axis: Any, ends: Sequence[tuple[float, float]], names: Sequence[str], styles: Sequence[Style]
) -> None:
    """Write each line's name beside the axis at the height where the line ends, none over another.

    Call it last: the limits of the axis must not change afterwards.

    Args:
        figure: the matplotlib figure.
        axis: the axis.
        ends: (x, y) of each line's last point, in data.
        names: the line's names.
        styles: the line's styles.
    """
    size = 7.5
    figure.draw_without_rendering()
    places = axis.transAxes.inverted().transform(axis.transData.transform(np.asarray(ends).reshape(-1, 2)))
    gap = 1.25 * size / 72 * figure.dpi / axis.bbox.height
    heights = spread([float(y) for _, y in places], gap, 0.0, 1.0)
    for (x, y), height, name, style in zip(places, heights, names, styles, strict=True):
        line = {"color": style.colour, "transform": axis.transAxes, "clip_on": False}
        axis.plot([x, 1.02, 1.05], [y, height, height], lw=0.5, alpha=0.6, scalex=False, scaley=False, **line)
        axis.plot([1.05, 1.075, 1.1], [height] * 3, lw=1.4, ls=style.dashes, scalex=False, scaley=False, **line)
        axis.plot([1.075], [height], ls="", marker=style.marker, ms=3.5, scalex=False, scaley=False, **line)
        axis.text(
            1.115, height, drawable(name), color=style.colour, fontsize=size, va="center", transform=axis.transAxes,
            parse_math=False,
        )  # fmt: skip


def panels(count: int, width: float, height: float) -> tuple[Any, list[Any]]:
    """A figure of small panels with the same axes, at most four side by side.

    Args:
        count: the number of panels.
        width: of a panel, in inches.
        height: of a panel, in inches.

    Returns:
        The figure and its axes, one a panel.
    """
    lines = -(-count // PANEL_COLUMNS)
    columns = -(-count // lines)
    figure, axes = pyplot().subplots(
        lines, columns, figsize=(width * columns + 0.6, height * lines + 0.7), sharex=True, sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    for axis in axes.flat[max(0, count - columns) : count]:
        axis.tick_params(labelbottom=True)
    return figure, list(axes.flat[:count])
