"""Fitting what methods need on a model."""

import json
import shutil

import calibrate
import numpy as np
import pytest
import torch
from cases import subject_of

from spectrum.api import Accelerated
from spectrum.config.compose import compose
from spectrum.config.methods import build_method
from spectrum.core.errors import SpectrumError
from spectrum.hooks.trajectory import Observation
from spectrum.models.fitted import calibration
from spectrum.models.identity import EMBEDDED, model_identity

PROMPTS = ["prompts=inline", "prompts.text=['a cat on blue','two pears']"]
TOY = ["model=flux", "model.weights=tiny", "model.steps=10", "batch=2", "device=cpu", *PROMPTS]


def fitted(monkeypatch, capsys, *words):
    monkeypatch.setattr("sys.argv", ["calibrate.py", *TOY, *words])
    calibrate.main()
    return json.loads(capsys.readouterr().out.strip().splitlines()[-1])


@pytest.mark.parametrize("method", ["teacache", "first_block_cache", "seacache", "dbcache"])
def test_the_threshold_runs_so_many_steps(method, monkeypatch, capsys):
    front = ["method.front_blocks=1", "schedule.warmup=2"] if method == "dbcache" else []
    found = fitted(monkeypatch, capsys, f"method={method}", "budgets=5", *front)
    config = compose([*TOY, f"method={method}"])
    rule = {**config.schedule, **found["by_runs"]["5"]}
    built = build_method(config.method, rule, {method: found}, "flux")
    subject = subject_of("flux")
    with Accelerated(subject.pipe, built) as handle:
        subject.sample(steps=10)
        (branch,) = handle.report().values()
    assert abs(len(branch["run_steps"]) - 5) <= 1 and found["fitted_on"]["steps"] == 10
    assert built.front == (1 if method in ("dbcache", "first_block_cache") else 0)


def test_a_budget_that_the_first_steps_already_pass_is_left_out(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["calibrate.py", *TOY, "method=easycache", "schedule.warmup=6", "budgets=5"])
    calibrate.main()
    assert "no threshold runs 5 steps" in capsys.readouterr().out


def test_ratios_are_means_of_the_residual_s_size():
    fit = calibrate.Ratios(None)
    for step, rows in enumerate([[(3, 0), (0, 5), (0, 2)], [(3, 4), (6, 8), (0, 1)]]):
        tokens = torch.tensor([rows], dtype=torch.float32)
        fit(Observation("cond", step, {}, torch.zeros_like(tokens), tokens, tokens))
    assert np.allclose(fit.found()[0]["ratios"], [1, 1.38889])


def test_fits_of_the_same_weights_and_prompts_add_their_budgets():
    about = {"model": "m", "prompts": "p"}
    old = {"by_runs": {"14": {"threshold": 0.1}}, "fitted_on": about}
    new = {"by_runs": {"10": {"threshold": 0.2, "warmup": 3}}, "fitted_on": about}
    both = calibrate.joined(old, new)
    assert list(both["by_runs"]) == ["14", "10"] and both["threshold"] == 0.1 and "warmup" not in both
    other = calibrate.joined(old, {**new, "fitted_on": {**about, "model": "n"}})
    assert list(other["by_runs"]) == ["10"] and other["threshold"] == 0.2


def test_a_fit_is_kept_beside_the_weights_and_not_over_another_config_s(tmp_path, capsys):
    shutil.copytree(EMBEDDED, tmp_path / "tiny")
    path = tmp_path / "tiny" / "calibration.json"
    path.unlink()
    for name in ("tiny", "tiny_shifted"):
        config = compose([f"model={name}", f"model.weights={tmp_path / 'tiny'}", "method=teacache"])
        about = {"config": name, "model": model_identity(config.model)}
        calibrate.keep(config, {"coefficients": [1.0], "by_runs": {"5": {"threshold": 0.1}}, "fitted_on": about})
        assert ("teacache" in calibration(config.model)) is (name == "tiny")
    assert json.loads(path.read_text())["teacache"]["fitted_on"]["config"] == "tiny"
    assert "configs/model/tiny_shifted.yaml" in capsys.readouterr().out


def test_a_method_of_time_has_nothing_to_fit(monkeypatch):
    monkeypatch.setattr("sys.argv", ["calibrate.py", *TOY, "method=fora"])
    with pytest.raises(SpectrumError, match="nothing to fit"):
        calibrate.main()
