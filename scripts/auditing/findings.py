"""What an audit compared: each stored figure beside the one that was worked out anew."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

ARITHMETIC = 1e-9
"""How far a figure may be from what its raw values give, relative to it, or absolute below 1."""
PICTURES = 5e-4
"""How far a figure may be from what the 8-bit pictures give."""
SHARE = 0.06
"""How far a share of resamples may be from that of other random draws."""


@dataclass(frozen=True)
class Finding:
    """One figure, twice.

    Attributes:
        group: what kind of figure it is.
        name: which one: record and field, or table, row and column.
        stored: what is committed: a number, a text, or None for none.
        made: what was worked out.
        tolerance: how far they may differ, relative to the figure, or absolute below 1.
    """

    group: str
    name: str
    stored: Any
    made: Any
    tolerance: float = ARITHMETIC

    @property
    def off(self) -> float:
        """How far the two differ, relative to the figure, or absolute below 1; infinite where they are no numbers."""
        numbers = [isinstance(v, (int, float)) and not isinstance(v, bool) for v in (self.stored, self.made)]
        if not all(numbers):
            return 0.0 if type(self.stored) is type(self.made) and self.stored == self.made else math.inf
        gap = abs(self.stored - self.made) / max(1.0, abs(self.made))
        return math.inf if math.isnan(gap) else gap

    @property
    def agrees(self) -> bool:
        """Whether they differ by no more than the tolerance."""
        return self.off <= self.tolerance


@dataclass
class Findings:
    """All that an audit compared.

    Attributes:
        found: every figure that was compared.
        left: what could not be worked out anew, with the reason.
    """

    found: list[Finding] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def compare(self, group: str, name: str, stored: Any, made: Any, tolerance: float = ARITHMETIC) -> None:
        """Note one figure twice; NaN counts as none."""
        stored, made = (None if isinstance(v, float) and math.isnan(v) else v for v in (stored, made))
        self.found.append(Finding(group, name, stored, made, tolerance))

    def leave(self, reason: str) -> None:
        """Note what could not be worked out anew."""
        self.left.append(reason)

    @property
    def wrong(self) -> list[Finding]:
        """The figures that do not agree."""
        return [finding for finding in self.found if not finding.agrees]

    def lines(self) -> Iterator[str]:
        """For each group how many figures it has and the largest disagreement; then each figure that is wrong."""
        for group in dict.fromkeys(finding.group for finding in self.found):
            own = [finding for finding in self.found if finding.group == group]
            worst = max(own, key=lambda finding: (finding.off > finding.tolerance, finding.off))
            at = f" at {worst.name}" if worst.off else ""
            yield f"{group}: {len(own)} compared, largest disagreement {worst.off:.2g}{at}"
        for reason in dict.fromkeys(self.left):
            yield f"not worked out again: {reason} ({self.left.count(reason)})"
        for finding in self.wrong:
            yield f"WRONG {finding.group}: {finding.name} is {finding.stored}, and {finding.made} was worked out"
