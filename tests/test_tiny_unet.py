"""The embedded UNet: what ships, that diffusers loads it alone, and that it runs cached."""

import json

import pytest
import torch
from command import call
from embedded import check_diffusers_loads_it, check_whole_and_small
from safetensors.torch import load_file, save_file
from toys import emoji_folder
from typed import typed

from spectrum.config.compose import compose
from spectrum.models.identity import ASSETS, digest, model_kind

FOLDER = ASSETS / "tiny_unet"
MARKED = {
    "unet/diffusion_pytorch_model.safetensors": "conv_norm_out.bias",
    "text_encoder/model.safetensors": "final_layer_norm.bias",
}


def mark(path):
    """Give a tensor of a file of weights values that no training comes to by itself."""
    weights = load_file(path)
    (name,) = (name for name in weights if name.endswith(MARKED[f"{path.parent.name}/{path.name}"]))
    save_file({**weights, name: torch.full_like(weights[name], 3)}, path, {"format": "pt"})


def test_diffusers_loads_it_with_nothing_of_ours(tmp_path):
    check_diffusers_loads_it(FOLDER, "StableDiffusionPipeline", '"a cat"', tmp_path)


def test_it_is_whole_and_small():
    check_whole_and_small(FOLDER)


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
    for part in MARKED:
        mark(tmp_path / "out" / part)
    more = typed("scripts/train_more.py", *words, "--start", tmp_path / "out", "--out", tmp_path / "more", "--steps", 1)
    assert more.code == 0, more.err
    for part, name in MARKED.items():
        (own,) = (value for key, value in load_file(tmp_path / "more" / part).items() if key.endswith(name))
        assert own.mean() > 2, "the training did not begin with these weights"
    again = typed(
        "scripts/train_more.py", *words, "--start", tmp_path / "out", "--out", tmp_path / "again", "--steps", 1
    )
    assert again.code == 2 and "to go on with it, leave --start out" in again.err
    assert not (tmp_path / "again").exists()


def test_scenes_come_in_fifties(tmp_path):
    words = ["tiny_unet", "--emoji", emoji_folder(tmp_path / "emoji"), "--work", tmp_path / "w", "--scenes", 70]
    ran = typed("scripts/train_more.py", *words, "--out", tmp_path / "out", "--prompts", tmp_path / "prompts")
    assert ran.code == 2 and "--scenes 70: type a multiple of 50" in ran.err
