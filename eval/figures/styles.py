"""The look of each method's line: colour, line style and marker. No two lines of a figure have the same."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

_DASHES = ("-", "--", ":", "-.")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#8c564b", "#e377c2", "#17becf", "#bcbd22", "#ff7f0e")


@dataclass(frozen=True)
class Style:
    """How a line looks.

    Attributes:
        colour: as `#rrggbb`.
        dashes: matplotlib's line style.
        marker: matplotlib's marker.
    """

    colour: str
    dashes: str = "-"
    marker: str = "o"

    def line(self, **more: Any) -> dict[str, Any]:
        """Arguments of matplotlib's `plot`, with `more` added to them or put in their place."""
        return {"color": self.colour, "ls": self.dashes, "marker": self.marker, "ms": 4, "lw": 1.4, **more}


METHODS = {
    "fewer_steps": Style("#8a8f98", "--", "o"),
    "fewer_steps_unipc": Style("#3d4350", "--", "s"),
    "spectrum": Style("#1f5fbf", "-", "o"),
    "spectrum_blend": Style("#6d9be6", "-", "s"),
    "fora": Style("#c98a1b", "-", "^"),
    "fora_modules": Style("#c98a1b", ":", "v"),
    "taylorseer": Style("#2f8f5b", "-", "D"),
    "taylorseer_modules": Style("#2f8f5b", ":", "X"),
    "lagrange": Style("#7a4fa3", "-", "v"),
    "adams": Style("#4b3a78", "-", "o"),
    "meancache": Style("#4b3a78", ":", "s"),
    "hicache": Style("#8d6748", "-", "P"),
    "dmd": Style("#8d6748", ":", "D"),
    "foca": Style("#a39c00", "-", "*"),
    "freqca": Style("#b98ad6", "-", ">"),
    "planned": Style("#0b7d3e", "-", "X"),
    "resilphase": Style("#16181d", "-", "<"),
    "teacache": Style("#b0413e", "-.", "o"),
    "magcache": Style("#0a9aa0", "-.", "s"),
    "easycache": Style("#6fae2f", "-.", "^"),
    "seacache": Style("#f07a28", "-.", "D"),
    "first_block_cache": Style("#e0679a", "-.", "v"),
    "dbcache": Style("#8c2d5a", "-.", "P"),
}
"""Caching by step number has solid lines, by the data dashes and dots; controls are dashed and grey."""


def line_styles(names: Sequence[str]) -> list[Style]:
    """A style for each line of a figure, no two the same.

    A method of the project has the same style in every figure; a second line of the same method keeps its colour.

    Args:
        names: the method of each line, or any other name.

    Example:
        >>> [style.dashes for style in line_styles(["spectrum", "spectrum"])]
        ['-', '--']
    """
    strangers = [name for name in dict.fromkeys(names) if name not in METHODS]
    bases = {
        name: Style(_COLOURS[i % len(_COLOURS)], "-", _MARKERS[i % len(_MARKERS)]) for i, name in enumerate(strangers)
    }
    bases |= {name: METHODS[name] for name in names if name in METHODS}
    found: list[Style] = []
    for number, name in enumerate(names):
        base = bases[name]
        others = {*found, *(bases[other] for other in names[number + 1 :] if other != name)}
        found.append(next(look for look in _looks(base) if look not in others))
    return found


def _looks(base: Style) -> Iterator[Style]:
    """A style, then others of its colour: other dashes first, then other markers."""
    dashes, markers = _turned(_DASHES, base.dashes), _turned(_MARKERS, base.marker)
    return (Style(base.colour, dash, marker) for marker, dash in itertools.product(markers, dashes))


def _turned(values: Sequence[str], first: str) -> list[str]:
    """The values in their order, starting with a given one."""
    start = values.index(first)
    return [*values[start:], *values[:start]]
