"""The cases of `cases.py` for every pair of model and method: each outcome is the one in results/conformance.md."""

from pathlib import Path

import cases
import pytest
from conformance import read_matrix

MATRIX = Path(__file__).resolve().parent.parent / "results" / "conformance.md"
AGAIN = "type python scripts/conformance.py to=results/conformance.md"


COMMITTED = {
    pair: dict(zip(cases.CASES, outcomes, strict=True))
    for pair, outcomes in read_matrix(MATRIX, list(cases.CASES)).items()
}


WHOLE = {"flux"}
"""The model on which every method goes through every case; scripts/conformance.py runs every case of every pair."""
WEIGHTS_ALONE = {"spectrum_blend", "hicache", "resilphase", "foca", "lagrange", "magcache", "fora", "taylorseer"}
"""Methods that differ from spectrum in the weights of their forecast alone."""
SKIPPING, DECIDING = ("2",), ("1", "2", "9")
"""What shows on the other models that these skip, and that the rest also decide for each sample of a batch; spectrum
itself goes through every case on every model."""


def wanted(model, method):
    """The cases that are run here."""
    if model in WHOLE or method == "spectrum":
        return tuple(cases.CASES)
    return SKIPPING if method in WEIGHTS_ALONE else DECIDING


@pytest.mark.parametrize("method", cases.METHODS)
@pytest.mark.parametrize("model", cases.MODELS)
def test_every_case_has_its_committed_outcome(model, method):
    assert (model, method) in COMMITTED, f"{AGAIN}: it lacks {model} with {method}"
    expected = {case: COMMITTED[model, method][case] for case in wanted(model, method)}
    assert cases.outcomes(model, method, tuple(expected)) == expected, AGAIN


def test_the_matrix_has_no_failure_and_refuses_little():
    outcomes = [outcome for pair in COMMITTED.values() for outcome in pair.values()]
    assert set(COMMITTED) == {(model, method) for model in cases.MODELS for method in cases.METHODS}
    assert not [outcome for outcome in outcomes if outcome.startswith("failed")]
    refused = [pair for pair, found in COMMITTED.items() if any(o.startswith("refused") for o in found.values())]
    assert len(refused) == 13, refused


def test_a_hook_that_refuses_everything_does_not_pass(monkeypatch):
    """The comparison is with the outcome, not with the absence of a failure."""

    def refuse(*args, **kwargs):
        raise cases.SpectrumError("no")

    monkeypatch.setattr(cases, "Accelerated", refuse)
    assert cases.outcomes("flux", "fora") != COMMITTED["flux", "fora"]
