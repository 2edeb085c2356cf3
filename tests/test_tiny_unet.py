"""The embedded UNet: what ships, that diffusers loads it alone, and that it runs cached."""

import json
import subprocess
import sys

import pytest
from command import call
from toys import emoji_folder
from typed import typed

from spectrum.config.compose import compose
from spectrum.models.identity import ASSETS, digest, model_kind

FOLDER = ASSETS / "tiny_unet"
SNIPPET = """
import sys, torch
from diffusers import DiffusionPipeline
pipe = DiffusionPipeline.from_pretrained(sys.argv[1])
image = pipe("a cat", num_inference_steps=3, generator=torch.Generator().manual_seed(0)).images[0]
assert image.size == (96, 96)
assert not [name for name in sys.modules if name.partition(".")[0] in ("spectrum", "baselines", "eval")]
"""


def test_diffusers_loads_it_with_nothing_of_ours(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-c", SNIPPET, str(FOLDER)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr


def test_it_is_whole_and_small():
    files = [p for p in FOLDER.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) <= 16e6
    assert not [p for p in files if p.suffix in (".bin", ".pt", ".pkl")]
    assert json.loads((FOLDER / "digest.json").read_text())["sha256"] == digest(FOLDER)
    assert digest(FOLDER) in (FOLDER / "README.md").read_text()


@pytest.mark.parametrize("method", ["spectrum", "fora"])
def test_it_runs_cached(method, tmp_path, capsys):
    """From a prompt to a record: a few steps, in which some are skipped."""
    words = ["model=tiny_unet", f"method={method}", "prompts.limit=2", "batch=2", "model.steps=20"]
    said = call("run", *words, "timing=0", f"out={tmp_path}", capsys=capsys)
    assert said.code == 0, said.err
    record = json.loads(next(tmp_path.rglob(f"{method}-*/record.json")).read_text())
    assert record["nfe"] < 20 and min(record["metrics"]["psnr"]["values"]) > 10
    assert model_kind(compose(["model=tiny_unet"]).model) == "embedded, trained"


def test_the_recipe_runs_and_goes_on_from_trained_weights(tmp_path):
    words = ["tiny_unet", "--emoji", emoji_folder(tmp_path / "emoji"), "--work", tmp_path / "w", "--batch", 4]
    words += ["--prompts", tmp_path / "prompts", "--scenes", 50, "--no-compile"]
    ran = typed("scripts/train_more.py", *words, "--out", tmp_path / "out", "--steps", 2)
    assert ran.code == 0, ran.err
    assert json.loads((tmp_path / "out" / "digest.json").read_text())["sha256"] == digest(tmp_path / "out")
    (tmp_path / "w" / "tiny_unet.pt").unlink()
    more = typed("scripts/train_more.py", *words, "--start", tmp_path / "out", "--out", tmp_path / "more", "--steps", 1)
    assert more.code == 0, more.err
    assert digest(tmp_path / "more") != digest(tmp_path / "out")
