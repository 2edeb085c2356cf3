"""What 8-bit pictures cost, on pictures whose error is known, and the script as a user types it."""

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


def test_the_script_prints_a_line_for_each_sample(capsys, monkeypatch, tmp_path):
    words = ["model.steps=4", "prompts.limit=2", "batch=2", "method=fora", f"out={tmp_path}"]
    said = script(eight_bits, *words, capsys=capsys, monkeypatch=monkeypatch)
    assert said.code == 0, said.err
    assert said.out.count(".png") == 2 and "over 2 samples" in said.out and not list(tmp_path.iterdir())
    assert "2 samples" not in script(eight_bits, "--help", capsys=capsys, monkeypatch=monkeypatch).out
