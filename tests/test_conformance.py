"""The cases of `conformance.py`, for every pair of model and method, and the committed matrix over them."""

from pathlib import Path

import conformance
import pytest

MATRIX = Path(__file__).resolve().parent.parent / "results" / "conformance.md"


@pytest.mark.parametrize("method", conformance.METHODS)
@pytest.mark.parametrize("model", conformance.MODELS)
def test_every_case_passes_or_is_refused_with_its_reason(model, method):
    found = conformance.outcomes(model, method)
    failed = {case: outcome for case, outcome in found.items() if outcome.startswith("failed")}
    assert not failed
    refused = [outcome for outcome in found.values() if outcome.startswith("refused")]
    assert len(refused) in (0, len(found)) and all(len(reason) > 30 for reason in refused)


def test_the_matrix_holds_every_pair():
    text = MATRIX.read_text()
    for model in conformance.MODELS:
        for method in conformance.METHODS:
            assert f"| {model} | {method} |" in text, f"type python scripts/conformance.py: {model}, {method}"
    assert "failed" not in text
