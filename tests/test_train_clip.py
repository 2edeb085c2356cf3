"""The recipe of the small CLIP that ships here."""

import pytest
from toys import emoji_folder
from typed import typed

from eval.metrics import text

pytest.importorskip("open_clip")


def test_the_recipe_runs(tmp_path):
    words = ["--emoji", emoji_folder(tmp_path / "emoji"), "--work", tmp_path / "w", "--out", tmp_path / "out"]
    words += ["--pictures", 200, "--steps", 2, "--batch", 8, "--held", 8]
    ran = typed("scripts/train_clip.py", *words)
    assert ran.code == 0, ran.err
    assert text.embedded(tmp_path / "out").text(["a cat on blue"]).shape == (1, 96)
