"""The commands around a trace."""

import json

import pytest
from command import call, error_line

from spectrum.bench.scores import Row, agreement
from spectrum.commands.replay import expand


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    path = tmp_path_factory.mktemp("trace") / "t.pt"
    assert call("trace", "model.steps=16", "prompts.limit=2", f"trace={path}").code == 0
    return path


def test_a_trace_says_what_it_holds(tmp_path, capsys):
    said = call("trace", "model.steps=3", "prompts.limit=2", f"trace={tmp_path / 't.pt'}", capsys=capsys)
    assert said.code == 0 and "2 prompts, 3 steps, 2 branches" in said.out, said.err


def test_replay_scores_every_combination(trace, capsys):
    lists = ["method=fora,taylorseer", "schedule.interval=3,5"]
    said = call("replay", f"trace={trace}", *lists, "format=json", capsys=capsys)
    assert said.code == 0, said.err
    rows = json.loads(said.out)
    names = [f"{method}interval {n})" for method in ("fora (", "taylorseer (order 1, ") for n in (3, 5)]
    assert [row["name"] for row in rows] == names
    for near, far in zip(rows[::2], rows[1::2], strict=True):
        assert near["runs"] > far["runs"] and near["velocity"] < far["velocity"]


def test_the_table_is_for_people(trace, capsys):
    said = call("replay", f"trace={trace}", "method=fora", capsys=capsys)
    assert said.code == 0 and "velocity" in said.out and "fora (interval 4)" in said.out, said.err


def test_a_study_has_every_distance_and_ablation(trace, tmp_path, capsys):
    said = call("study", f"trace={trace}", f"to={tmp_path / 's.json'}", capsys=capsys)
    assert said.code == 0, said.err
    found = json.loads((tmp_path / "s.json").read_text())
    assert set(found["ablations"]) == {
        "method.forecast.degree", "method.forecast.ridge", "method.forecast.blend", "method.clock", "schedule.growth",
    }  # fmt: skip
    for points in found["by_distance"].values():
        assert points[0]["distance"] == 1 and points[0]["feature"] > 0


def test_bad_traces_are_refused(tmp_path, capsys):
    (tmp_path / "torn.pt").write_bytes(b"torn")
    for given, said in (([f"trace={tmp_path / 'torn.pt'}"], "no whole trace"), ([], "scripts/trace.py"),
                        ([f"trace={tmp_path / 'none.pt'}"], "there is no trace")):  # fmt: skip
        assert said in error_line(call("replay", *given, capsys=capsys))


def test_lists_expand_like_a_sweep():
    assert expand(["a=1,2", "b=x"]) == [["a=1", "b=x"], ["a=2", "b=x"]]
    assert expand(["a=[1,2]"]) == [["a=[1,2]"]]


def scored(reference, velocity, psnr):
    return Row("x", 14, 1.0, 0.1, velocity, 1.0, 1.0, reference, psnr)


def test_agreement_is_within_one_reference():
    """Two references on which every rank agrees, though not across them; a third that has two records alone."""
    near = [scored("a", v, p) for v, p in ((0.1, 40.0), (0.2, 35.0), (0.4, 30.0))]
    hard = [scored("b", v, p) for v, p in ((0.1, 20.0), (0.2, 15.0), (0.4, 16.0))]
    few = [scored("c", 0.1, 1.0)] * 2
    (_, agreed), (count, other) = agreement([*near, *hard, *few, scored("a", 0.9, None)])
    assert agreed == pytest.approx(1, abs=1e-5) and count == 3 and other == pytest.approx(0.5, abs=1e-5)


def test_an_option_of_its_own_is_typed_once(tmp_path, capsys):
    said = call("replay", f"trace={tmp_path / 'a'}", f"trace={tmp_path / 'b'}", capsys=capsys)
    assert "trace is given twice" in error_line(said)
