"""Scores that cost no sampling, ranked against sampling: the correlation, the schedules drawn, and the whole script."""

import json

import inner_score as script
import numpy as np
import pytest
from scipy import stats

from eval.tables.inner_score import page, rank_correlation, table
from spectrum.core.errors import SpectrumError

ROW = {
    "runs": 3, "drawn": "near", "schedules": [[0, 1, 2]] * 4, "sampled": [10.0, 12.0, 11.0, 15.0],
    "scores": {"fitted": [-4.0, -2.0, -3.0, -1.0], "reuse": [-1.0, -2.0, -3.0, -4.0]},
}  # fmt: skip


def test_the_correlation_is_spearmans_with_ties_and_lies_in_its_interval():
    random = np.random.default_rng(1)
    one = random.integers(0, 9, 60).astype(float)
    other = one + random.normal(0, 4, 60)
    found, low, high = rank_correlation(one, other)
    assert found == pytest.approx(stats.spearmanr(one, other).statistic)
    assert low < found < high < 1


def test_a_line_for_each_score():
    text = table([ROW])
    assert "| fitted | 1.00 [" in text and "| reuse | -0.80 [" in text
    assert "3 runs, near" in page({"model": "tiny", "model_kind": "a kind", "prompts": 8, "rows": [ROW]})


@pytest.mark.parametrize("kind", ["anywhere", "near"])
def test_drawn_schedules_are_different_whole_and_as_long(kind):
    start = (0, 1, 3, 8, 12, 16, 20, 25, 30, 34, 38, 42, 46)
    found = script.drawn(kind, start, 50, 40, np.random.default_rng(0))
    assert len(set(found)) == 40
    for schedule in found:
        assert schedule[0] == 0 and list(schedule) == sorted(set(schedule)) and schedule[-1] < 50
        assert len(schedule) == len(start)
        assert kind == "anywhere" or len(set(schedule) - set(start)) <= 2 * script.MOVES, "12 could have moved"


def test_no_more_schedules_are_drawn_than_there_are():
    assert len(script.drawn("anywhere", (0, 5), 9, 8, np.random.default_rng(0))) == 8
    with pytest.raises(SpectrumError, match="there are only about 8 schedules of 2 runs anywhere: type schedules=8"):
        script.drawn("anywhere", (0, 5), 9, 9, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("runs=abc", "runs=abc is no whole number of at least 2: type runs=10"),
        ("runs=", "runs= is no whole number"),
        ("schedules=0", "schedules=0 is no whole number of at least 2"),
        ("prompts=heldout", "nothing is fitted on the heldout prompts"),
    ],
)
def test_bad_input_is_one_line(word, says, monkeypatch):
    monkeypatch.setattr("sys.argv", ["inner_score.py", word])
    with pytest.raises(SpectrumError, match=says):
        script.main()


def test_the_script_scores_what_it_samples(tmp_path, monkeypatch, capsys):
    words = ["runs=3", "schedules=4", f"to={tmp_path / 'scores.json'}", f"out={tmp_path}", "model.steps=7"]
    monkeypatch.setattr("sys.argv", ["inner_score.py", *words, "prompts.limit=2", "batch=2"])
    script.main()
    found = json.loads((tmp_path / "scores.json").read_text())
    assert [row["drawn"] for row in found["rows"]] == ["anywhere", "near"]
    for row in found["rows"]:
        assert len(row["sampled"]) == 4 and {"fitted", "taylor, no gain"} < set(row["scores"])
        assert len(set(row["sampled"])) == 4 and len(set(row["scores"]["fitted"])) > 1
    assert found["prompts"] == 2 and found["model_kind"] == "embedded, trained"
    assert "fitted" in capsys.readouterr().out
