"""The embedded class-conditional model: what ships, that diffusers loads it alone, and what its prompts are."""

import json

import pytest
from command import call, error_line
from embedded import check_diffusers_loads_it, check_whole_and_small
from tiny import classes
from toys import emoji_folder
from typed import typed

from spectrum.config.compose import compose
from spectrum.config.prompt_lists import shipped_prompts
from spectrum.models.identity import ASSETS, digest, model_kind
from spectrum.models.inputs import prompt_inputs
from spectrum.models.pipelines import load_pipeline
from spectrum.models.solvers import with_solver

FOLDER = ASSETS / "tiny_dit"


def test_diffusers_loads_it_with_nothing_of_ours(tmp_path):
    check_diffusers_loads_it(FOLDER, "DiTPipeline", 'pipe.get_label_ids(["cat"])', tmp_path)


def test_it_is_whole_and_small():
    check_whole_and_small(FOLDER)


def test_a_prompt_is_the_class_of_its_name():
    config = compose(["model=tiny_dit", "prompts=classes"])
    pipe = load_pipeline(config.model, "cpu")
    asked = ["cat", "apple"]
    found = prompt_inputs(pipe, config.model.architecture["embeds"], asked)
    assert [classes.NAMES[number] for number in found["class_labels"]] == asked
    assert model_kind(config.model) == "embedded, trained"


def test_another_solver_keeps_the_names_of_the_classes():
    """Without them a prompt would draw any class, and the control would be compared with pictures of others."""
    pipe = load_pipeline(compose(["model=tiny_dit"]).model, "cpu")
    assert with_solver(pipe, "UniPCMultistepScheduler").labels == pipe.labels != {}


def test_half_of_the_classes_are_for_tables_and_nothing_is_fitted_on_them(capsys):
    tables, fits = shipped_prompts("classes"), shipped_prompts("classes_calibration")
    assert len(tables) == len(fits) == 32 and {*tables, *fits} == {*classes.NAMES}
    said = call("fit", "model=tiny_dit", "runs=10", "prompts=classes", capsys=capsys)
    assert "nothing is fitted on the classes prompts" in error_line(said)
    assert "type prompts=classes_calibration" in error_line(said)
    other = call("fit", "model=tiny_dit", "runs=10", "prompts=heldout", capsys=capsys)
    assert "nothing is fitted on the heldout prompts" in error_line(other)
    assert error_line(other).endswith("type prompts=classes_calibration")
    number = call("fit", "model=tiny_dit", "runs=10", "prompts=inline", "prompts.text=['0']", capsys=capsys)
    assert "names its classes, not their numbers" in error_line(number)


def test_it_has_no_architecture_to_draw_weights_for(capsys):
    said = call("run", "model=tiny_dit", "model.weights=random", "prompts=classes", capsys=capsys)
    assert "describes no architecture: type model.weights=pretrained" in error_line(said)


def test_what_is_no_class_is_refused(tmp_path, capsys):
    said = call("run", "model=tiny_dit", "prompts=heldout", "prompts.limit=1", f"out={tmp_path}", capsys=capsys)
    message = error_line(said)
    assert "is no class of this model" in message and "prompts=classes" in message
    assert not [*tmp_path.rglob("record.json")]


@pytest.mark.parametrize("method", ["spectrum", "fora"])
def test_it_runs_cached(method, tmp_path, capsys):
    """From a prompt to a record: a few steps, in which some are skipped."""
    words = ["model=tiny_dit", f"method={method}", "prompts=classes", "prompts.limit=2", "batch=2", "model.steps=20"]
    said = call("run", *words, "timing=0", f"out={tmp_path}", capsys=capsys)
    assert said.code == 0, said.err
    record = json.loads(next(tmp_path.rglob(f"{method}-*/record.json")).read_text())
    assert record["nfe"] < 20 and min(record["metrics"]["psnr"]["values"]) > 10


def test_the_recipe_runs(tmp_path):
    words = ["--emoji", emoji_folder(tmp_path / "emoji"), "--work", tmp_path / "w", "--out", tmp_path / "out"]
    words += ["--prompts", tmp_path / "prompts", "--scenes", 100, "--steps", 2, "--batch", 4, "--no-compile"]
    ran = typed("scripts/train_more.py", "tiny_dit", *words)
    assert ran.code == 0, ran.err
    written = (tmp_path / "prompts" / "classes.txt").read_text().split("\n")[:-1]
    assert tuple(written) == shipped_prompts("classes")
    assert json.loads((tmp_path / "out" / "digest.json").read_text())["sha256"] == digest(tmp_path / "out")
