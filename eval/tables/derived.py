"""How a check of records tells what does not hold: fields that are otherwise than what they follow from."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from spectrum.config.targets import locate, own_targets
from spectrum.core.schedule import needs_drift
from spectrum.records.files import finite
from spectrum.records.record import Record

RELATIVE = 1e-6
"""How far a number may lie from what it follows from: sums of another machine differ in their last digits."""
Problems = Iterator[str]
"""A line for each thing that does not hold, which begins with the field."""


def differs(field: str, stored: Any, made: Any, source: str) -> Problems:
    """A line if a field is otherwise than what it follows from.

    Args:
        field: its path in the record.
        stored: what the record says.
        made: what was worked out.
        source: what it was worked out from.
    """
    if not same(stored, finite(made)):
        yield f"{field} is {stored}, and {source} gives {made}"


def same(stored: Any, made: Any) -> bool:
    """Whether two pieces of JSON content are equal, numbers to within `RELATIVE`.

    Example:
        >>> same({"a": [1.0, None]}, {"a": [1.0 + 1e-9, None]}), same([1.0], [1.001]), same([1.0], [1.0, 2.0])
        (True, False, False)
    """
    if isinstance(stored, Mapping) and isinstance(made, Mapping):
        return stored.keys() == made.keys() and all(same(stored[key], made[key]) for key in made)
    if isinstance(stored, (list, tuple)) and isinstance(made, (list, tuple)):
        return len(stored) == len(made) and all(map(same, stored, made))
    if isinstance(stored, (int, float)) and isinstance(made, (int, float)) and bool not in (type(stored), type(made)):
        return math.isclose(stored, made, rel_tol=RELATIVE, abs_tol=1e-9)
    return stored == made


def dirty(git: Mapping[str, Any], field: str) -> Problems:
    """A line if files of the code were changed when something was made."""
    if git.get("dirty"):
        yield f"{field}.dirty is true: it was made with code that no commit holds"
    if (git.get("commit") is None) != (git.get("dirty") is None):
        yield f"{field}.commit is {git.get('commit')}, and {field}.dirty is {git.get('dirty')}"


def targets(record: Record) -> set[str]:
    """The paths of the functions that a record's method and schedule name."""
    nodes = [record.schedule, *(record.method.get(key) for key in ("forecast", "drift", "correct"))]
    return {str(node["_target_"]) for node in nodes if node is not None and "_target_" in node}


def by_time_alone(record: Record) -> bool:
    """Whether a record's method runs the same steps for every sample, because its schedule looks at no data.

    A schedule from outside the project is judged by what the record holds: only a plan has weights.
    """
    target = str(record.schedule.get("_target_", ""))
    if target in own_targets():
        return not needs_drift(locate(target, "schedule"))
    return bool(record.weights) or not record.caches


def rising(steps: Sequence[int], limit: int) -> bool:
    """Whether steps stand in order, each once, below a limit."""
    return list(steps) == sorted(set(steps)) and set(steps) <= set(range(limit))
