"""Cases 1 to 9 and 13 of what goes wrong elsewhere, on the embedded model and toy FLUX, at more length."""

import gc

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from toys import BlockCounter, flux_transformer, toy_flux

from spectrum import accelerate
from spectrum.core.history import History
from spectrum.named_methods import load_method

STACKS = ("transformer_blocks", "single_transformer_blocks")
NAMES = ["none", "fewer_steps", "fora", "taylorseer", "teacache", "spectrum", "spectrum_blend"]
CALIBRATED = ("method.drift.coefficients=[1.0,0.0]", "schedule.threshold=0.35")
OVERRIDES = {"teacache": CALIBRATED}
SKIPPING = [name for name in NAMES if load_method(name, OVERRIDES.get(name, ())).forecast is not None]
TIME_ONLY = [name for name in SKIPPING if load_method(name, OVERRIDES.get(name, ())).time_only]


def method_of(name, *more):
    given = [*OVERRIDES.get(name, ()), *more]
    return load_method(name, [o for o in given if "schedule=always" not in more or not o.startswith("schedule.")])


def run(subject, name, *more, **kwargs):
    with accelerate(subject.pipe, method_of(name, *more)):
        return subject.sample(**kwargs)


def same(a, b):
    return a.shape == b.shape and torch.equal(a, b)


@pytest.mark.parametrize("name", NAMES)
def test_case_1_always_running_is_bit_exact(subject, name):
    assert same(run(subject, name, "schedule=always"), subject.sample())


