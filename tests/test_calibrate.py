"""Fitting what methods need on a model."""

import json
import shutil

import numpy as np
import pytest
import torch
from cases import subject_of
from command import call, error_line

from spectrum.api import Accelerated
from spectrum.bench import calibration, fits
from spectrum.commands import calibrate
from spectrum.config.compose import compose
from spectrum.config.methods import build_method
from spectrum.hooks.trajectory import Observation
from spectrum.models.fitted import fits_of
from spectrum.models.identity import EMBEDDED, model_identity

PROMPTS = ["prompts=inline", "prompts.text=['a cat on blue','two pears']"]
TOY = ["model=flux", "model.weights=tiny", "model.steps=10", "batch=2", "device=cpu", *PROMPTS]


def fitted(capsys, *words):
    said = call("calibrate", *TOY, *words, capsys=capsys)
    assert said.code == 0, said.err
    return json.loads(said.out.strip().splitlines()[-1])


@pytest.mark.parametrize("method", ["teacache", "first_block_cache", "seacache", "dbcache"])
def test_the_threshold_runs_so_many_steps(method, capsys):
    front = ["method.front_blocks=1", "schedule.warmup=2"] if method == "dbcache" else []
    found = fitted(capsys, f"method={method}", "budgets=5", *front)
    config = compose([*TOY, f"method={method}"])
    rule = {**config.schedule, **found["by_runs"]["5"]}
    built = build_method(config.method, rule, {method: found}, "flux")
    subject = subject_of("flux")
    with Accelerated(subject.pipe, built) as handle:
        subject.sample(steps=10)
        (branch,) = handle.report().values()
    assert abs(len(branch["run_steps"]) - 5) <= 1 and found["fitted_on"]["steps"] == 10
    assert built.front_blocks == (1 if method in ("dbcache", "first_block_cache") else 0)


def test_a_budget_that_the_first_steps_already_pass_is_left_out(capsys):
    words = ["method=easycache", "schedule.warmup=6", "budgets=5"]
    assert "no threshold runs 5 steps" in call("calibrate", *TOY, *words, capsys=capsys).out


@pytest.mark.parametrize("budget", [8, 14, 30, 40])
def test_a_threshold_is_found_in_few_tries(budget):
    tried, said = {}, []
    found = calibration.threshold_for(lambda threshold: 50 / (1 + 15 * threshold), budget, said.append, tried)
    assert abs(50 / (1 + 15 * found) - budget) <= calibration.CLOSE and len(tried) == len(said) <= 7
    calls = []
    assert calibration.threshold_for(calls.append, budget, said.append, tried) == found and not calls


@pytest.mark.parametrize(("budget", "found"), [(9, 1.0), (20, None), (2, None)])
def test_a_threshold_where_runs_jump(budget, found):
    tried = {}
    runs_at = lambda threshold: 12.0 if threshold < 0.2 else 9.2 if threshold < 2 else 4.0  # noqa: E731
    assert calibration.threshold_for(runs_at, budget, print, tried) == found
    assert found or len(tried) == calibration.TRIES


def test_ratios_are_means_of_the_residual_s_size():
    fit = fits.Ratios(None)
    for step, rows in enumerate([[(3, 0), (0, 5), (0, 2)], [(3, 4), (6, 8), (0, 1)]]):
        tokens = torch.tensor([rows], dtype=torch.float32)
        fit(Observation("cond", step, {}, torch.zeros_like(tokens), tokens, tokens))
    assert np.allclose(fit.found()[0]["ratios"], [1, 1.38889])


def test_fits_of_the_same_weights_and_prompts_add_their_budgets():
    about = {"model": "m", "prompts": "p"}
    old = {"by_runs": {"14": {"threshold": 0.1}}, "fitted_on": about}
    new = {"by_runs": {"10": {"threshold": 0.2, "warmup": 3}}, "fitted_on": about}
    both = calibration.joined(old, new)
    assert list(both["by_runs"]) == ["14", "10"] and both["threshold"] == 0.1 and "warmup" not in both
    other = calibration.joined(old, {**new, "fitted_on": {**about, "model": "n"}})
    assert list(other["by_runs"]) == ["10"] and other["threshold"] == 0.2


def test_a_fit_counts_for_the_config_and_the_steps_that_it_was_made_on(tmp_path, capsys):
    shutil.copytree(EMBEDDED, tmp_path / "tiny")
    (tmp_path / "tiny" / "calibration.json").unlink()
    words = [f"model.weights={tmp_path / 'tiny'}", "method=teacache"]
    config = compose([*words, "model.steps=9"])
    about = {"config": "tiny", "model": model_identity(config.model), "steps": 9}
    calibrate.write_fit(config, {"coefficients": [1.0], "by_runs": {"5": {"threshold": 0.1}}, "fitted_on": about})
    assert fits_of(config.model)["teacache"]["threshold"] == 0.1
    assert fits_of(compose([*words, "model.steps=8"]).model) == {}
    assert fits_of(compose([*words, "model=tiny_shifted", "model.steps=9"]).model) == {}


def test_a_method_of_time_has_nothing_to_fit(capsys):
    assert "nothing to fit" in error_line(call("calibrate", *TOY, "method=fora", capsys=capsys))
