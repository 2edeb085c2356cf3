"""What pipelines return as samples: under which name, in layers, with transparency."""

from types import SimpleNamespace

import pytest
import torch
from cases import PROMPTS, subject_of

from spectrum.core.errors import SpectrumError
from spectrum.models.returned import over_grey, samples_in


def test_pictures_of_one_channel_are_refused():
    with pytest.raises(SpectrumError, match="pictures of 1 channels, and only those of 3 and 4"):
        over_grey(torch.zeros(2, 1, 4, 4))


def test_samples_are_found_under_any_name():
    for name in ("frames", "images", "image"):
        assert samples_in(SimpleNamespace(**{name: torch.ones(2, 3, 4, 4)}), 2).shape == (2, 3, 4, 4)


def test_layers_that_are_cut_too_late_go_to_their_own_samples():
    """diffusers 0.42.1 cuts after layers + 1, the whole picture that it has taken away before."""
    layers = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 4, 2, 2)
    found = samples_in(SimpleNamespace(images=[layers[:4], layers[4:]]), 2)
    assert found[:, :, 0, 0, 0].tolist() == [[0, 1, 2], [3, 4, 5]] and found.shape == (2, 3, 4, 2, 2)


def test_what_is_transparent_has_no_colour():
    pixels = torch.rand(2, 4, 3, 5)
    pixels[:, 3, 0], pixels[:, 3, 1] = 0, 1
    found = over_grey(pixels)
    assert torch.equal(found[:, :, 0], torch.full((2, 3, 5), 0.5)) and torch.equal(found[:, :, 1], pixels[:, :3, 1])
    torch.testing.assert_close(found[:, :, 2], 0.5 + pixels[:, 3:, 2] * (pixels[:, :3, 2] - 0.5))
    assert over_grey(found) is found


def test_a_picture_in_layers_has_a_frame_for_each():
    subject = subject_of("qwen_layered")
    three = subject.sample(PROMPTS[:1], frames=3)
    assert subject.plain.shape[:3] == (2, 2, 3) and three.shape[:3] == (1, 3, 3)
    assert not torch.equal(subject.plain[0, 0], subject.plain[0, 1])
