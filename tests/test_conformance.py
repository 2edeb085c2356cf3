"""The cases of `cases.py`, some for every pair of model and method: an outcome is the one in results/conformance.md."""

from pathlib import Path

import cases
import pytest
from conformance import read_matrix
from families import CORE

MATRIX = Path(__file__).resolve().parent.parent / "results" / "conformance.md"
AGAIN = "type python scripts/conformance.py to=results/conformance.md"


COMMITTED = {
    pair: dict(zip(cases.CASES, outcomes, strict=True))
    for pair, outcomes in read_matrix(MATRIX, list(cases.CASES)).items()
}


FAMILIES = {"flux", "sdxl", "wan22_a14b", "cogview4"}
"""A transformer, a UNet, one of two experts, and one that calls an MLP twice."""
OWN_PATHS = {"taylorseer_modules", "teacache", "first_block_cache", "easycache", "freqca"}
"""The methods that store elsewhere than spectrum, or decide by data; they go through every case on these models."""
AT_THE_EXIT = {"spectrum_blend", "hicache", "resilphase", "foca", "lagrange", "magcache", "fora", "taylorseer"}
"""Methods that store at the exit and never look at data, as spectrum does, which goes through every case on `CORE`."""


def wanted(model, method):
    """The cases that are run here; scripts/conformance.py runs all of them for every pair."""
    if model == "flux" or (method == "spectrum" and model in CORE) or (method in OWN_PATHS and model in FAMILIES):
        return tuple(cases.CASES)
    return ("1", "2") if method in AT_THE_EXIT else ("1", "2", "9")


@pytest.mark.parametrize("method", cases.METHODS)
@pytest.mark.parametrize("model", cases.MODELS)
def test_cases_have_their_committed_outcomes(model, method):
    assert (model, method) in COMMITTED, f"{AGAIN}: it lacks {model} with {method}"
    expected = {case: COMMITTED[model, method][case] for case in wanted(model, method)}
    assert cases.outcomes(model, method, tuple(expected)) == expected, AGAIN


def test_the_matrix_has_no_failure_and_refuses_little():
    outcomes = [outcome for pair in COMMITTED.values() for outcome in pair.values()]
    assert set(COMMITTED) == {(model, method) for model in cases.MODELS for method in cases.METHODS}
    assert not [outcome for outcome in outcomes if outcome.startswith("failed")]
    refused = [pair for pair, found in COMMITTED.items() if any(o.startswith("refused") for o in found.values())]
    assert len(refused) == 73, refused


def test_a_hook_that_refuses_everything_does_not_pass(monkeypatch):
    """The comparison is with the outcome, not with the absence of a failure."""

    def refuse(*args, **kwargs):
        raise cases.SpectrumError("no")

    monkeypatch.setattr(cases, "Accelerated", refuse)
    assert cases.outcomes("flux", "fora") != COMMITTED["flux", "fora"]
