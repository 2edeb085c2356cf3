"""The names of the sections of a pipeline's call, of which each runs the denoiser over all steps, as FramePack's do."""

import re
from collections.abc import Iterable, Mapping
from typing import Any


def in_sections(reports: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """One mapping from those of a call's sections: the names of the later ones begin with `section 2: `.

    Args:
        reports: of each section in turn what is known by the name of a CFG branch.

    Example:
        >>> in_sections([{"cond": 1, "uncond": 2}, {"cond": 3}])
        {'cond': 1, 'uncond': 2, 'section 2: cond': 3}
    """
    named = enumerate(reports, 1)
    return {
        f"section {number}: {name}" if number > 1 else name: own for number, one in named for name, own in one.items()
    }


def sections(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The parts of a mapping by CFG branch that are of one section each, in order; see `in_sections`.

    Example:
        >>> sections({"cond": 1, "uncond": 2, "section 2: cond": 3})
        [{'cond': 1, 'uncond': 2}, {'section 2: cond': 3}]
    """
    parts: dict[str, dict[str, Any]] = {}
    for name, own in found.items():
        match = re.match(r"section \d+: ", name)
        parts.setdefault(match[0] if match else "", {})[name] = own
    return list(parts.values())


def held_bytes(report: Mapping[str, Any]) -> int:
    """The bytes of stored features that a call held: those of the section that held most, as each frees the last one's.

    Args:
        report: of the call, from `Accelerated.report`.

    Example:
        >>> held_bytes({"a": {"cache_bytes": 4}, "b": {"cache_bytes": 4}, "section 2: a": {"cache_bytes": 6}})
        8
    """
    return max((sum(own["cache_bytes"] for own in part.values()) for part in sections(report)), default=0)
