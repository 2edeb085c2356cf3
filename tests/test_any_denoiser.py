"""Any denoiser: the layout is found from one traced forward, proved, and refused where it cannot be."""

import pytest
import torch
from small import Block, Small, latents, method, numbers, put_on
from torch import nn

from spectrum import Denoiser, SpectrumError
from spectrum.bench.probe import probe
from spectrum.config.reader import choices
from spectrum.hooks.dataflow import traced
from spectrum.hooks.derive import derived_layout
from spectrum.hooks.layout import Exit
from spectrum.models.layouts import DENOISERS
from spectrum.models.toys import NO_TOY, STEPS, missing_classes, toy

REFUSED = {
    "anyflow_far_prefill": "reaches the output without entering one module",
    "rfd4_proteina": "is not right",
    "rfd4_proteina_recycle": "is not right",
}
FAST = ("flux", "ltx2", "unet_2d_condition")
ODD = (
    "flux3", "hidream_wide", "hunyuan_dit_control", "motif_video", "stable_cascade_decoder", "unet_1d", "unet_2d_skip",
    "unet_motion_control", "unet_spatio_temporal", "uvit", "cosmos3_omni_sound", "kandinsky6", "ltx23_guidance",
    "latte", "bria", "bria_fibo", "bria_fibo2_edit", "kandinsky3", "ovis_image", "qwen_image21", "z_image_omni",
    "t5_film", "dit", "chroma", "consisid", "anyflow_far", "wan_animate", "wan_vace_last", "minimax_h3",
    "helios", *REFUSED,
)  # fmt: skip
"""The toys of which each has something that no other one has; the rest run with `-m whole`."""


def tier(name):
    marks = () if name in FAST else (pytest.mark.slow,) if name in ODD else (pytest.mark.slow, pytest.mark.whole)
    return pytest.param(name, marks=marks)


@pytest.mark.parametrize("name", [tier(name) for name in choices("denoiser")])
def test_a_class_that_nobody_registered_is_proved_or_refused(name):
    found = probe(toy(name))
    assert not found.wrong, found.outcomes
    if name in REFUSED:
        assert REFUSED[name] in found.outcomes["exit"]
    else:
        assert found.proved, found.outcomes["exit"]
        assert "output" in found.outcomes and found.layout is not None


def test_every_denoiser_class_of_diffusers_has_a_toy_or_a_reason():
    assert missing_classes({toy(name).cls for name in choices("denoiser")}) == NO_TOY


def test_registered_layouts_are_those_that_are_found():
    for name in choices("denoiser"):
        one = toy(name)
        if one.cls not in DENOISERS or ("_" in name and name not in ("ltx_video", "z_image", "qwen_image")):
            continue
        model, inputs = one.build(), one.call(0)
        with torch.no_grad():
            found = derived_layout(model, traced(model, model.forward, (), inputs), one.latents[0])
        registered = DENOISERS[one.cls].with_stacks(model)
        assert {e.module for e in found.exits} == {e.module for e in registered.exits}, name
        assert {*found.stacks, *found.feeders} >= {*registered.stacks}, name


def run(name, layout, steps=(0, 1), **settings):
    one = toy(name)
    model = one.build()
    hook, scheduler = put_on(model, method(**settings), layout)
    with torch.no_grad():
        return model, hook, [model(**one.call(scheduler.step_index)) for scheduler.step_index in steps]


@pytest.mark.parametrize(
    ("name", "layout", "says"),
    [
        ("ltx2", Denoiser(exit="norm_out", stacks=("transformer_blocks",)), "output 1, of shape .*: off by"),
        ("flux", Denoiser(exit="norm_out", stacks=("transformer_blocks",)), "single_transformer_blocks.0 still runs"),
        (
            "unet_2d_skip",
            Denoiser(exit="conv_norm_out", stacks=("down_blocks", "mid_block", "up_blocks"), condition=None),
            "its forward fails|off by",
        ),
        (
            "flux",
            Denoiser("single_transformer_blocks.1.norm", ("transformer_blocks", "single_transformer_blocks")),
            "did not pass through single_transformer_blocks.1.norm",
        ),
    ],
)
def test_a_layout_that_is_not_right_is_refused_at_the_first_run_step(name, layout, says):
    with pytest.raises(SpectrumError, match=rf"the layout \(stacks .*\) is not right: with the stored .*({says})"):
        run(name, layout)