@pytest.mark.parametrize("name", SKIPPING)
def test_case_2_a_skipped_step_calls_no_block(subject, name):
    counter = BlockCounter(subject.model, STACKS)
    with accelerate(subject.pipe, method_of(name)) as handle:
        subject.sample()
        report = handle.report()
    branches = len(report)
    calls = counter.close()
    blocks = sum(len(getattr(subject.model, stack)) for stack in STACKS)
    assert branches == (2 if subject.cfg > 1 else 1)
    for b, branch in enumerate(report.values()):
        assert len(branch["run_steps"]) < 12
        assert [n // blocks for n in calls[b::branches]] == [int(s in branch["run_steps"]) for s in range(12)]
        assert set(calls) == {0, blocks}


@pytest.mark.parametrize("name", SKIPPING)
def test_case_2_a_skipped_step_changes_the_output(subject, name):
    assert not same(run(subject, name), subject.sample())


def test_case_2_the_true_feature_in_place_of_the_forecast_is_bit_exact(subject, monkeypatch):
    """Store every step's true feature, then hand it out wherever a forecast is asked for."""
    plain, seen = subject.sample(), []
    handle = subject.model.norm_out.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
    subject.sample()
    handle.remove()
    calls = []
    at = subject.model.register_forward_pre_hook(lambda *a: calls.append(None))
    monkeypatch.setattr(History, "combine", lambda self, weights: seen[len(calls) - 1])
    try:
        assert same(run(subject, "spectrum"), plain)
    finally:
        at.remove()


@pytest.mark.parametrize("name", SKIPPING)
def test_case_3_after_removal_the_model_is_as_it_was(subject, name):
    model, other = subject.model, flux_transformer()
    plain = subject.sample()
    modules, forward, attributes = list(model.modules()), type(model).forward, set(vars(model))
    hooks = [len(m._forward_pre_hooks) for m in modules]
    with accelerate(subject.pipe, method_of(name)):
        assert type(model).forward is forward and type(other).forward is forward
        assert other.forward.__func__ is forward and not hasattr(other, "_diffusers_hook")
        subject.sample()
    assert all(a is b for a, b in zip(model.modules(), modules, strict=True))
    assert model.forward.__func__ is forward and set(vars(model)) == attributes
    assert [len(m._forward_pre_hooks) for m in modules] == hooks
    assert not hasattr(subject.pipe, "_spectrum")
    assert same(subject.sample(), plain)


def test_case_4_two_pipelines_with_two_methods():
    one, two = toy_flux(seed=1), toy_flux(seed=2)
    alone = run(one, "spectrum"), run(two, "fora")
    with accelerate(one.pipe, "spectrum"), accelerate(two.pipe, "fora"):
        together = one.sample(), two.sample()
    assert same(alone[0], together[0]) and same(alone[1], together[1])


@pytest.mark.parametrize("name", SKIPPING)
@pytest.mark.parametrize(("where", "error"), [("block", KeyboardInterrupt), ("callback", RuntimeError)])
def test_case_5_an_exception_leaves_no_state(subject, name, where, error):
    def fail(*args):
        if next(count) == 2:
            raise error("broken off")
        return args[-1] if where == "callback" else None

    count = iter(range(100))
    with accelerate(subject.pipe, method_of(name)) as handle:
        fresh = subject.sample()
        if where == "block":
            wrench = subject.model.single_transformer_blocks[1].register_forward_pre_hook(fail)
            with pytest.raises(error):
                subject.sample(seed=3)
            wrench.remove()
            assert not handle.hooks[0].running
        else:
            with pytest.raises(error):
                subject.sample(seed=3, callback_on_step_end=fail)
        assert len(subject.model.transformer_blocks) == 2
        assert same(subject.sample(), fresh)


@pytest.mark.parametrize("name", SKIPPING)
def test_case_6_another_call_on_the_same_hook(subject, name):
    settings = [{"steps": 9}, {"size": subject.size + 16}, {"batch": 3}, {"seed": 5}, {}]
    apart = [run(subject, name, **s) for s in settings]
    with accelerate(subject.pipe, method_of(name)):
        together = [subject.sample(**s) for s in settings]
    assert all(same(a, b) for a, b in zip(apart, together, strict=True))


@pytest.mark.parametrize("name", SKIPPING)
def test_case_7_each_cfg_branch_has_its_own_history(subject, name):
    with accelerate(subject.pipe, method_of(name)) as handle:
        subject.sample(cfg=3.0)
        report = handle.report()
    assert set(report) == {"cond", "uncond"}


@pytest.mark.parametrize("name", SKIPPING)
@pytest.mark.parametrize("on", [range(12), range(3, 9)])
def test_case_7_branches_do_not_meet_without_a_cache_context(flux, name, on):
    """Also where CFG is on for some steps only: that branch's history starts there."""
    model, scheduler = flux.model, flux.pipe.scheduler
    with accelerate(flux.pipe, method_of(name)) as handle:
        both = _manual(model, scheduler, uncond=on)
        runs = [branch["run_steps"] for branch in handle.report().values()]
    assert runs[1][0] == on[0] and set(runs[1]) <= set(on)
    with accelerate(flux.pipe, method_of(name)):
        assert same(_manual(model, scheduler, uncond=())[0], both[0])


def _manual(model, scheduler, uncond, steps=12):
    """A loop of its own, no cache context; the latents are fixed so that branches can only meet in the cache."""
    scheduler.set_timesteps(steps, mu=0.5)
    g = torch.Generator().manual_seed(0)
    x, cond, other = (torch.randn(shape, generator=g) for shape in [(1, 16, 16), (1, 5, 24), (1, 5, 24)])
    pooled, outputs = torch.randn(1, 20, generator=g), {0: [], 1: []}
    ids = torch.zeros(16, 3)
    ids[:, 1], ids[:, 2] = torch.arange(16) // 4, torch.arange(16) % 4
    for i, t in enumerate(scheduler.timesteps):
        for branch, text in enumerate([cond, other] if i in uncond else [cond]):
            with torch.no_grad():
                out = model(
                    hidden_states=x, timestep=t.expand(1) / 1000, guidance=torch.ones(1), pooled_projections=pooled,
                    encoder_hidden_states=text, txt_ids=torch.zeros(5, 3), img_ids=ids, return_dict=False,
                )[0]  # fmt: skip
            outputs[branch].append(out)
        scheduler.step(torch.zeros_like(x), t, x)
    return [torch.stack(o) if o else None for o in outputs.values()]


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_case_8_one_history_over_a_batch(flux, batch):
    with accelerate(flux.pipe, "spectrum") as handle:
        flux.sample(batch=batch)
        (branch,) = handle.report().values()
    assert branch["run_steps"] == [0, 1, 2, 3, 4, 6, 8, 11]


@pytest.mark.parametrize("name", TIME_ONLY)
def test_case_9_batch_items_do_not_meet(subject, name):
    whole = run(subject, name, batch=3)
    for i in range(3):
        torch.testing.assert_close(run(subject, name, items=[i]), whole[i : i + 1], rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("name", SKIPPING)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_case_13_the_output_has_the_models_dtype(name, dtype):
    toy = toy_flux()
    toy.pipe.to(dtype)
    stored = []
    handle = toy.model.proj_out.register_forward_hook(lambda m, a, out: stored.append(out.dtype))
    with accelerate(toy.pipe, method_of(name)) as session:
        image = toy.sample()
        branch = next(iter(session.report().values()))
    handle.remove()
    assert image.dtype == dtype and set(stored) == {dtype} and torch.isfinite(image).all()
    held = min(len(branch["run_steps"]), session.method.max_features or 99)
    assert branch["cache_bytes"] == held * 2 * 16 * 32 * torch.empty(0, dtype=dtype).element_size()


class _Reads(TorchDispatchMode):
    """Counts the reads of a tensor's value, each of which waits for the device."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", SKIPPING)
@pytest.mark.parametrize("clock", ["step", "sigma", "timestep"])
def test_schedules_of_time_add_no_synchronisation(flux, name, clock):
    with _Reads() as plain:
        flux.sample()
    with accelerate(flux.pipe, method_of(name, f"method.clock={clock}")), _Reads() as hooked:
        flux.sample()
    assert (hooked.count == plain.count) is (name in TIME_ONLY)
    assert flux.pipe.scheduler.sigmas.device.type == "cpu"


def test_probing_changes_no_sample_and_measures_every_skipped_step(flux):
    plain = run(flux, "spectrum")
    from spectrum.api import Accelerated

    with Accelerated(flux.pipe, method_of("spectrum"), probe=True) as handle:
        assert same(flux.sample(), plain)
        (branch,) = handle.report().values()
    assert [e["step"] for e in branch["errors"]] == [5, 7, 9, 10]
    assert all(0 < e["feature"] < 1 and 0 < e["velocity"] < 1 for e in branch["errors"])


def test_memory_does_not_grow(flux):
    with accelerate(flux.pipe, "spectrum") as handle:
        counts = []
        for _ in range(6):
            flux.sample(steps=7)
            gc.collect()
            counts.append(sum(isinstance(o, torch.Tensor) for o in gc.get_objects()))
        assert not handle.hooks[0].running
    assert counts[-1] <= counts[1]
