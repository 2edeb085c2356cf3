"""The recipe of the small CLIP that ships here."""

import subprocess
import sys
from pathlib import Path

import pytest
from toys import emoji_folder

from eval.metrics import text

pytest.importorskip("open_clip")
ROOT = Path(__file__).resolve().parent.parent


def test_the_recipe_runs(tmp_path):
    words = ["--emoji", emoji_folder(tmp_path / "emoji"), "--work", tmp_path / "w", "--out", tmp_path / "out"]
    words += ["--pictures", 200, "--steps", 2, "--batch", 8, "--held", 8]
    ran = subprocess.run([sys.executable, "scripts/train_clip.py", *map(str, words)], cwd=ROOT, capture_output=True,
                         text=True, check=False)  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert text.embedded(tmp_path / "out").text(["a cat on blue"]).shape == (1, 96)
