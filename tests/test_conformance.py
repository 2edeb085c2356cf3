"""The cases of `cases.py`, for every pair of model and method, and the committed matrix over them."""

from pathlib import Path

import cases
import pytest

MATRIX = Path(__file__).resolve().parent.parent / "results" / "conformance.md"


@pytest.mark.parametrize("method", cases.METHODS)
@pytest.mark.parametrize("model", cases.MODELS)
def test_every_case_passes_or_is_refused_with_its_reason(model, method):
    found = cases.outcomes(model, method)
    failed = {case: outcome for case, outcome in found.items() if outcome.startswith("failed")}
    assert not failed
    refused = [outcome for outcome in found.values() if outcome.startswith("refused")]
    assert len(refused) in (0, len(found)) and all(len(reason) > 30 for reason in refused)


def test_the_matrix_holds_every_pair():
    text = MATRIX.read_text()
    for model in cases.MODELS:
        for method in cases.METHODS:
            assert f"| {model} | {method} |" in text, f"type python scripts/conformance.py: {model}, {method}"
    assert "failed" not in text
