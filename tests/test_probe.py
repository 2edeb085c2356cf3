"""How far forecasts are off: the relative errors, and the probe that measures them along a run."""

import functools

import pytest
import torch

from spectrum import Accelerated, Method, accelerate
from spectrum.core import forecast
from spectrum.core.schedule import explicit
from spectrum.hooks.forecast_errors import relative_error, relative_errors


def test_a_relative_error_is_that_of_all_elements_of_all_slots():
    guess = {"a": torch.tensor([3.0, 0.0]), "b": torch.tensor([[2.0]])}
    truth = {"a": torch.tensor([0.0, 4.0]), "b": torch.tensor([[5.0]])}
    assert relative_errors(guess, truth) == pytest.approx((34 / 41) ** 0.5)
    assert relative_error(guess["a"].half(), truth["a"]) == pytest.approx(5 / 4)


def test_the_probe_says_how_far_feature_and_velocity_were_off(flux):
    exits, outputs = [], []

    def watch():
        return [
            flux.model.norm_out.register_forward_pre_hook(lambda module, args: exits.append(args[0].clone())),
            flux.model.register_forward_hook(lambda module, args, output: outputs.append(output[0].clone())),
        ]

    handles = watch()
    flux.sample(steps=4)
    true_feature, true_velocity, kept = exits[2], outputs[2], exits[1]
    exits.clear()
    outputs.clear()
    stale = Method("stale", forecast.reuse, functools.partial(explicit, run_steps=[0, 1, 3]))
    with accelerate(flux.pipe, stale) as handle:
        flux.sample(steps=4)
        reused = outputs[2]
        assert all(branch["errors"] == [] for branch in handle.report().values())
    for handle in handles:
        handle.remove()
    plain = flux.sample(steps=4)
    with accelerate(flux.pipe, stale) as handle:
        cached = flux.sample(steps=4)
    with Accelerated(flux.pipe, stale, probe=True) as handle:
        assert torch.equal(flux.sample(steps=4), cached) and not torch.equal(cached, plain)
        (branch,) = handle.report().values()
    (error,) = branch["errors"]
    assert error["step"] == 2
    assert error["feature"] == pytest.approx((kept - true_feature).norm().item() / true_feature.norm().item(), rel=1e-4)
    off = (reused - true_velocity).norm().item() / true_velocity.norm().item()
    assert error["velocity"] == pytest.approx(off, rel=1e-4)