def test_the_check_can_be_switched_off():
    one = toy("ltx2")
    model = one.build()
    hook, _ = put_on(model, method(), Denoiser(exit="norm_out", stacks=("transformer_blocks",)), check=False)
    with torch.no_grad():
        model(**one.call(0))
    assert hook.report()["branch 0"]["run_steps"] == [0]


def test_at_the_output_all_that_a_denoiser_returns_is_forecast():
    _, _, (first, second) = run("ltx2", None, site="output")
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    with pytest.raises(SpectrumError, match=r"returns 2 tensors, of which only the first follows from the latents"):
        run("ltx2", None, site="output", space="residual")


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("flux", {"controlnet_block_samples": [[2, 16, 32]], "controlnet_single_block_samples": [[2, 16, 32]]}),
        ("sd3", {"block_controlnet_hidden_states": [[2, 16, 32]]}),
        ("sana", {"controlnet_block_samples": [[2, 64, 32]]}),
    ],
)
def test_residuals_of_a_controlnet_are_served_because_the_proof_holds(name, inputs):
    one = toy(name)
    model, draw = one.build(), torch.Generator().manual_seed(1)
    given = {key: [torch.randn(shape, generator=draw) for shape in shapes] for key, shapes in inputs.items()}
    with torch.no_grad():
        plain = [model(**one.call(step), **given)[0] for step in range(3)]
        assert not torch.equal(plain[0], model(**one.call(0))[0])
        hook, scheduler = put_on(model, method(), DENOISERS[one.cls])
        found = [model(**one.call(scheduler.step_index), **given)[0] for scheduler.step_index in range(3)]
    assert torch.equal(found[0], plain[0]) and torch.equal(found[2], plain[2]) and not torch.equal(found[1], plain[1])
    assert hook.report()["branch 0"]["run_steps"] == [0, 2]


class Looped(nn.Module):
    """A denoiser whose forward is given as a function of it and of its input."""

    def __init__(self, forward):
        super().__init__()
        self.embed = nn.Identity()
        self.blocks = nn.ModuleList([Block(), Block(), Block()])
        self.more = nn.ModuleDict({"a": Block(), "b": Block()})
        self.between, self.norm_out, self.other = Block(), nn.Identity(), nn.Identity()
        self._run = forward

    def forward(self, hidden_states, encoder_hidden_states=None):
        return self._run(self, hidden_states)


def sliced(model, x):
    for block in model.blocks[:2]:
        x = block(x)
    return (model.norm_out(model.blocks[2](x)) + 0.5,)


def in_a_dict(model, x):
    for name in ("a", "b"):
        x = model.more[name](x)
    return (model.norm_out(x) + 0.5,)


def two_stages(model, x):
    for block in model.blocks:
        x = block(x)
    x = model.between(x)
    for block in model.more.values():
        x = block(x)
    return (model.norm_out(x) + 0.5,)


def two_exits(model, x):
    for block in model.blocks:
        x = block(x)
    return model.norm_out(x) + 0.5, model.other(x * 2) + 0.25


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


class Scale(nn.Module):
    """A block and a head that compute, so that the trace sees what they make."""

    def forward(self, x):
        return x * 2


def served(forward, steps=4, **settings):
    model = Looped(forward)
    model.norm_out, model.other = Scale(), Scale()
    hook, scheduler = put_on(model, method(**settings), None)
    given = [latents(value + 1) for value in range(steps)]
    plain = [forward(Fresh(model), x) for x in given]
    outputs = [model(given[scheduler.step_index]) for scheduler.step_index in range(steps)]
    return hook, plain, outputs


class Fresh:
    """A denoiser's modules, reached past its hooks' `forward`."""

    def __init__(self, model):
        self._model = model

    def __getattr__(self, name):
        return getattr(self._model, name)


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
    assert STEPS > 4


def test_blocks_with_stand_ins_of_their_own_serve_branches_of_several_sizes():
    model = Looped(narrowed)
    model.norm_out = Scale()
    hook, scheduler = put_on(model, method(), None)
    sizes = (2, 1)
    found = {rows: [] for rows in sizes}
    for scheduler.step_index in range(4):
        for rows in sizes:
            found[rows].append(model(torch.full((rows, 1, 2, 2), float(scheduler.step_index + rows)))[0])
    assert hook._site.by_block
    for rows in sizes:
        assert [output.shape for output in found[rows]] == [(rows, 1, 2, 1)] * 4
        assert torch.equal(found[rows][0], found[rows][1]) and not torch.equal(found[rows][1], found[rows][2])
    assert [own["run_steps"] for own in hook.report().values()] == [[0, 2], [0, 2]]


