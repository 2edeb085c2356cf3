"""A plan's file: what is written is read again, and what was changed, cut off or made for something else is refused."""

import dataclasses
import json

import pytest

from spectrum.core.errors import SpectrumError
from spectrum.records.plan_file import FORMAT, Expected, PlanFile, Setting, differences, read_plan, write_plan

SETTING = Setting(
    "FluxPipeline", "a" * 64, 8, "FlowMatchEulerDiscreteScheduler", [1.0, 0.5], 96, 96, None, {"scale": 4}
)
PLAN = PlanFile(
    format=FORMAT, run_steps=[0, 1, 4], weights={"": [[1.0], [-0.5, 1.5], [0.0, 0.0, 1.0]]}, site="output",
    space="feature", setting=SETTING, prompts="0" * 12, samples=3, planner={"_target_": "x", "seed": 0},
    ridges=[0.0, 0.1, 0.1], conditions=[1.0, 20.0, 30.0], expected=Expected(30.0, 1.0, 20.0, 3), full_runs=12.5,
    made_with={},
)  # fmt: skip


def test_a_plan_is_read_as_it_was_written(tmp_path):
    write_plan(tmp_path / "p.json", PLAN)
    found = read_plan(tmp_path / "p.json")
    assert dataclasses.replace(found, digest="") == PLAN and len(found.digest) == 16
    first = (tmp_path / "p.json").read_bytes()
    write_plan(tmp_path / "p.json", PLAN)
    assert (tmp_path / "p.json").read_bytes() == first


def test_a_plan_that_was_changed_by_hand_is_refused(tmp_path):
    write_plan(tmp_path / "p.json", PLAN)
    whole = json.loads((tmp_path / "p.json").read_text())
    for key in whole.keys() - {"digest", "format"}:
        changed = {
            **whole,
            key: {"a": 1} if isinstance(whole[key], dict) else [0] if isinstance(whole[key], list) else 7,
        }
        (tmp_path / "p.json").write_text(json.dumps(changed))
        with pytest.raises(SpectrumError, match="fit it again"):
            read_plan(tmp_path / "p.json")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 1}', '{"format": 99}', "\x00"])
def test_a_file_that_is_no_plan_is_refused(content, tmp_path):
    (tmp_path / "p.json").write_text(content)
    with pytest.raises(SpectrumError, match=r"p\.json"):
        read_plan(tmp_path / "p.json")
    with pytest.raises(SpectrumError, match="nowhere"):
        read_plan(tmp_path / "nowhere.json")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"run_steps": [1, 2, 4]}, "begin with 0"),
        ({"run_steps": [0, 1, 8]}, "ascend below 8"),
        ({"weights": {"": [[1.0], [1.0]]}}, "weights for each of its run steps"),
        ({"weights": {"": [[1.0], [1.0, 1.0, 1.0], [1.0]]}}, "more features than there are"),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(changes, says, tmp_path):
    write_plan(tmp_path / "p.json", dataclasses.replace(PLAN, **changes))
    with pytest.raises(SpectrumError, match=says):
        read_plan(tmp_path / "p.json")


def test_what_differs_is_said():
    assert not differences(SETTING, SETTING)
    other = dataclasses.replace(SETTING, model="b" * 64, solver="UniPCMultistepScheduler", sigmas=[1.0, 0.6])
    said = " ".join(differences(SETTING, other))
    assert "model aaaaaaaaaaaa, here bbbbbbbbbbbb" in said and "UniPC" in said and "grid of sigmas" in said
    assert differences(SETTING, dataclasses.replace(SETTING, steps=9, sigmas=[])) == ["steps 8, here 9"]
    assert differences(SETTING, dataclasses.replace(SETTING, model=None)) == []
