"""What 8-bit pictures cost, on pictures whose error is known, and the script as a user types it."""

import math

import eight_bits
import pytest
import torch
from command import script


def test_pictures_are_rounded_to_whole_levels():
    levels = torch.tensor([10.4, 10.6, 255.3, -0.2])
    images = levels[:, None, None, None].expand(-1, 3, 8, 8) / 255
    stored = eight_bits.stored(images)
    assert (255 * stored[:, 0, 0, 0]).tolist() == pytest.approx([10, 11, 255, 0])
    assert stored.shape == images.shape


def test_the_change_by_hand():
    """Levels 10.4 and 12.6 differ by 2.2, and as 8-bit ones, 10 and 13, by 3: 20 log10(2.2 / 3) = -2.694 dB."""
    own, other = (torch.full((1, 3, 8, 8), level / 255) for level in (10.4, 12.6))
    ((exact, rounded),) = eight_bits.compared(own, other)
    assert rounded - exact == pytest.approx(-2.694, abs=1e-3)
    assert rounded == pytest.approx(38.588, abs=1e-3)


def test_equal_pictures_are_left_out_and_counted():
    pairs = [(30.0, 30.5), (40.0, 38.5), (math.inf, math.inf), (90.0, math.inf)]
    said = eight_bits.summary(pairs)
    assert said == "mean change -0.5000 dB, largest -1.5000 dB, over 2 samples; 2 left out, whose pictures are equal"
    assert eight_bits.summary(pairs[:2]).endswith("over 2 samples")
    assert eight_bits.summary(pairs[2:]) == "all 2 samples are left out: their pictures are equal"


def test_the_uncached_run_itself_has_no_change(capsys, monkeypatch, tmp_path):
    words = ["model.steps=2", "prompts.limit=1", "method=none", f"out={tmp_path}"]
    said = script(eight_bits, *words, capsys=capsys, monkeypatch=monkeypatch)
    assert said.code == 0 and "nan" not in said.out and "all 1 samples are left out" in said.out


def test_the_script_prints_a_line_for_each_sample(capsys, monkeypatch, tmp_path):
    words = ["model.steps=4", "prompts.limit=2", "batch=2", "method=fora", f"out={tmp_path}"]
    said = script(eight_bits, *words, capsys=capsys, monkeypatch=monkeypatch)
    assert said.code == 0, said.err
    assert said.out.count(".png") == 2 and "over 2 samples" in said.out and not list(tmp_path.iterdir())
    assert "2 samples" not in script(eight_bits, "--help", capsys=capsys, monkeypatch=monkeypatch).out
