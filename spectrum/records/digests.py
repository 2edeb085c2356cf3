"""Digests by which a record knows its own text and the files of its samples."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from spectrum.records.files import finite, identity

LENGTH = 16
"""Hex digits of a digest in a record."""


def record_digest(content: Mapping[str, Any]) -> str:
    """The digest of all that a record says, but for the digest itself.

    Args:
        content: the record as JSON content; NaN and infinities count as null.

    Returns:
        The first 16 hex digits of the SHA-256 of the content as JSON with sorted keys.

    Example:
        >>> record_digest({"nfe": 14.0}) == record_digest({"nfe": 14.0, "digest": "abc"})
        True
    """
    rest = finite({key: value for key, value in content.items() if key != "digest"})
    return identity(rest if _text_keys(rest) else json.loads(json.dumps(rest)), LENGTH)


def _text_keys(content: Any) -> bool:
    """Whether all keys are text, in whose order JSON sorts them; others are sorted before they become text."""
    if isinstance(content, dict):
        return all(isinstance(key, str) and _text_keys(value) for key, value in content.items())
    return not isinstance(content, list) or all(map(_text_keys, (v for v in content if type(v) in (dict, list))))


def sample_digests(ledger: Sequence[Mapping[str, Any]]) -> list[str]:
    """The digest of each sample's file, as a record holds them.

    Args:
        ledger: the lines of `samples.jsonl`, each with the SHA-256 of its file.

    Example:
        >>> sample_digests([{"sha256": "a3" * 32}])
        ['a3a3a3a3a3a3a3a3']
    """
    return [entry["sha256"][:LENGTH] for entry in ledger]


def samples_digest(digests: Sequence[str]) -> str:
    """One digest of all samples of a run, from `Record.digests`: what `Record.reference_samples` holds.

    Example:
        >>> samples_digest(["a3a3a3a3a3a3a3a3"])
        'fd22324587f97bad'
    """
    return identity(list(digests), LENGTH)
