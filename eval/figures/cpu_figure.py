"""The figure of the embedded model beside the caches of others on a CPU. Torch is not imported."""

from collections.abc import Mapping
from typing import Any

from eval.figures.plotting import drawable, pyplot, set_heading
from eval.tables.cpu import nfe, speedup

OTHERS = "diffusers ", "cache-dit"
"""How the names of sides begin that are not of this project."""
_SPECTRUM, _OTHER = "#1f5fbf", "#d95f02"


def shares_figure(part: Mapping[str, Any], title: str) -> Any:
    """The share of the ideal speed-up that each side reaches, in wall time with its interval and in CPU time.

    Args:
        part: what `scripts/bench/cpu.py` measured on the embedded model.
        title: heading.

    Returns:
        The matplotlib figure.
    """
    sides = part["sides"]
    figure, axis = pyplot().subplots(figsize=(8, 1.2 + 0.24 * len(sides)), layout="constrained")
    for place, (name, side) in enumerate(sides.items()):
        share = nfe(side, part["uncached"]) / part["steps"]
        wall, cpu = (tuple(100 * share * value for value in speedup(side, clock)) for clock in ("denoise", "cpu"))
        colour = _OTHER if name.startswith(OTHERS) else _SPECTRUM
        spans = [[wall[0] - wall[1]], [wall[2] - wall[0]]]
        axis.errorbar(wall[:1], [place], xerr=spans, fmt="o", ms=4, lw=1.2, color=colour)
        axis.plot(cpu[:1], [place], "|", ms=9, color="#333333", ls="")
    axis.axvline(100, color="#999999", lw=0.8)
    axis.set_yticks(range(len(sides)), [drawable(name) for name in sides], fontsize=7)
    for text, name in zip(axis.get_yticklabels(), sides, strict=True):
        text.set_color(_OTHER if name.startswith(OTHERS) else _SPECTRUM)
    axis.set_ylim(len(sides) - 0.5, -0.5)
    axis.set_xlabel("speed-up, % of steps over NFE")
    axis.grid(axis="x", alpha=0.3)
    axis.legend([*axis.containers[:1], *axis.lines[1:2]], ["wall time, 95 % interval", "CPU time"], fontsize=7)
    set_heading(figure, title)
    return figure
