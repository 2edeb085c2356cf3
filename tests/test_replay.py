"""The commands around a trace."""

import json
import subprocess
import sys

import pytest
from command import ROOT

from spectrum.bench.scores import Row, agreement
from spectrum.commands.replay import expand


def command(script, *words):
    ran = subprocess.run([sys.executable, f"scripts/{script}.py", *map(str, words)], cwd=ROOT, capture_output=True,
                         text=True, check=False)  # fmt: skip
    return ran.returncode, ran.stdout, ran.stderr


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    path = tmp_path_factory.mktemp("trace") / "t.pt"
    code, out, err = command("trace", "model.steps=16", "prompts.limit=2", f"trace={path}")
    assert code == 0 and "2 prompts, 16 steps, 2 branches" in out, err
    return path


def test_replay_scores_every_combination(trace):
    lists = ["method=fora,taylorseer", "schedule.interval=3,5"]
    code, out, err = command("replay", f"trace={trace}", *lists, "format=json")
    assert code == 0, err
    rows = json.loads(out)
    names = [f"{method}interval {n})" for method in ("fora (", "taylorseer (order 1, ") for n in (3, 5)]
    assert [row["name"] for row in rows] == names
    for near, far in zip(rows[::2], rows[1::2], strict=True):
        assert near["runs"] > far["runs"] and near["velocity"] < far["velocity"]


def test_the_table_is_for_people(trace):
    code, out, err = command("replay", f"trace={trace}", "method=fora")
    assert code == 0 and "velocity" in out and "fora (interval 4)" in out, err


def test_a_study_has_every_distance_and_ablation(trace, tmp_path):
    code, _, err = command("study", f"trace={trace}", f"to={tmp_path / 's.json'}")
    assert code == 0, err
    found = json.loads((tmp_path / "s.json").read_text())
    assert set(found["ablations"]) == {
        "method.forecast.degree", "method.forecast.ridge", "method.forecast.blend", "method.clock", "schedule.growth",
    }  # fmt: skip
    for points in found["by_distance"].values():
        assert points[0]["distance"] == 1 and points[0]["feature"] > 0


def test_bad_traces_are_refused(tmp_path):
    (tmp_path / "torn.pt").write_bytes(b"torn")
    for given, said in (([f"trace={tmp_path / 'torn.pt'}"], "no whole trace"), ([], "scripts/trace.py"),
                        ([f"trace={tmp_path / 'none.pt'}"], "there is no trace")):  # fmt: skip
        code, _, err = command("replay", *given)
        assert code == 2 and said in err and len(err.strip().splitlines()) == 1


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


def test_an_option_of_its_own_is_typed_once(tmp_path):
    code, _, err = command("replay", f"trace={tmp_path / 'a'}", f"trace={tmp_path / 'b'}")
    assert code == 2 and "trace is given twice" in err
