"""Pictures and videos as they lie on the disk: kinds of files, positions, sizes and rates."""

import numpy as np
import pytest
import torch
from PIL import Image

from eval.metrics.pictures import Pictures, read_frames
from spectrum.bench.sampling import encoded
from spectrum.core.errors import SpectrumError

COLOURS = ((255, 0, 0), (0, 128, 0), (10, 20, 30))


def striped():
    """A picture of three stripes."""
    return Image.fromarray(np.array([[colour] * 5 for colour in COLOURS], np.uint8))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_every_kind_of_picture_is_read_as_colours(tmp_path, mode):
    picture = striped().quantize(8) if mode == "P" else striped().convert(mode)
    picture.save(tmp_path / "a.png")
    (frame,) = read_frames(tmp_path / "a.png")
    assert frame.dtype == torch.uint8 and frame[:, 0].tolist() == [list(colour) for colour in COLOURS]
    assert list(frame.shape) == [3, 5, 3]


def test_a_grey_picture_is_read_as_three_equal_colours(tmp_path):
    Image.fromarray(np.array([[0, 7, 255]], np.uint8)).save(tmp_path / "a.png")
    (frame,) = read_frames(tmp_path / "a.png")
    assert frame.tolist() == [[[0] * 3, [7] * 3, [255] * 3]]


def test_a_picture_of_a_kind_without_frames_is_one_frame(tmp_path):
    """A JPEG under the name of a PNG: Pillow gives it no number of frames."""
    striped().resize((16, 16)).save(tmp_path / "a.png", format="JPEG")
    assert len(list(read_frames(tmp_path / "a.png"))) == 1
    found = Pictures(tmp_path, ["a.png"])
    assert (len(found), found.frames, found.fps, found.size) == (1, 1, None, (16, 16))


def grey(*levels):
    """A video of plain frames of 8x4 pixels."""
    return (torch.tensor(levels) / 255)[:, None, None, None].expand(-1, 3, 4, 8)


@pytest.mark.parametrize(("at", "level"), [(0, 10), (0.24, 10), (0.25, 20), (0.5, 30), (0.99, 40), (1, 40)])
def test_a_position_picks_one_frame(tmp_path, at, level):
    (tmp_path / "a.png").write_bytes(encoded(grey(10, 20, 30, 40), fps=8))
    (frame,) = read_frames(tmp_path / "a.png", at=at)
    assert set(frame.flatten().tolist()) == {level}


@pytest.mark.parametrize(("frames", "fps"), [(2, 8), (3, 20)])
def test_a_video_has_the_rate_that_it_was_written_with(tmp_path, frames, fps):
    (tmp_path / "a.png").write_bytes(encoded(grey(*range(frames)), fps=fps))
    found = Pictures(tmp_path, ["a.png"])
    assert (len(found), found.frames, found.fps) == (frames, frames, fps)


def test_the_size_is_that_of_the_first_picture_whatever_the_next_one_is(tmp_path):
    for name, size in (("0.png", (20, 16)), ("1.png", (24, 18))):
        Image.new("RGB", size).save(tmp_path / name)
    found = Pictures.folder(tmp_path)
    assert found.size == (20, 16)
    for count in (1, 2):
        with pytest.raises(SpectrumError, match=r"1\.png has 24x18 pixels and 0\.png has 20x16: all pictures of a set"):
            list(found.batches(count))


def test_a_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(SpectrumError, match=rf"^there are no pictures in {tmp_path}: sample some first"):
        Pictures.folder(tmp_path)


def test_a_file_that_cannot_be_read_counts_as_one_picture(tmp_path):
    (tmp_path / "a.png").write_bytes(b"torn")
    found = Pictures(tmp_path, ["a.png"])
    assert (len(found), found.frames, found.fps) == (1, 1, None)
