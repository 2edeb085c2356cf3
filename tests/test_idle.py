"""What nothing depends on at a skipped step does not run there, and what something depends on does."""

import pytest
import torch
from cases import STEPS, method_of, subject_of
from looped import Looped, Scale
from small import latents, method, put_on
from torch import nn

from spectrum import Denoiser, SpectrumError
from spectrum.api import Accelerated
from spectrum.hooks.exit_site import kind_of_call
from spectrum.hooks.idle import idle_stand_ins
from spectrum.hooks.step import DenoiserCall

LAYOUT = Denoiser(exit="norm_out", stacks=("blocks",), condition=None)


class Notes(nn.Module):
    """Notes its calls, and does what its function does."""

    def __init__(self, function):
        super().__init__()
        self.function, self.calls = function, 0

    def forward(self, x):
        self.calls += 1
        return self.function(x)


def through_blocks(model, x):
    for block in model.blocks:
        x = block(x)
    return x


def only_blocks(model, x):
    return (model.norm_out(through_blocks(model, model.embed(x))) + 0.5,)


def a_table_for_blocks(model, x):
    cosines, _ = model.embed(x)
    return (model.norm_out(through_blocks(model, x * cosines)) + 0.5,)


def the_head_too(model, x):
    scale = model.embed(x)
    return (model.norm_out(through_blocks(model, x)) * scale,)


def a_comparison(model, x):
    rows = model.embed(x) > 0
    return (model.norm_out(through_blocks(model, x)) * rows,)


def written_to(model, x):
    made = model.embed(x)
    made += 1
    return (model.norm_out(through_blocks(model, made)) + 0.5,)


def listed(model, x):
    (made,) = model.embed(x)
    return (model.norm_out(through_blocks(model, made)) + 0.5,)


def twice(model, x):
    return (model.norm_out(through_blocks(model, model.embed(x) + model.embed(x[..., :1]))) + 0.5,)


CASES = {
    "only blocks": (only_blocks, lambda x: 2 * x, {}, True),
    "a table": (a_table_for_blocks, lambda x: (x.cos(), x.sin()), {}, True),
    "whole numbers": (a_table_for_blocks, lambda x: (x.cos(), x.long()), {}, False),
    "a list": (listed, lambda x: [2 * x], {}, False),
    "of two shapes": (twice, lambda x: 2 * x, {}, False),
    "a residual": (only_blocks, lambda x: 2 * x, {"space": "residual"}, False),
    "the head too": (the_head_too, lambda x: 2 * x, {}, False),
    "a comparison": (a_comparison, lambda x: 1 - x, {}, False),
    "written to": (written_to, lambda x: 2 * x, {}, False),
    "front blocks": (only_blocks, lambda x: 2 * x, {"front_blocks": 1}, False),
}


@pytest.mark.parametrize("case", CASES)
def test_a_module_runs_at_a_skipped_step_if_something_depends_on_it(case):
    forward, function, settings, idle = CASES[case]
    model, plain = Looped(forward), Looped(forward)
    for own in (model, plain):
        own.embed, own.norm_out = Notes(function), Scale()
    hook, scheduler = put_on(model, method(**settings), LAYOUT)
    other, unchecked = put_on(plain, method(**settings), LAYOUT, check=False)
    for step in range(2):
        scheduler.step_index = unchecked.step_index = step
        found, expected = model(latents(step + 1.0)), plain(latents(step + 1.0))
        assert torch.equal(found[0], expected[0])
        if step == 0:
            model.embed.calls = plain.embed.calls = 0
    assert hook.report()["branch 0"]["run_steps"] == other.report()["branch 0"]["run_steps"] == [0]
    assert plain.embed.calls > 0 and (model.embed.calls == 0) == idle


def test_every_kind_of_call_has_idle_modules_of_its_own():
    model = Looped(only_blocks)
    model.embed, model.norm_out = Notes(lambda x: 2 * x), Scale()
    hook, scheduler = put_on(model, method(), LAYOUT)
    for scheduler.step_index in range(2):
        for batch in (1, 3):
            model.embed.calls = 0
            assert model(latents(1.0).expand(batch, -1, -1, -1).clone())[0].shape[0] == batch
            assert (model.embed.calls == 0) == (scheduler.step_index == 1)
    hook.remove()
    assert type(model.embed) is Notes


