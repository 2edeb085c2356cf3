"""The hook's shape on toy instances of six families; their registry entries and conformance fixtures come later."""

import pytest
import torch
from families import FAMILIES, build, sample
from toys import BlockCounter, blocks_of

from spectrum.config import load_method
from spectrum.history import History
from spectrum.hook import CacheHook


def hooked(model, layout, method):
    return CacheHook(model, lambda: model.__dict__["_test_scheduler"], method, denoiser=layout)


@pytest.mark.parametrize("name", FAMILIES)
def test_skipped_steps_call_no_block_and_the_true_feature_is_bit_exact(name, monkeypatch):
    model, layout, x, inputs, scale = build(name)
    plain, end = sample(name, model, x, inputs, scale)
    features = []
    exit_module = model.get_submodule(layout.exit)
    at = exit_module.register_forward_pre_hook(lambda module, args: features.append(args[0].clone()))
    sample(name, model, x, inputs, scale)
    at.remove()

    counter = BlockCounter(model, layout.stacks)
    monkeypatch.setattr(History, "combine", lambda self, weights: features[len(counter.calls) - 1])
    hook = hooked(model, layout, load_method("spectrum"))
    outputs, last = sample(name, model, x, inputs, scale)
    (branch,) = hook.report().values()
    hook.remove()

    blocks = len(list(blocks_of(model, layout.stacks)))
    assert branch["run_steps"] == [0, 1, 2, 3, 4, 6, 8, 11]
    assert counter.close() == [blocks if s in branch["run_steps"] else 0 for s in range(12)]
    assert all(torch.equal(a, b) for a, b in zip(outputs, plain, strict=True)) and torch.equal(last, end)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("space", ["feature", "residual"])
@pytest.mark.parametrize("clock", ["step", "timestep", "sigma"])
def test_spaces_and_clocks(name, space, clock):
    model, layout, x, inputs, scale = build(name)
    _, plain = sample(name, model, x, inputs, scale)
    hook = hooked(model, layout, load_method("taylorseer", [f"method.space={space}", f"method.clock={clock}"]))
    _, cached = sample(name, model, x, inputs, scale)
    assert len(next(iter(hook.report().values()))["run_steps"]) < 12
    hook.remove()
    assert torch.isfinite(cached).all() and not torch.equal(cached, plain)
    assert torch.equal(sample(name, model, x, inputs, scale)[1], plain)
