"""Layouts found by tracing, on forwards to work out by hand: sliced lists, several exits, what leads past them."""

import pytest
import torch
from looped import Looped, Scale, fed_twice, served, sliced, two_exits, two_stages
from small import Block, Small, latents, method, numbers, put_on
from torch import nn

from spectrum import SpectrumError
from spectrum.hooks.dataflow import traced
from spectrum.hooks.layout import Exit


def in_a_dict(model, x):
    for name in ("a", "b"):
        x = model.more[name](x)
    return (model.norm_out(x) + 0.5,)


def one_tensor_twice(model, x):
    for block in model.blocks:
        x = block(x)
    return (model.norm_out(x) + model.other(x),)


def normed_before_and_after(model, x):
    x = model.norm_out(x + 0)
    for block in model.blocks:
        x = block(x)
    return (model.norm_out(x) + 0.5,)


def past_every_module(model, x):
    for block in model.blocks:
        x = block(x)
    return (model.norm_out(x) + x,)


def written_into_a_slice(model, x):
    whole = torch.zeros_like(x)
    for block in model.blocks:
        x = block(x)
    whole[:, :1] = x[:, :1]
    return (whole + model.norm_out(x),)


@pytest.mark.parametrize(
    ("forward", "stacks", "exits"),
    [
        (sliced, ("blocks",), ["norm_out"]),
        (in_a_dict, ("more",), ["norm_out"]),
        (two_stages, ("blocks", "more"), ["norm_out"]),
        (two_exits, ("blocks",), ["norm_out", "other"]),
        (one_tensor_twice, ("blocks",), ["norm_out", "other"]),
        (normed_before_and_after, ("blocks",), ["norm_out, call 2"]),
    ],
)
def test_the_layout_of_a_forward_is_found_and_skipped_steps_are_worked_out_by_hand(forward, stacks, exits):
    hook, plain, outputs = served(forward)
    assert set(stacks) <= set(hook.layout.stacks) and [str(e) for e in hook.layout.exits] == exits
    for step, (expected, found) in enumerate(zip(plain, outputs, strict=True)):
        assert len(expected) == len(found)
        if step in (0, 2):
            assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
        else:
            assert all(torch.equal(a, b) for a, b in zip(outputs[step - 1], found, strict=True))
    assert hook.report()["branch 0"]["run_steps"] == [0, 2]


def test_a_tensor_that_enters_two_modules_is_stored_once():
    hook, _, _ = served(one_tensor_twice)
    assert [e.same_as for e in hook.layout.exits] == [None, 0]
    assert len(hook._trajectory.branches[0].histories) == 1
    hook, _, _ = served(two_exits)
    assert [e.same_as for e in hook.layout.exits] == [None, None]
    assert list(hook._trajectory.branches[0].histories) == ["exit", "exit 2"]
    with pytest.raises(SpectrumError, match=r"^Looped has several exits \(norm_out, other\), and only one follows"):
        served(two_exits, space="residual")


@pytest.mark.parametrize("forward", [past_every_module, written_into_a_slice])
def test_what_leads_past_every_module_is_refused(forward):
    with pytest.raises(SpectrumError, match=r"^Looped: what its blocks give reaches the output without entering one"):
        served(forward)


def test_a_residual_is_relative_to_the_first_block_also_where_each_block_has_a_stand_in():
    hook, plain, outputs = served(sliced, space="residual")
    assert hook._site.by_block
    residual = numbers(plain[0][0]) / 2 - 0.25 - 1
    assert numbers(outputs[1][0]) == pytest.approx(2 * (residual + 2) + 0.5)


def test_the_values_of_operations_follow_writes_and_views():
    model = Small(Block())
    flow = traced(model, model.forward, (latents(1),), {})
    assert [call.name for call in flow.calls if call.parent == 0] == ["blocks.0", "norm_out"]
    assert numbers(flow.output[0]) == 40.5
    block, head = (call for call in flow.calls if call.parent == 0)
    assert block.results[(0,)] == head.arguments[(0,)] == head.results[(0,)]
    assert flow.calls[0].results[(0, 0)] != head.results[(0,)]


def test_an_exit_says_where_it_is():
    assert str(Exit("norm_out")) == str(Exit("norm_out", (0,))) == "norm_out"
    assert str(Exit("up.0", ("skips", 1), 2)) == "up.0(skips.1), call 3"


def two_slices(model, x):
    for block in model.blocks:
        x = block(x)
    return (model.norm_out(x[..., :1]) + model.other(x[..., 1:]),)


def test_two_slices_of_one_tensor_are_two_exits():
    hook, plain, outputs = served(two_slices)
    assert [e.same_as for e in hook.layout.exits] == [None, None]
    assert torch.equal(outputs[1][0], outputs[0][0]) and torch.equal(outputs[2][0], plain[2][0])


def test_a_list_that_the_head_needs_too_is_no_feeder():
    hook, plain, outputs = served(fed_twice)
    assert hook.layout.stacks == ("blocks",) and hook.layout.feeders == ()
    assert [str(e) for e in hook.layout.exits] == ["norm_out"]
    assert torch.equal(outputs[0][0], plain[0][0]) and torch.equal(outputs[1][0], plain[0][0])


def fed_once(model, x):
    extra = model.embed(torch.ones(1))
    for block in model.more.values():
        extra = block(extra)
    for block in model.blocks:
        x = block(x + extra)
    return (model.norm_out(x) + 0.5,)


def test_a_list_that_only_feeds_the_blocks_is_a_feeder_and_does_not_run():
    ran = []
    model = Looped(fed_once)
    model.more["a"].register_forward_pre_hook(lambda *args: ran.append(1))
    model.norm_out = Scale()
    hook, scheduler = put_on(model, method(), None)
    model(latents(1))
    assert hook.layout.feeders == ("more",)
    before = len(ran)
    scheduler.step_index = 1
    model(latents(1))
    assert len(ran) == before


class Pair(nn.Module):
    """A block that is given a summary of the picture before the picture."""

    def forward(self, summary, hidden):
        return hidden * 3 + summary


def summarised(model, x):
    summary = x.mean(-1, keepdim=True)
    for pair in model.pairs:
        x = pair(summary, x)
    return (model.norm_out(x),)


def test_the_blocks_input_is_the_argument_like_the_feature():
    model = Looped(summarised)
    model.pairs, model.norm_out = nn.ModuleList([Pair(), Pair()]), Scale()
    hook, scheduler = put_on(model, method(space="residual"), None)
    found = []
    for scheduler.step_index in range(2):
        found.append(numbers(model(latents(3))[0]))
    assert hook.layout.entry == (1,) and found == [2 * 39, 2 * 39]
