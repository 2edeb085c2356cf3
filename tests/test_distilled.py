"""The embedded models of few steps: what ships, that diffusers loads it alone, that it runs cached, how it is made."""

import json

import pytest
import torch
from command import call
from embedded import check_diffusers_loads_it, check_whole_and_small
from safetensors.torch import load_file
from typed import typed

from spectrum.models.identity import ASSETS, EMBEDDED, digest

STEPS = (8, 4)


@pytest.mark.parametrize("steps", STEPS)
def test_it_is_whole_small_and_differs_from_its_teacher_in_the_denoiser_alone(steps):
    folder = ASSETS / f"tiny_{steps}step"
    check_whole_and_small(folder)
    same = {}
    for path in EMBEDDED.rglob("*.safetensors"):
        own, teachers = load_file(folder / path.relative_to(EMBEDDED)), load_file(path)
        same[path.parent.name] = all(torch.equal(own[name], teachers[name]) for name in teachers)
    assert same == {"vae": True, "text_encoder": True, "text_encoder_2": True, "transformer": False}


def test_diffusers_loads_it_with_nothing_of_ours(tmp_path):
    settings = '"a cat on blue", height=96, width=96, max_sequence_length=16'
    check_diffusers_loads_it(ASSETS / "tiny_8step", "FluxPipeline", settings, tmp_path)


@pytest.mark.parametrize(("steps", "runs"), [(8, 5), (4, 3)])
def test_it_runs_cached(steps, runs, tmp_path, capsys):
    """From a prompt to a record: half of its steps and more run, the rest is forecast."""
    words = [f"model=tiny_{steps}step", "method=planned", f"runs={runs}", "prompts.limit=2", "batch=2"]
    said = call("run", *words, "timing=0", f"out={tmp_path}", capsys=capsys)
    assert said.code == 0, said.err
    record = json.loads(next(tmp_path.rglob("planned-*/record.json")).read_text())
    assert record["nfe"] == runs and min(record["metrics"]["psnr"]["values"]) > 10


def test_steps_that_do_not_divide_the_teachers_are_refused():
    ran = typed("scripts/distil_tiny.py", "5")
    assert ran.code == 2 and "5 steps do not divide the teacher's 24: type 4, 6, 8 or 12" in ran.err


def test_the_recipe_runs_and_goes_on_with_the_same_settings(tmp_path):
    words = ["8", "--work", tmp_path / "w", "--out", tmp_path / "out", "--prompts", 16, "--batch", 4]
    said = []
    for updates in (1, 1, 2):
        ran = typed("scripts/distil_tiny.py", *words, "--updates", updates)
        assert ran.code == 0, ran.err
        digest.cache_clear()
        assert json.loads((tmp_path / "out" / "digest.json").read_text())["sha256"] == digest(tmp_path / "out")
        said.append((f"update {updates}/{updates}" in ran.out, "trajectories" in ran.out))
    assert said == [(True, True), (False, False), (True, False)]  # what was done is not done again, other updates are
    assert "2 updates" in (tmp_path / "out" / "README.md").read_text()
