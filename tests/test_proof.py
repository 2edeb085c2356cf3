"""What the proof of a layout, and what is stored, must not get wrong, on forwards to work out by hand."""

import pytest
import torch
from looped import Fresh, Looped, Scale, fed_twice, served, two_exits, two_stages
from small import Block, latents, method, numbers, put_on
from torch import nn

from spectrum import Denoiser, SpectrumError
from spectrum.hooks.layout import Source


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


def too_fine(model, x):
    y = x.bfloat16()
    for block in model.blocks:
        y = block(y)
    return (model.norm_out(y.float() * 1.0009765625 + 0.001),)


def test_a_feature_that_would_lose_digits_is_stored_as_it_is():
    hook, plain, outputs = served(too_fine)
    assert hook._site.narrow is False and torch.equal(outputs[0][0], plain[0][0])
    assert torch.equal(outputs[1][0], outputs[0][0])
    (history,) = hook._trajectory.branches[0].histories.values()
    assert history.features[0].dtype == torch.float32


@pytest.mark.parametrize(("source", "refused"), [(Source.given, True), (Source.registered, False)])
def test_a_list_that_a_layout_leaves_out_is_refused_in_layouts_of_ones_own_alone(source, refused):
    """HiDream's captions and Chroma's modulations run at every step: the project's list leaves them out on purpose."""
    model = Looped(fed_twice)
    put_on(model, method(), Denoiser(exit="norm_out", stacks=("blocks",), condition=None, source=source))
    if not refused:
        assert model(latents(1))
        return
    with pytest.raises(SpectrumError, match=r"is not right: with the stored feature put back, more.a still runs"):
        model(latents(1))


class Fold(nn.Module):
    """A block that returns no shape that it was given."""

    def forward(self, x):
        return 3 * x.flatten(1)


def folded(model, x):
    for block in model.blocks[:2]:
        x = block(x)
    return (model.norm_out(torch.cat([model.blocks[2](x), x.flatten(1)], 1)),)


def test_blocks_with_stand_ins_of_their_own_serve_branches_of_several_sizes():
    model = Looped(folded)
    model.blocks[2], model.norm_out = Fold(), Scale()
    hook, scheduler = put_on(model, method(), None)
    found = {2: [], 1: []}
    for scheduler.step_index in range(4):
        for rows, outputs in found.items():
            outputs.append(model(torch.full((rows, 1, 2, 2), float(scheduler.step_index + rows)))[0])
    assert hook._site.by_block
    for rows, outputs in found.items():
        assert [output.shape for output in outputs] == [(rows, 8)] * 4
        assert torch.equal(outputs[0], outputs[1]) and not torch.equal(outputs[1], outputs[2])
    assert [own["run_steps"] for own in hook.report().values()] == [[0, 2], [0, 2]]


def writing(model, x):
    x.mul_(2)
    for block in model.blocks:
        x = block(x)
    return (model.norm_out(x) + 0.5,)


def test_trace_and_proof_do_not_change_what_a_forward_writes_to():
    hook, plain, outputs = served(writing)
    assert torch.equal(outputs[0][0], plain[0][0]) and torch.equal(outputs[2][0], plain[2][0])
    assert hook.layout.stacks == ("blocks",)