def narrowed(model, x):
    """Blocks of a sliced list, of which the last is given half of what the others return, by place and not by name."""
    for block in model.blocks[:2]:
        x = block(x)
    x = model.blocks[2](x[..., :1])
    return (model.norm_out(x) + 0.5,)


def test_another_way_through_the_forward_is_proved_anew():
    one = toy("sd3")
    model = one.build()
    hook, scheduler = put_on(model, method(), DENOISERS[one.cls])
    with torch.no_grad():
        for scheduler.step_index in range(2):
            for skipped in (None, [1]):
                model(**one.call(scheduler.step_index), skip_layers=skipped)
    assert len(hook._proved) == 2 and len(hook.report()) == 2


def doubled_behind(model, x):
    for block in model.blocks:
        x = block(x)
    return (model.norm_out(x * 2) + 0.5,)


def added_behind_the_front(model, x):
    for number, block in enumerate(model.blocks):
        x = block(x)
        if number == 0:
            x = x + 7
    return (model.norm_out(x) + 0.5,)


@pytest.mark.parametrize("forward", [doubled_behind, added_behind_the_front])
@pytest.mark.parametrize("settings", [{}, {"space": "residual"}, {"space": "residual", "front_blocks": 1}])
def test_a_skipped_step_with_the_inputs_of_the_run_step_gives_its_output(forward, settings):
    model = Looped(forward)
    model.norm_out = Scale()
    _, scheduler = put_on(model, method(**settings), None)
    found = []
    for scheduler.step_index in range(2):
        found.append(model(latents(3))[0])
    assert torch.equal(found[0], forward(Fresh(model), latents(3))[0])
    torch.testing.assert_close(found[1], found[0])


def two_slices(model, x):
    for block in model.blocks:
        x = block(x)
    return (model.norm_out(x[..., :1]) + model.other(x[..., 1:]),)


def test_two_slices_of_one_tensor_are_two_exits():
    hook, plain, outputs = served(two_slices)
    assert [e.same_as for e in hook.layout.exits] == [None, None]
    assert torch.equal(outputs[1][0], outputs[0][0]) and torch.equal(outputs[2][0], plain[2][0])


class Returns(nn.Module):
    """A denoiser that returns what its argument asks for."""

    def __init__(self):
        super().__init__()
        self.blocks, self.norm_out = nn.ModuleList([Block(), Block()]), nn.Identity()

    def forward(self, hidden_states, kind="two"):
        x = hidden_states
        for block in self.blocks:
            x = block(x)
        x = self.norm_out(x) + 0.5
        return {"two": (x, x + 1), "none": (x, None), "through": (x, hidden_states)}[kind]


def test_at_the_output_each_kind_of_call_has_outputs_of_its_own():
    model = Returns()
    _, scheduler = put_on(model, method(site="output"), None)
    for scheduler.step_index in range(2):
        given = latents(scheduler.step_index + 1)
        two, none, through = (model(given, kind=kind) for kind in ("two", "none", "through"))
        assert numbers(two[1]) == numbers(two[0]) + 1 == 1211.5 and none[1] is None
        assert through[1] is given and numbers(through[0]) == 1210.5


def test_a_layout_of_ones_own_is_proved_on_a_denoiser_that_is_compiled_whole_too():
    model = Looped(two_exits)
    model.norm_out, model.other = Scale(), Scale()
    compiled = torch.compile(model, backend="eager")
    _, scheduler = put_on(compiled, method(), Denoiser(exit="norm_out", stacks=("blocks",), condition=None))
    scheduler.step_index = 0
    with pytest.raises(SpectrumError, match=r"is not right: with the stored feature put back, output 1"):
        compiled(latents(1))


def drawing(model, x):
    x = x + torch.rand_like(x)
    for block in model.blocks:
        x = block(x)
    return (model.norm_out(x) + 0.5,)


def test_trace_and_proof_draw_no_random_numbers_of_the_run():
    model = Looped(drawing)
    model.norm_out = Scale()
    torch.manual_seed(0)
    plain = model(latents(1))[0]
    put_on(model, method(), None)
    torch.manual_seed(0)
    assert torch.equal(model(latents(1))[0], plain)


def test_an_object_that_blocks_write_to_is_refused():
    class Cached(Looped):
        def forward(self, hidden_states, kv_cache=None):
            return self._run(self, hidden_states)

    model = Cached(two_stages)
    put_on(model, method(), None)
    with pytest.raises(SpectrumError, match=r"^Cached is given kv_cache, an object that its blocks may write to"):
        model(latents(1), kv_cache=object())
