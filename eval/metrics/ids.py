"""The ids of a metric in a record: of what was asked for, and of what it was computed with. Imports nothing heavy."""

from collections.abc import Mapping
from typing import Any

from spectrum.records.files import identity


def asked(name: str, parameters: Mapping[str, Any], sample: str, reference: str) -> str:
    """The id of a request to compute a metric. A record that holds it need not compute the metric again.

    Args:
        name: the metric.
        parameters: its parameters.
        sample: id of the samples.
        reference: id of the reference.

    Returns:
        12 hex digits.
    """
    return identity([name, dict(parameters), sample, reference])


def computed(request: str, provenance: Mapping[str, Any]) -> str:
    """The id of a computed metric. Two figures with the same id were made with the same weights.

    Args:
        request: from `asked`.
        provenance: what the metric was computed with; `sha256` is the digest of its backbone's weights.

    Returns:
        12 hex digits.
    """
    return identity([request, provenance.get("sha256")])
