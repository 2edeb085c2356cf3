"""Videos as samples: stored lossless, read frame by frame, measured per video."""

import hashlib
import json

import numpy as np
import pytest
import torch
from PIL import Image

from eval.figures.sheets import write_film
from eval.metrics import fidelity, text, vbench, video
from eval.metrics import vbench_quality as quality
from eval.metrics.measure import measure
from eval.metrics.metric import AbsentError
from eval.metrics.pictures import Pictures, load_images
from spectrum.bench.sampling import encoded
from spectrum.core.errors import SpectrumError

FRAMES = 5


def clips(count=3, noise=0.0, seed=0):
    g = torch.Generator().manual_seed(seed)
    made = torch.rand(count, FRAMES, 3, 16, 24, generator=g)
    return ((made + noise * torch.randn(made.shape, generator=g)).clamp(0, 1) * 255).round() / 255


def stored(folder, made):
    folder.mkdir()
    for number, clip in enumerate(made):
        (folder / f"{number:05d}-s0.png").write_bytes(encoded(clip, fps=16))
    return Pictures.folder(folder)


def test_a_video_is_stored_lossless_and_read_in_order(tmp_path):
    made = clips()
    found = stored(tmp_path / "a", made)
    assert (len(found), found.frames, found.fps, found.size) == (3 * FRAMES, FRAMES, pytest.approx(16, 0.02), (24, 16))
    assert torch.equal(torch.cat(list(found.batches(4))), made.flatten(0, 1))
    assert all(torch.equal(a, b) for a, b in zip(found.videos(), made, strict=True))
    assert torch.equal(load_images(tmp_path / "a", ["00001-s0.png"])[0], made[1, FRAMES // 2])


def test_fidelity_of_a_video_is_the_mean_over_its_frames(tmp_path):
    own, other = clips(noise=0.1), clips()
    pair = stored(tmp_path / "a", own), stored(tmp_path / "b", other)
    found, _ = measure({"psnr": {}, "ssim": {}}, *pair, ["x"] * 3, ("a", "b"), print)
    by_frame = np.reshape(fidelity.psnr_of(own.flatten(0, 1), other.flatten(0, 1)), (3, FRAMES))
    np.testing.assert_allclose(found["psnr"].values, by_frame.mean(1), rtol=1e-6)
    assert found["psnr"].mean == pytest.approx(by_frame.mean())
    assert len(found["ssim"].values) == 3


def test_frames_that_equal_the_reference_are_left_out_of_a_videos_psnr(tmp_path):
    other = clips(2)
    own = other.clone()
    own[0, 1:] = 1 - own[0, 1:]
    found, _ = measure({"psnr": {}}, Pictures(own), Pictures(other), ["x"] * 2, ("a", "b"), print)
    expected = np.mean(fidelity.psnr_of(own[0, 1:], other[0, 1:]))
    assert found["psnr"].values == [pytest.approx(expected), float("inf")]
    assert found["psnr"].mean == pytest.approx(expected)


def test_each_frame_of_a_video_is_scored_against_the_videos_own_prompt():
    pytest.importorskip("open_clip")
    made, prompts = clips(2), ["a cat on blue", "two keys on red"]
    found, _ = measure({"clip_score": {}}, Pictures(made), None, prompts, ("a", "b"), print)
    for clip, prompt, value in zip(made, prompts, found["clip_score"].values, strict=True):
        assert value == pytest.approx(text.clip_score(Pictures(clip), None, [prompt] * FRAMES).aggregate)


def test_a_video_of_other_length_or_torn_is_named(tmp_path):
    found = stored(tmp_path / "a", clips())
    (tmp_path / "a" / "00001-s0.png").write_bytes(encoded(clips()[0, :3]))
    with pytest.raises(SpectrumError, match=r"00001-s0.png has 3 frames and 00000-s0.png has 5"):
        list(found.batches(4))
    whole = encoded(clips()[0])
    (tmp_path / "a" / "00001-s0.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SpectrumError, match=r"00001-s0.png is not a whole picture"):
        list(found.batches(4))


def colours():
    """A backbone: each frame's mean colour."""
    return lambda frames: frames.mean((2, 3))


def brightness(scale):
    """No backbone: it needs an argument."""
    return lambda frames: scale * frames.mean((1, 2, 3))


def test_quality_takes_what_has_a_backbone_and_says_so():
    own = Pictures(clips())
    alone = quality.vbench_quality(own, None, [])
    assert alone.provenance["dimensions"] == ["temporal_flickering"] and "temporal flickering alone" in alone.warning
    flicker = [vbench.normalised("temporal_flickering", video.temporal_flickering(clip)) for clip in clips()]
    np.testing.assert_allclose(alone.values, 100 * np.array(flicker))
    assert "raft_large" in alone.provenance["left_out"]["dynamic_degree"]
    given = {"backbones": {"subject_consistency": f"{__name__}.colours"}, "plugins": [__name__]}
    more = quality.vbench_quality(own, None, [], **given)
    subject = [vbench.normalised("subject_consistency", video.subject_consistency(c, colours())) for c in clips()]
    np.testing.assert_allclose(more.values, 50 * (np.array(flicker) + subject))
    assert more.provenance["dimensions"] == ["subject_consistency", "temporal_flickering"]


def flow():
    """A backbone: a long flow between frames whose grey levels are more than 0.15 apart, none between others."""
    return lambda a, b: torch.ones(1, 2, *a.shape[-2:]) * 100 * ((b - a).abs().mean() > 0.15)


def aesthetics():
    """A backbone and its head: the score is ten times the share of the colour in the length of the row."""
    return (lambda frames: frames.mean((2, 3)), lambda rows: 10 * rows[:, 0])


def test_backbones_of_every_kind_reach_their_dimension(tmp_path):
    """Grey levels 0.1 apart: a motion only where every second frame is kept, at 16 frames a second."""
    levels = torch.arange(FRAMES)[:, None, None, None].expand(-1, 3, 16, 24) / 10
    kinds = {"dynamic_degree": f"{__name__}.flow", "aesthetic_quality": f"{__name__}.aesthetics"}
    given = {"backbones": kinds, "plugins": [__name__]}
    for source, moves in ((stored(tmp_path / "a", [levels]), 1.0), (Pictures(levels[None]), 0.0)):
        raw = quality.vbench_quality(source, None, [], **given).provenance["raw"]
        assert raw["dynamic_degree"] == moves
        # four of five frames are grey, whose unit row is (1, 1, 1) over the root of 3, and one is black
        assert raw["aesthetic_quality"] == pytest.approx(0.8 / 3**0.5)


def frames_colour():
    """A backbone of every picture's score: its mean brightness in percent."""
    return lambda frames: 100 * frames.mean((1, 2, 3))


def halfway():
    """A backbone: the mean of two frames."""
    return lambda a, b: (a + b) / 2


EVERY = {
    "subject_consistency": "colours", "background_consistency": "colours", "motion_smoothness": "halfway",
    "dynamic_degree": "flow", "aesthetic_quality": "aesthetics", "imaging_quality": "frames_colour",
}  # fmt: skip


def test_with_every_backbone_it_is_vbenchs_quality_of_each_video():
    kinds = {name: f"{__name__}.{function}" for name, function in EVERY.items()}
    found = quality.vbench_quality(Pictures(clips()), None, [], backbones=kinds, plugins=__name__)
    raws = [
        {
            "subject_consistency": video.subject_consistency(clip, colours()),
            "background_consistency": video.background_consistency(clip, colours()),
            "temporal_flickering": video.temporal_flickering(clip),
            "motion_smoothness": video.motion_smoothness(clip, halfway()),
            "dynamic_degree": video.dynamic_degree(clip, flow()),
            "aesthetic_quality": video.aesthetic_quality(clip, *aesthetics()),
            "imaging_quality": video.imaging_quality(clip, frames_colour()),
        }
        for clip in clips()
    ]
    expected = [100 * vbench.quality(raw)[0] for raw in raws]
    assert found.values == pytest.approx(expected) and found.aggregate == pytest.approx(np.mean(expected))
    assert found.warning == "" and len(set(found.values)) == 3
    facts = found.provenance
    assert facts["dimensions"] == list(vbench.QUALITY) and facts["left_out"] == {} and facts["backbones"] == kinds
    for name, value in facts["raw"].items():
        assert value == pytest.approx(np.mean([raw[name] for raw in raws]))


def test_what_is_left_out_says_how_to_get_it_and_raft_leaves_its_digest(monkeypatch):
    """Videos of three frames, the fewest that do."""
    three = Pictures(clips()[:, :3])
    monkeypatch.setattr(video, "raft", lambda weights: (flow(), {"sha256": f"digest of {weights}"}))
    given = {"backbones": {"imaging_quality": f"{__name__}.frames_colour"}, "plugins": [__name__]}
    found = quality.vbench_quality(three, None, [], raft="raft.pth", **given)
    names = "temporal flickering, dynamic degree, imaging quality"
    assert found.warning == f"of VBench's seven dimensions, {names} alone"
    how = "give eval.vbench_quality.backbones.NAME=package.function"
    left = ("subject_consistency", "background_consistency", "motion_smoothness", "aesthetic_quality")
    assert found.provenance["left_out"] == dict.fromkeys(left, how)
    assert found.provenance["raft"] == "digest of raft.pth"
    with pytest.raises(AbsentError, match=r"^vbench_quality is for videos of three frames or more"):
        quality.vbench_quality(Pictures(clips()[:, :2]), None, [])


def test_results_of_vbenchs_own_package_stand_in_for_the_videos(tmp_path):
    (tmp_path / "a_eval_results.json").write_text(json.dumps({"imaging_quality": [0.65, []], "scene": [0.4, []]}))
    found = quality.vbench_quality(
        Pictures(torch.rand(2, 3, 8, 8)), None, [], results=str(tmp_path / "a_eval_results.json")
    )
    assert found.aggregate == pytest.approx(65) and found.values is None
    digest = hashlib.sha256((tmp_path / "a_eval_results.json").read_bytes()).hexdigest()
    facts = {"dimensions": ["imaging_quality"], "source": "VBench's own package", "sha256": digest}
    assert found.provenance == facts


def test_quality_refuses_what_it_cannot_use():
    with pytest.raises(AbsentError, match="these are pictures"):
        quality.vbench_quality(Pictures(torch.rand(2, 3, 8, 8)), None, [])
    for backbones, said in (
        ({"subject": "x.y"}, r"backbones\.subject is no dimension: type one of subject_consistency"),
        ({"imaging_quality": "os.getcwd"}, r"allow its package with \+eval\.vbench_quality\.plugins=\[os\]"),
        (
            {"imaging_quality": f"{__name__}.no_such"},
            r"eval\.vbench_quality\.backbones\.imaging_quality.* cannot be imported",
        ),
        ({"imaging_quality": f"{__name__}.FRAMES"}, "is no function"),
        ({"imaging_quality": f"{__name__}.brightness"}, "needs arguments"),
        ({"imaging_quality": 3}, r"type eval\.vbench_quality\.backbones\.imaging_quality=package\.function"),
        (
            {"aesthetic_quality": f"{__name__}.colours"},
            r"^eval.vbench_quality.backbones.aesthetic_quality .*pair",
        ),
        ("colours", r"type eval\.vbench_quality\.backbones\.NAME=package\.function"),
    ):
        with pytest.raises(SpectrumError, match=said):
            quality.vbench_quality(Pictures(clips()), None, [], backbones=backbones, plugins=[__name__])


def test_a_package_that_is_not_allowed_is_not_imported(tmp_path, monkeypatch):
    (tmp_path / "planted.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\ndef net(): return None\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SpectrumError, match=r"plugins=\[planted\]"):
        quality.vbench_quality(Pictures(clips()), None, [], backbones={"imaging_quality": "planted.net"})
    assert not (tmp_path / "ran").exists()


def test_a_picture_is_a_video_of_one_frame(tmp_path):
    (tmp_path / "p").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "p" / "a.png")
    found = Pictures.folder(tmp_path / "p")
    assert (len(found), found.frames, found.fps) == (1, 1, None)


def test_a_film_holds_every_frame(tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    write_film(tmp_path / "film.mp4", [list(clips(2)), list(clips(2, noise=0.1))], fps=16)
    reader = ffmpeg.read_frames(str(tmp_path / "film.mp4"))
    about = next(reader)
    assert about["size"] == (48, 32) and about["fps"] == 16 and len(list(reader)) == FRAMES
    assert [p.name for p in tmp_path.iterdir()] == ["film.mp4"]


def test_backbones_of_an_allowed_package_are_found_before_anything_is_sampled():
    quality.check_vbench_quality(backbones={"subject_consistency": f"{__name__}.colours"}, plugins=[__name__])
    with pytest.raises(SpectrumError, match="allow its package"):
        quality.check_vbench_quality(backbones={"subject_consistency": f"{__name__}.colours"})
