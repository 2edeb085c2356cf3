"""What the hook refuses, at the start or at the step, and that nothing of it is left behind."""

import pytest
import torch
from cases import subject_of
from test_hook import SKIPPING, STACKS, method_of
from toys import BlockCounter, Toy

from spectrum import SpectrumError, accelerate, restore


@pytest.mark.parametrize("name", SKIPPING)
@pytest.mark.parametrize("at", [0, 4, 11])
def test_nan_from_the_denoiser_is_an_error_at_its_step(flux, name, at):
    calls = []

    def spoil(module, args, output):
        calls.append(flux.pipe.scheduler.step_index or 0)
        return output * float("nan") if calls[-1] == at else output

    with accelerate(flux.pipe, method_of(name)) as accelerated:
        handle = flux.model.proj_out.register_forward_hook(spoil)
        with pytest.raises(SpectrumError, match=f"gave NaN or infinite values at step {at}: type another"):
            flux.sample()
        handle.remove()
        assert sorted(set(calls)) == list(range(at + 1))
        assert torch.isfinite(flux.sample()).all() and accelerated.report()


def test_two_methods_on_one_pipeline_are_refused(flux):
    with accelerate(flux.pipe, "spectrum"), pytest.raises(SpectrumError, match="restore"):
        accelerate(flux.pipe, "fora")
    accelerate(flux.pipe, "fora")
    restore(flux.pipe)
    restore(flux.pipe)


@pytest.mark.parametrize(("steps", "says"), [([0, 1, 40], "steps of this run are 0 to 11"), ([0, 4, 2], "must ascend")])
def test_a_list_of_steps_that_does_not_fit_the_run_is_refused_before_anything_runs(flux, steps, says):
    counter = BlockCounter(flux.model, STACKS)
    with accelerate(flux.pipe, "taylorseer", schedule=steps), pytest.raises(SpectrumError, match=says):
        flux.sample()
    assert sum(counter.close()) == 0
    assert torch.isfinite(flux.sample()).all()


@pytest.mark.parametrize("clock", ["step", "sigma"])
def test_a_scheduler_that_the_clock_cannot_read_is_refused(flux, clock):
    class Blind:
        """A scheduler that says neither at which step it is nor, in its timesteps, what the denoiser is told."""

        def __init__(self, inner):
            self._inner = inner

        def __getattr__(self, name):
            if name in ("step_index", "begin_index"):
                raise AttributeError(name)
            return self._inner.timesteps + 7 if name == "timesteps" else getattr(self._inner, name)

    with accelerate(flux.pipe, "spectrum", f"method.clock={clock}") as handle:
        handle.hooks[0]._scheduler = lambda: Blind(flux.pipe.scheduler)
        with pytest.raises(SpectrumError, match="does not tell which step it is at: use a scheduler with"):
            flux.sample()


def test_the_library_prints_nothing_and_says_on_request(flux, capfd):
    with accelerate(flux.pipe, "spectrum") as handle:
        flux.sample()
        plan, report = handle.plan(12), handle.report()
    restore(flux.pipe)
    out = capfd.readouterr()
    assert out.out == out.err == ""
    (branch,) = report.values()
    assert branch["run_steps"] == plan.runs and branch["cache_bytes"] > 0
    assert [entry["step"] for entry in branch["skipped"]] == [step.step for step in plan.skipped]
    assert all(entry["sum"] and entry["l1"] >= abs(entry["sum"]) - 1e-9 for entry in branch["skipped"])


def test_a_denoiser_without_blocks_is_refused_at_its_first_call(flux):
    class Bare(torch.nn.Module):
        def forward(self, hidden_states):
            return (hidden_states,)

    flux.pipe.transformer = Bare()
    flux.pipe.scheduler.set_timesteps(4, mu=1.0)
    says = r"^Bare calls no list of blocks on the way from its latents: type "
    with accelerate(flux.pipe, "spectrum"), pytest.raises(SpectrumError, match=says):
        flux.pipe.transformer(torch.zeros(1, 2))


@pytest.mark.parametrize("method", ["first_block_cache", "teacache"])
def test_a_refused_method_leaves_no_hook_behind(method):
    subject = subject_of("sdxl")
    words = ["schedule.threshold=0.1", *(["method.drift.coefficients=[1.0,0.0]"] if method == "teacache" else [])]
    before = [(set(vars(m)), len(m._forward_pre_hooks), len(m._forward_hooks)) for m in subject.pipe.unet.modules()]
    with pytest.raises(SpectrumError, match=r"front of it can run|no attention whose input"):
        accelerate(subject.pipe, method, *words)
    after = [(set(vars(m)), len(m._forward_pre_hooks), len(m._forward_hooks)) for m in subject.pipe.unet.modules()]
    assert before == after and torch.equal(subject.sample(), subject.plain)


def test_a_fit_is_used_only_for_the_steps_it_was_made_for(_tiny):
    toy = Toy.embedded(_tiny)
    for name, more in (("teacache", {}), ("easycache", {"runs": 14})):
        with accelerate(toy.pipe, name, **more), pytest.raises(SpectrumError, match="fitted for 50 steps and this run"):
            toy.sample(steps=12)
    typed = ("method.drift.coefficients=[1.0,0.0]", "schedule.threshold=0.3")
    with accelerate(toy.pipe, "teacache", *typed) as handle:
        toy.sample(steps=12)
        assert all(len(branch["run_steps"]) < 12 for branch in handle.report().values())
