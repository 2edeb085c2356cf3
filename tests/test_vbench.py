import hashlib
import json

import pytest

from eval.metrics import vbench
from spectrum.core.errors import SpectrumError

RAWS = {
    "subject_consistency": 0.95, "background_consistency": 0.96, "temporal_flickering": 0.98,
    "motion_smoothness": 0.99, "dynamic_degree": 0.6, "aesthetic_quality": 0.55, "imaging_quality": 0.65,
}  # fmt: skip


def test_normalised_ranges():
    for name, (low, high) in {
        "subject_consistency": (0.1462, 1), "background_consistency": (0.2615, 1), "temporal_flickering": (0.6293, 1),
        "motion_smoothness": (0.706, 0.9975), "dynamic_degree": (0, 1), "aesthetic_quality": (0, 1),
        "imaging_quality": (0, 1), "appearance_style": (0.0009, 0.2855), "temporal_style": (0, 0.364),
        "overall_consistency": (0, 0.364),
    }.items():  # fmt: skip
        assert vbench.normalised(name, low) == pytest.approx(0)
        assert vbench.normalised(name, high) == pytest.approx(1)
        assert vbench.normalised(name, (low + high) / 2) == pytest.approx(0.5)
    assert len(vbench.QUALITY) == 7 and len(vbench.SEMANTIC) == 9
    with pytest.raises(SpectrumError, match="no dimension flicker"):
        vbench.normalised("flicker", 0.5)
    with pytest.raises(SpectrumError, match="leave a dimension out"):
        vbench.normalised("dynamic_degree", float("nan"))


def test_quality_by_hand():
    parts = [0.8038 / 0.8538, 0.6985 / 0.7385, 0.3507 / 0.3707, 0.284 / 0.2915, 0.5 * 0.6, 0.55, 0.65]
    score, present = vbench.quality(RAWS)
    assert score == pytest.approx(sum(parts) / 6.5)
    assert present == tuple(RAWS)
    assert vbench.quality({name: d.high for name, d in vbench.QUALITY.items()})[0] == pytest.approx(1)
    assert vbench.quality({name: d.low for name, d in vbench.QUALITY.items()})[0] == pytest.approx(0)


def test_a_missing_dimension_is_absent_and_not_zero():
    score, present = vbench.quality({"imaging_quality": 0.6, "dynamic_degree": 0.3})
    assert present == ("dynamic_degree", "imaging_quality")
    assert score == pytest.approx((0.5 * 0.3 + 0.6) / 1.5)
    for name in RAWS:
        rest = {key: raw for key, raw in RAWS.items() if key != name}
        left, names = vbench.quality(rest)
        assert name not in names and len(names) == 6
        zero = vbench.quality({**rest, name: 0.0})[0]
        assert left > zero
    with pytest.raises(SpectrumError, match="no quality score"):
        vbench.quality({"scene": 0.4})
    with pytest.raises(SpectrumError, match="no dimension speed"):
        vbench.quality({**RAWS, "speed": 1.0})


def test_total_by_hand():
    semantics = {"object_class": 0.8, "temporal_style": 0.182}
    score, present = vbench.total({**RAWS, **semantics})
    assert score == pytest.approx((4 * vbench.quality(RAWS)[0] + (0.8 + 0.5) / 2) / 5)
    assert present == (*RAWS, *semantics)
    with pytest.raises(SpectrumError, match="no semantic score"):
        vbench.total(RAWS)


def test_a_corpus_weighs_consistency_by_frames():
    values, frames = [0.9, 0.6], [11, 31]
    for name in ("subject_consistency", "background_consistency"):
        assert vbench.corpus(name, values, frames) == pytest.approx((10 * 0.9 + 30 * 0.6) / 40)
        assert vbench.corpus(name, values, [16, 16]) == pytest.approx(0.75)
    assert vbench.corpus("motion_smoothness", values, frames) == pytest.approx(0.75)
    assert vbench.corpus("dynamic_degree", [1.0, 0.0, 0.0, 1.0], [16] * 4) == 0.5
    for wrong in ([16], []):
        with pytest.raises(SpectrumError, match="frame count of each video"):
            vbench.corpus("imaging_quality", values, wrong)
    with pytest.raises(SpectrumError, match="fewer than two"):
        vbench.corpus("subject_consistency", values, [1, 16])


def rows(*values):
    return [{"video_path": f"videos/{i}.mp4", "video_results": value} for i, value in enumerate(values)]


def test_official_results_are_read(tmp_path):
    path = tmp_path / "all_eval_results.json"
    path.write_text(
        json.dumps(
            {
                "subject_consistency": [0.95, rows(0.94, 0.96)],
                "dynamic_degree": [0.5, rows(True, False)],
                "imaging_quality": [0.65, rows(60.0, 70.0)],
                "temporal style": [0.2, rows(0.2)],
            }
        )
    )
    found = vbench.read_official(path)
    assert {name: result.aggregate for name, result in found.items()} == {
        "subject_consistency": 0.95, "dynamic_degree": 0.5, "imaging_quality": 0.65, "temporal_style": 0.2,
    }  # fmt: skip
    assert found["dynamic_degree"].values == [1.0, 0.0]
    assert found["imaging_quality"].values == pytest.approx([0.6, 0.7])
    assert found["subject_consistency"].provenance == {
        "source": "VBench's own package",
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "dimension": "subject_consistency",
        "videos": ["videos/0.mp4", "videos/1.mp4"],
    }
    score, present = vbench.total({name: result.aggregate for name, result in found.items()})
    assert 0 < score < 1 and len(present) == 4
    assert found["dynamic_degree"].record_entry()["mean"] == 0.5


@pytest.mark.parametrize(("stored", "read"), [([1.5, 0.9], [0.015, 0.009]), ([1.0, 0.5], [1.0, 0.5]), ([], [])])
def test_imaging_quality_is_in_percent_where_any_value_is_above_1(tmp_path, stored, read):
    path = tmp_path / "a_eval_results.json"
    path.write_text(json.dumps({"imaging_quality": [0.5, rows(*stored)], "scene": [0.4, rows(1.5)]}))
    found = vbench.read_official(path)
    assert found["imaging_quality"].values == pytest.approx(read) and found["imaging_quality"].aggregate == 0.5
    assert found["scene"].values == [1.5]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not json", "is no JSON file"),
        ("[1, 2]", "holds no dimensions"),
        ("{}", "holds no dimensions"),
        (json.dumps({"camera_motion": [0.5, []]}), "camera_motion, which is none"),
        (json.dumps({"scene": 0.5}), "scene is not"),
        (json.dumps({"scene": [0.5]}), "scene is not"),
        (json.dumps({"scene": [0.5, [0.5]]}), "lacks video_path"),
        (json.dumps({"scene": [0.5, [{"video_path": "a.mp4"}]]}), "lacks video_path or video_results"),
        (json.dumps({"scene": ["high", []]}), "scene has a value that is no finite number"),
        ('{"scene": [NaN, []]}', "no finite number"),
        (json.dumps({"scene": [0.5, rows("0.5")]}), "no finite number"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    path = tmp_path / "bad_eval_results.json"
    path.write_text(content)
    with pytest.raises(SpectrumError, match=message) as error:
        vbench.read_official(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_missing_official_file_is_named(tmp_path):
    with pytest.raises(SpectrumError, match=r"nowhere\.json is missing"):
        vbench.read_official(tmp_path / "nowhere.json")
