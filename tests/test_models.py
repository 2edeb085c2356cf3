"""Every model of `configs/model` that has a toy width: its real pipeline, built and hooked."""

import pytest
import torch
from toys import BlockCounter

from spectrum.config import compose, load_method
from spectrum.denoisers import denoiser_of
from spectrum.files import names, read
from spectrum.generate import Sampling, draw, with_solver
from spectrum.history import History
from spectrum.library import Accelerated, denoisers
from spectrum.method import plan_method
from spectrum.pipeline import load_pipeline
from spectrum.prepare import cache_bytes
from spectrum.prompts import Sample

MODELS = [name for name in names("model") if "tiny" in read("model", name)]
STEPS = 12
PROMPTS = [Sample(i, text, 0) for i, text in enumerate(("a cat on blue", "two pears"))]


class Subject:
    """A toy of a model and how to call it."""

    def __init__(self, name):
        self.config = compose([f"model={name}", "model.weights=tiny", f"model.steps={STEPS}", f"batch={len(PROMPTS)}"])
        self.pipe = load_pipeline(self.config.model, torch.device("cpu"))

    def sample(self, prompts=PROMPTS):
        return draw(self.pipe, prompts, Sampling.of(self.config))


@pytest.fixture(scope="module", params=MODELS)
def subject(request):
    return Subject(request.param)


def cached(subject, name, *more, **kwargs):
    with Accelerated(subject.pipe, load_method(name, more)) as handle:
        return subject.sample(**kwargs), handle.report()


def test_always_running_is_bit_exact(subject):
    assert torch.equal(cached(subject, "spectrum", "schedule=always")[0], subject.sample())


def test_skipped_steps_call_no_block_and_the_true_feature_is_bit_exact(subject, monkeypatch):
    calls, features, counters = [], [], []
    handles = []
    for model in denoisers(subject.pipe):
        layout = denoiser_of(model)
        handles.append(model.register_forward_pre_hook(lambda *a: calls.append(None)))
        exit_module = model.get_submodule(layout.exit)
        keep = lambda module, args, kwargs: features.append((*args, *kwargs.values())[0].clone())  # noqa: E731
        handles.append(exit_module.register_forward_pre_hook(keep, with_kwargs=True))
    plain = subject.sample()
    assert len(features) == len(calls)
    for handle in handles[1::2]:
        handle.remove()
    calls.clear()
    counters = [BlockCounter(model, denoiser_of(model).stacks) for model in denoisers(subject.pipe)]
    monkeypatch.setattr(History, "combine", lambda self, weights: features[len(calls) - 1])
    image, report = cached(subject, "spectrum")
    skipped = sum(len(branch["skipped"]) for branch in report.values())
    assert torch.equal(image, plain) and skipped >= 3
    assert sum(counter.close().count(0) for counter in counters) == skipped
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("space", ["feature", "residual"])
def test_a_skipped_step_changes_the_samples(subject, space):
    plain = subject.sample()
    image, report = cached(subject, "taylorseer", f"method.space={space}")
    assert all(branch["skipped"] for branch in report.values())
    assert image.shape == plain.shape and torch.isfinite(image).all() and not torch.equal(image, plain)
    assert torch.equal(subject.sample(), plain)


def test_batch_items_do_not_meet(subject):
    whole = cached(subject, "spectrum")[0]
    for number, prompt in enumerate(PROMPTS):
        alone = cached(subject, "spectrum", prompts=[prompt])[0]
        torch.testing.assert_close(alone, whole[number : number + 1], rtol=2e-3, atol=2e-3)


def test_the_predicted_bytes_are_what_is_held(subject):
    _, report = cached(subject, "spectrum")
    held = sum(branch["cache_bytes"] for branch in report.values())
    assert held == cache_bytes(subject.config, plan_method(load_method("spectrum"), STEPS), len(PROMPTS))


def test_a_schedule_that_watches_the_signal_skips(subject):
    if any(denoiser_of(model).signal is None for model in denoisers(subject.pipe)):
        pytest.skip("no method watches this family")
    image, report = cached(subject, "teacache", "method.coefficients=[1.0,0.0]", "schedule.threshold=1.0")
    assert torch.isfinite(image).all() and all(1 < len(branch["run_steps"]) < STEPS for branch in report.values())


def test_another_solver_keeps_what_the_scheduler_is_configured_with(subject):
    own = subject.pipe.scheduler.config
    other = with_solver(subject.pipe, "UniPCMultistepScheduler").scheduler.config
    shared = [key for key in own if key in other and not key.startswith("_")]
    assert "num_train_timesteps" in shared and all(own[key] == other[key] for key in shared)
    if other["prediction_type"] == "flow_prediction":
        assert other["flow_shift"] == own.get("shift", own.get("flow_shift")) and other["use_flow_sigmas"]