def test_a_step_at_which_something_depends_on_an_idle_module_ends_with_an_error():
    def sometimes(model, x):
        made = model.embed(x)
        found = model.norm_out(through_blocks(model, made))
        return (found + made if (x == 2).all() else found,)

    model = Looped(sometimes)
    model.embed, model.norm_out = Notes(lambda x: 2 * x), Scale()
    _, scheduler = put_on(model, method(), LAYOUT)
    scheduler.step_index = 0
    model(latents(1.0))
    scheduler.step_index = 1
    with pytest.raises(SpectrumError, match="with the forecast feature the denoiser gave NaN"):
        model(latents(2.0))
    assert type(model.embed) is Notes


def test_without_a_proof_nothing_is_idle():
    model = Looped(only_blocks)
    model.norm_out = Scale()
    assert idle_stand_ins(model, LAYOUT, lambda: False) == {}


def test_a_proof_that_fails_leaves_all_modules_to_run():
    def fails():
        raise RuntimeError

    assert idle_stand_ins(Looped(only_blocks), LAYOUT, fails) == {}


@pytest.mark.parametrize("part", ["embed", "embed.0"])
def test_a_module_with_a_hook_on_it_or_in_it_runs_at_every_step(part):
    model, seen = Looped(only_blocks), []
    model.embed, model.norm_out = nn.Sequential(Notes(lambda x: 2 * x)), Scale()
    model.get_submodule(part).register_forward_hook(lambda *_: seen.append(None))
    _, scheduler = put_on(model, method(), LAYOUT)
    for scheduler.step_index in range(2):
        seen.clear()
        model(latents(1.0))
        assert seen


@pytest.mark.parametrize("still, calls", [(True, 1 + 3), (False, 1 + 1 + 2 + 3)])
def test_what_was_idle_before_is_tried_together_and_if_it_is_not_any_more_one_by_one(still, calls):
    model, tried = Looped(only_blocks), []
    model.other = Notes(lambda x: x)

    def replay():
        model.other(model.embed(torch.ones(2)))
        tried.append(None)
        return still or type(model.other) is Notes

    found = idle_stand_ins(model, LAYOUT, replay, ["embed", "other"])
    assert len(tried) == calls and [*found] == (["embed", "other"] if still else ["embed"])


def test_another_dtype_is_another_kind_of_call():
    calls = [DenoiserCall(None, None, (x,), {}, {"x": x}) for x in (torch.zeros(2), torch.zeros(2).half())]
    assert calls[0].kinds == calls[1].kinds and kind_of_call(calls[0]) != kind_of_call(calls[1])


@pytest.mark.parametrize(
    "model, idle",
    [
        ("flux", {"x_embedder", "context_embedder", "pos_embed"}),
        ("sdxl", {"conv_in"}),
        ("wan21_14b", {"rope", "patch_embedding"}),
        ("qwen_image", {"img_in", "txt_norm", "txt_in", "pos_embed"}),
    ],
)
def test_embedders_and_rotary_tables_are_idle_in_families(model, idle):
    subject = subject_of(model)
    with Accelerated(subject.pipe, method_of("spectrum")) as handle:
        subject.sample()
        (hook, *_) = handle.hooks
        called = {}
        counters = [
            part.register_forward_pre_hook(lambda *_, name=name: called.__setitem__(name, called.get(name, 0) + 1))
            for name, part in hook.model.named_children()
        ]
        found = subject.sample()
        runs = handle.report()
    for counter in counters:  # other tests use this pipeline, and a module with a hook on it is not idle
        counter.remove()
    whole = max(called.values())
    assert {name for name in idle if called[name] < whole} == idle, (called, runs, STEPS)
    with Accelerated(subject.pipe, method_of("spectrum"), check=False):
        assert torch.equal(found, subject.sample())
