"""The script that simulates how often the intervals hold the truth."""

import json
import math

import coverage
import laws
import numpy as np
import pytest
from by_hand import record_of
from command import ROOT, error_line, script

from eval import statistics


def test_the_exit_code_follows_the_bounds(tmp_path, capsys, monkeypatch):
    for bounds, code, note in (((0.0, 1.0), 0, "0 of"), ((1.01, 1.02), 1, "of 52 intervals hold")):
        monkeypatch.setattr(coverage, "BOUNDS", bounds)
        said = script(coverage, f"to={tmp_path}", "simulations=20", capsys=capsys, monkeypatch=monkeypatch)
        assert said.code == code, said
        assert note in said.out
        assert max(map(len, said.out.splitlines()[:-1])) <= 80
    lines = json.loads((tmp_path / "coverage.json").read_text())["lines"]
    assert len(lines) == 72 and (tmp_path / "coverage.png").stat().st_size > 10_000
    assert {line["interval"] for line in lines} == {
        "mean", "worst 5 %", "difference", "mean by prompt", "speed-up", "Euler at latency"
    }  # fmt: skip
    assert (tmp_path / "coverage.md").read_text().count("\n| ") == len(lines) + 2


def one_line(half):
    """A line whose estimate is standard normal and whose truth is 0."""
    return coverage.Line("mean", "normal", "1", 0.0, lambda rng: (x := rng.standard_normal(), x - half, x + half))


@pytest.mark.parametrize(("half", "held", "inside"), [(1.96, 0.95, True), (1.645, 0.9, False), (3.0, 0.9973, False)])
def test_the_coverage_of_an_interval_that_is_known(half, held, inside):
    found = coverage.covered(one_line(half), 4000, 0)
    assert found.held == pytest.approx(held, abs=0.012)
    assert found.error == pytest.approx(2 * math.sqrt(found.held * (1 - found.held) / 4000))
    assert found.inside == inside
    assert found.below + found.above == pytest.approx(1 - found.held)
    assert found.width == pytest.approx(half, rel=0.05)


def test_bounds_allow_for_the_error_of_few_simulations():
    found = coverage.Covered("mean", "normal", "1", 0.92, 0.02, 0.0, 0.0, 1.0)
    assert found.inside
    assert not coverage.Covered("mean", "normal", "1", 0.92, 0.005, 0.0, 0.0, 1.0).inside
    assert not coverage.Covered("mean", "normal", "1", 0.98, 0.005, 0.0, 0.0, 1.0).inside


def test_the_truths_of_a_law():
    normal, worst = coverage.truths(lambda z: z, lower_is_better=False)
    assert normal == pytest.approx(0.0, abs=1e-6)
    assert worst == pytest.approx(-2.0627, abs=1e-3)  # minus the density at 1.645 over 0.05
    assert coverage.truths(np.exp, lower_is_better=True) == pytest.approx((1.64872, 8.5564), rel=1e-3)


def test_seeds_of_a_prompt_are_alike():
    values = np.array(coverage.drawn(np.random.default_rng(0), lambda z: z, 20_000, 2, 0.5)).reshape(-1, 2)
    assert np.corrcoef(values.T)[0, 1] == pytest.approx(0.5, abs=0.02)


def test_an_interval_that_ignores_prompts_is_noticed(monkeypatch):
    law = dict(values=lambda z: z)
    line = next(line for line in coverage.sample_lines(law) if line.size == "64 x 3, 0.5")
    assert coverage.covered(line, 400, 0).inside
    real = statistics.interval
    monkeypatch.setattr(statistics, "interval", lambda values, per: real(values, 1))
    assert not coverage.covered(line, 400, 0).inside


def test_the_laws_of_records_are_made_of_caching_methods_alone():
    """Not of the uncached run, whose CLIP scores are finite too, and not of plain sampling with fewer steps."""
    rows = [("none", 70.0), ("fewer_steps", 71.0), ("fora", 72.0), ("taylorseer", 73.0)]
    records = [
        record_of(name, "prompts.limit=2", *(["runs=14"] if name != "none" else []), clip=[value, value + 0.5])
        for name, value in rows
    ]
    found = laws.measured(records, "clip_score", np.asarray)
    assert np.array_equal(found, [[72.0, 72.5], [73.0, 73.5]])


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "cannot be read"), ("[]", "is no record of run.py: take it out"), ('{"format": 3}', "is no record")],
)
def test_a_damaged_record_is_refused_in_one_line(content, message, capsys, monkeypatch, tmp_path):
    (tmp_path / "fora-1.json").write_text(content)
    said = script(coverage, f"records={tmp_path}", f"to={tmp_path / 'to'}", capsys=capsys, monkeypatch=monkeypatch)
    assert f"{tmp_path / 'fora-1.json'} {message}" in error_line(said)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["simulations=0"], "simulations=0 must be a whole number from 2 on"),
        (["simulations=many"], "simulations=many must be"),
        (["records=nowhere"], "there is no folder nowhere"),
        (["two=3"], "unknown option two=3"),
    ],
)
def test_bad_options_are_refused(words, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert message in error_line(script(coverage, *words, capsys=capsys, monkeypatch=monkeypatch))


def test_the_lines_with_a_verdict_are_those_that_tables_print():
    heads = [line for path in (ROOT / "results" / "tables").glob("*.md") for line in path.read_text().splitlines()]
    cells = {cell.strip() for line in heads if line.startswith("| ") for cell in line.split("|")}
    assert {cell for cell in cells if "worst 5 %" in cell} == {"PSNR, worst 5 %"}
    names = [("mean", "CLIP of records"), ("worst 5 %", "PSNR of records"), ("worst 5 %", "CLIP of records")]
    lines = [coverage.Covered(interval, values, "64 x 3", 0.98, 0.005, 0.0, 0.02, 2.0) for interval, values in names]
    assert [line.printed for line in lines] == [True, True, False]
