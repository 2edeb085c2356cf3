"""Videos as samples: stored lossless, read frame by frame, measured per video."""

import numpy as np
import pytest
import torch
from PIL import Image

from eval.figures.sheets import write_film
from eval.metrics import fidelity, vbench, video
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


def test_quality_takes_what_has_a_backbone_and_says_so():
    own = Pictures(clips())
    alone = quality.vbench_quality(own, None, [])
    assert alone.provenance["dimensions"] == ["temporal_flickering"] and "temporal flickering alone" in alone.warning
    flicker = [vbench.normalised("temporal_flickering", video.temporal_flickering(clip)) for clip in clips()]
    np.testing.assert_allclose(alone.values, 100 * np.array(flicker))
    assert "raft_large" in alone.provenance["left_out"]["dynamic_degree"]
    more = quality.vbench_quality(own, None, [], backbones={"subject_consistency": f"{__name__}.colours"})
    subject = [vbench.normalised("subject_consistency", video.subject_consistency(c, colours())) for c in clips()]
    np.testing.assert_allclose(more.values, 50 * (np.array(flicker) + subject))
    assert more.provenance["dimensions"] == ["subject_consistency", "temporal_flickering"]


def test_quality_refuses_what_it_cannot_use():
    with pytest.raises(AbsentError, match="these are pictures"):
        quality.vbench_quality(Pictures(torch.rand(2, 3, 8, 8)), None, [])
    for given, said in (({"subject": "x.y"}, "no dimension"), ({"imaging_quality": "no.such"}, "cannot be imported")):
        with pytest.raises(SpectrumError, match=said):
            quality.vbench_quality(Pictures(clips()), None, [], backbones=given)


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
