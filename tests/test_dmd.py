"""HiCache++'s forecast on series whose continuation is known, and that each sample has its own weights."""

import dataclasses
import functools

import numpy as np
import pytest
import torch
from cases import PROMPTS, subject_of
from command import call, error_line

from baselines.dmd import dmd
from spectrum.api import Accelerated
from spectrum.bench.fitting import forecast_of
from spectrum.core.errors import SpectrumError
from spectrum.core.forecast import hermite
from spectrum.core.method import Method, Site, plan_method
from spectrum.core.schedule import fixed_interval
from spectrum.hooks.trajectory import Branch

SPAN = (0.0, 50.0)
RANDOM = np.random.default_rng(0)
WAVE = RANDOM.normal(size=200) + 1j * RANDOM.normal(size=200)
DECAY, BASE, SLOPE = RANDOM.normal(size=(3, 200))


def modes(t):
    """A decay and a damped wave: three modes."""
    return DECAY * 0.9**t + (WAVE * (0.7 + 0.2j) ** t).real


def line(t):
    return BASE + SLOPE * t


def forecast(series, ahead, count=5, spacing=4, **more):
    """The forecast of a series `ahead` spacings past its newest point, and what is there."""
    points = np.stack([series(t) for t in range(count)], axis=1)
    times = [float(spacing * t) for t in range(count)]
    target = times[-1] + spacing * ahead
    return points @ dmd(times, target, SPAN, gram=points.T @ points, **more), series(count - 1 + ahead)


@pytest.mark.parametrize("ahead", [0.25, 1, 2, 3])
def test_sums_of_exponentials_are_continued_exactly(ahead):
    found, there = forecast(modes, ahead)
    np.testing.assert_allclose(found, there, atol=1e-11)


@pytest.mark.parametrize("ahead", [0.5, 1, 2])
def test_a_straight_line_goes_on_in_its_direction(ahead):
    found, there = forecast(line, ahead)
    np.testing.assert_allclose(found, there, atol=1e-6)


def test_only_the_newest_evenly_spaced_features_are_used():
    times = [0.0, 1.0, 2.0, 6.0, 10.0, 14.0, 18.0]
    points = np.stack([modes(t / 4) for t in times], axis=1)
    weights = dmd(times, 20.0, SPAN, gram=points.T @ points)
    assert not weights[:3].any(), "of the window's five the oldest has no feature before it"
    np.testing.assert_allclose(points @ weights, modes(5.0), atol=1e-11)
    few = dmd(times, 20.0, SPAN, gram=points.T @ points, window=4)
    assert not few[:4].any() and not np.allclose(few, weights)


def test_before_four_even_features_it_is_hicache():
    times = [0.0, 1.0, 2.0, 6.0, 10.0]
    gram = np.diag(np.arange(1.0, 6.0))
    expected = hermite(times, 12.0, SPAN, order=2, sigma=0.5)
    np.testing.assert_array_equal(dmd(times, 12.0, SPAN, gram=gram), expected)
    np.testing.assert_array_equal(dmd([0.0], 1.0, SPAN, gram=gram[:1, :1]), [1.0])


def test_features_of_nothing_but_zeros_are_used_again():
    assert dmd([0, 1, 2, 3], 5, SPAN, gram=np.zeros((4, 4))).tolist() == [0, 0, 0, 1]


def test_a_window_below_four_is_refused():
    with pytest.raises(SpectrumError, match=r"method\.forecast\.window"):
        dmd([0, 1], 2, SPAN, window=3)


def test_its_weights_are_not_known_before_the_run():
    method = Method("mine", dmd, functools.partial(fixed_interval, interval=4))
    found = plan_method(method, 12)
    assert method.weights_by_data and method.by_sample and method.max_features is None
    assert found.runs == [0, 1, 2, 6, 10] and found.skipped == []


def test_a_plan_refuses_what_the_run_would():
    method = Method("mine", functools.partial(dmd, window=3), functools.partial(fixed_interval, interval=4))
    with pytest.raises(SpectrumError, match=r"method\.forecast\.window"):
        plan_method(method, 12)


def test_without_inner_products_it_is_refused_and_no_plan_takes_its_weights():
    with pytest.raises(SpectrumError, match="give it their inner products"):
        dmd([0, 1, 2, 3], 4, SPAN)
    with pytest.raises(SpectrumError, match="forecast=dmd: its weights follow from each sample's features"):
        forecast_of("dmd")


def test_features_that_are_not_finite_are_used_again_so_that_the_check_of_outputs_names_the_step():
    gram = np.full((4, 4), np.nan)
    assert dmd([0, 1, 2, 3], 5, SPAN, gram=gram).tolist() == [0, 0, 0, 1]


def test_the_products_are_those_of_all_elements_and_grow_with_the_features():
    features = [torch.randn(2, 3, generator=torch.Generator().manual_seed(n)).bfloat16() for n in range(4)]
    expected = [[float((a.double() * b.double()).sum()) for b in features] for a in features]
    branch = Branch("", 0, None)
    for n, feature in enumerate(features):
        branch.store(float(n), {"output": feature, "again": feature})
        if n % 2:
            np.testing.assert_allclose(branch.inner_products(), 2 * np.array(expected)[: n + 1, : n + 1], rtol=1e-12)


def test_each_sample_of_a_batch_has_its_own_weights():
    """Two samples at once give what each gives alone; weights for the batch as a whole give something else."""
    toy = subject_of("flux")
    method = Method("mine", dmd, functools.partial(fixed_interval, interval=2, warmup=1), site=Site.output)

    def sampled(method, prompts):
        with Accelerated(toy.pipe, method):
            return toy.sample(prompts=prompts)

    together = sampled(method, PROMPTS[:2])
    alone = torch.cat([sampled(method, PROMPTS[n : n + 1]) for n in range(2)])
    whole = sampled(dataclasses.replace(method, batch_decision=True), PROMPTS[:2])
    off = (together - alone).abs().max()
    assert off < 1e-3 and (whole - alone).abs().max() > 10 * off, "the batch's own weights are others"


def test_a_replay_does_not_take_it(monkeypatch, tmp_path, capsys):
    """A trace has all samples of a batch in one tensor."""
    said = call("trace", "model.steps=5", "prompts.limit=1", f"out={tmp_path}", capsys=capsys)
    trace = next(tmp_path.rglob("*.safetensors"), None) or next(tmp_path.rglob("*.pt"))
    assert said.code == 0
    said = call("replay", f"trace={trace}", "method=dmd", "method.site=exit", capsys=capsys)
    assert "which a replay does not tell apart" in error_line(said)
