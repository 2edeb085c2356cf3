"""The sites, on the denoiser of `small.py`."""

import dataclasses
import weakref

import pytest
import torch
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from small import LAYOUT, Block, Merged, Multiply, Small, called_with, method, numbers
from torch import nn

from spectrum import Denoiser, SpectrumError
from spectrum.hooks.exit_site import EXIT, ExitSite, FrontExitSite
from spectrum.hooks.module_site import ModuleSite
from spectrum.hooks.output_site import OUTPUT, OutputSite
from spectrum.hooks.site_of_method import site_of
from spectrum.hooks.step import DenoiserCall


class Step:
    """Runs or not, as it is told; its forecasts are the values that it is given."""

    def __init__(self, goes, **values):
        self.goes, self.values, self.asked = goes, values, []

    def runs(self, front_residual=None):
        self.asked.append(front_residual)
        return self.goes

    def skipping(self):
        return None

    def forecast(self, slot):
        return self.values[slot]


def test_the_exit_site_stores_what_enters_the_exit_and_puts_the_forecast_there():
    model = Small()
    site = ExitSite(model, LAYOUT, method())
    ran = site.evaluate(called_with(model, 2), Step(True))
    assert ran.ran is True and numbers(ran.entry) == 2 and numbers(ran.output[0]) == 2110.5
    assert numbers(ran.features[EXIT]) == numbers(ran.stored[EXIT]) == 2110 and ran.output[1] == "rest"
    skipped = site.evaluate(called_with(model, 3), Step(False, exit=torch.full((1, 2, 1), 7.0)))
    assert skipped.ran is False and skipped.stored == {} and numbers(skipped.entry) == 3
    assert numbers(skipped.features[EXIT]) == 7 and numbers(skipped.output[0]) == 7.5
    site.remove()
    assert numbers(model(torch.ones(1, 2, 1))[0]) == 1210.5


def test_a_residual_is_relative_to_what_enters_the_blocks():
    model = Small()
    site = ExitSite(model, LAYOUT, method(space="residual"))
    assert numbers(site.evaluate(called_with(model, 2), Step(True)).stored[EXIT]) == 2108
    skipped = site.evaluate(called_with(model, 3), Step(False, exit=torch.full((1, 2, 1), 7.0)))
    assert numbers(skipped.features[EXIT]) == 10 and numbers(skipped.output[0]) == 10.5


class Keyword(Small):
    """A denoiser that names the argument of its exit."""

    def forward(self, hidden_states, timestep=None):
        x = hidden_states
        for block in self.blocks:
            x = block(x)
        return (self.norm_out(input=x) + 0.5, "rest")


def test_an_exit_that_is_called_with_a_keyword_is_served_too():
    model = Keyword()
    site = ExitSite(model, LAYOUT, method())
    assert numbers(site.evaluate(called_with(model, 2), Step(True)).stored[EXIT]) == 2110
    skipped = site.evaluate(called_with(model, 3), Step(False, exit=torch.full((1, 2, 1), 7.0)))
    assert numbers(skipped.entry) == 3 and numbers(skipped.output[0]) == 7.5


def test_features_have_the_dtype_of_what_enters_the_blocks_and_the_exit_gets_its_own():
    half, single = torch.bfloat16, torch.float32
    entry = torch.ones(1, 2, 1, dtype=half)
    for space in ("feature", "residual"):
        model = Small(Multiply())
        site = ExitSite(model, LAYOUT, method(space=space))
        model.blocks[0].register_forward_hook(lambda module, args, output: output.float())
        call = DenoiserCall(model.forward, model.forward, (entry,), {}, {"hidden_states": entry})
        ran = site.evaluate(call, Step(True))
        assert ran.features[EXIT].dtype == ran.stored[EXIT].dtype == half and ran.output[0].dtype == single
        arrived = []
        model.norm_out.register_forward_hook(lambda module, args, output, to=arrived: to.append(args[0].dtype))
        skipped = site.evaluate(call, Step(False, exit=torch.full((1, 2, 1), 7.0)))
        assert arrived == [half] and skipped.features[EXIT].dtype == single
    model = Small(Multiply())
    site = OutputSite(model, LAYOUT, method(site="output", space="residual"))
    model.blocks[0].register_forward_hook(lambda module, args, output: output.bfloat16())
    call = DenoiserCall(model.forward, model.forward, (entry.float(),), {}, {"hidden_states": entry.float()})
    assert site.evaluate(call, Step(True)).stored[OUTPUT].dtype == half


def test_modules_called_outside_of_a_run_are_as_they_were_and_nothing_of_it_is_held():
    model, x = Small(), torch.ones(1, 2, 1)
    site = ModuleSite(model, LAYOUT, method(site="modules"))
    for _ in range(2):
        assert numbers(model.blocks[0].ff(x)) == 10
        assert numbers(site.evaluate(called_with(model, 2), Step(True)).output[0]) == 2110.5
    site.remove()
    site = ExitSite(model, LAYOUT, method())
    for _ in range(2):
        passed = torch.ones(1, 2, 1)
        model.norm_out(passed)
        held = weakref.ref(passed)
        del passed
        assert held() is None
        site.evaluate(called_with(model, 2), Step(True))


class Alone(nn.Module):
    """A denoiser with one block that lies in no list."""

    def __init__(self):
        super().__init__()
        self.block, self.norm_out = Block(), nn.Identity()

    def forward(self, hidden_states):
        x = hidden_states if self.block is None else self.block(hidden_states)
        return (self.norm_out(x) + 0.5,)


class Narrow(Small):
    """A denoiser that returns half of its tokens."""

    def forward(self, hidden_states, timestep=None, encoder_hidden_states=None):
        return (super().forward(hidden_states)[0][:, :1],)


def test_a_single_block_is_a_stack_too():
    model = Alone()
    site = ExitSite(model, Denoiser(exit="norm_out", stacks=("block",)), method())
    assert numbers(site.evaluate(called_with(model, 2), Step(True)).stored[EXIT]) == 70
    skipped = site.evaluate(called_with(model, 3), Step(False, exit=torch.full((1, 2, 1), 7.0)))
    assert numbers(skipped.entry) == 3 and numbers(skipped.output[0]) == 7.5


def test_an_output_of_another_shape_than_the_latents_has_no_residual():
    model = Narrow()
    site = site_of(model, LAYOUT, method(site="output", space="residual"))
    with pytest.raises(
        SpectrumError, match=r"^Narrow takes \(1, 2, 1\) and returns \(1, 1, 1\), so there is no residual"
    ):
        site.evaluate(called_with(model, 2), Step(True))


def test_front_blocks_run_at_every_step_and_what_they_add_is_shown_to_the_schedule():
    model = Small()
    site = FrontExitSite(model, LAYOUT, method(space="residual", front_blocks=1))
    step = Step(True)
    ran = site.evaluate(called_with(model, 2), step)
    assert ran.ran is True and numbers(ran.entry) == 70 and numbers(ran.output[0]) == 2110.5
    assert numbers(ran.stored[EXIT]) == 2040 and [numbers(value) for value in step.asked] == [68]
    step = Step(False, exit=torch.full((1, 2, 1), 5.0))
    skipped = site.evaluate(called_with(model, 3), step)
    assert skipped.ran is False and [numbers(value) for value in step.asked] == [97]
    assert numbers(skipped.features[EXIT]) == 105 and numbers(skipped.output[0]) == 105.5
    assert numbers(site.run_blocks(called_with(model, 1)).output[0]) == 1210.5
    site.remove()
    for count in (2, 3):
        with pytest.raises(SpectrumError, match=rf"^method.front_blocks={count} must be below the 2 blocks of blocks$"):
            FrontExitSite(Small(), LAYOUT, method(front_blocks=count))


def test_a_forward_that_does_not_pass_the_exit_or_runs_no_block_is_refused():
    model = Small()
    site = ExitSite(model, LAYOUT, method())
    nowhere = DenoiserCall(lambda x: (x,), lambda x: (x,), (torch.ones(1),), {}, {})
    with pytest.raises(
        SpectrumError, match=r"^Small did not pass through norm_out, so nothing could be stored: if it "
    ):
        site.run_blocks(nowhere)
    head = DenoiserCall(lambda x: (model.norm_out(x),), model.forward, (torch.ones(1),), {}, {})
    with pytest.raises(SpectrumError, match=r"^Small ran no block: nothing could be stored$"):
        site.run_blocks(head)


@pytest.mark.parametrize("output", [tuple, Transformer2DModelOutput])
def test_the_output_site_gives_the_forecast_as_the_denoiser_would(output):
    model = Small(output=output)
    site = OutputSite(model, LAYOUT, method(site="output"))
    ran = site.evaluate(called_with(model, 2), Step(True))
    assert ran.ran is True and numbers(ran.entry) == 2
    assert numbers(ran.features[OUTPUT]) == numbers(ran.stored[OUTPUT]) == 2110.5
    skipped = site.evaluate(called_with(model, 3), Step(False, output=torch.full((1, 2, 1), 7.0)))
    assert skipped.ran is False and skipped.stored == {} and numbers(skipped.entry) == 3
    assert numbers(skipped.features[OUTPUT]) == 7 and numbers(skipped.output[0]) == 7
    assert type(skipped.output) is output and (output is not tuple or skipped.output[1] == "rest")


def test_the_output_site_holds_no_bytes_of_what_the_denoiser_returned():
    model = Small()
    site = OutputSite(model, LAYOUT, method(site="output"))
    call = called_with(model, 2)
    both = dataclasses.replace(call, forward=lambda x: (call.forward(x)[0], 2 * x))
    ran = site.evaluate(both, Step(True))
    assert [*ran.features] == [OUTPUT, f"{OUTPUT} 2"]
    gone = [weakref.ref(value.untyped_storage()) for value in ran.features.values()]
    del ran
    assert [storage() for storage in gone] == [None, None]


def test_at_the_output_a_residual_is_relative_to_the_latents():
    model = Small()
    site = OutputSite(model, LAYOUT, method(site="output", space="residual"))
    assert numbers(site.evaluate(called_with(model, 2), Step(True)).stored[OUTPUT]) == 2108.5
    half = torch.full((1, 2, 1), 7.0, dtype=torch.bfloat16)
    skipped = site.evaluate(called_with(model, 3), Step(False, output=half))
    assert numbers(skipped.output[0]) == numbers(skipped.features[OUTPUT]) == 10
    assert skipped.output[0].dtype == torch.bfloat16
    with pytest.raises(SpectrumError, match=r"^method.front_blocks goes with method.site=exit$"):
        OutputSite(model, LAYOUT, method(site="output", front_blocks=1))


def slots(block):
    """The slots of one block of `Small`: two tensors of one attention, one tensor of each of two calls of an MLP."""
    return [f"blocks.{block}.{name}" for name in ("attn.1.0", "attn.1.1", "ff.1.0", "ff.2.0")]


def test_the_modules_site_has_a_slot_for_each_tensor_of_each_call():
    model = Small()
    site = ModuleSite(model, LAYOUT, method(site="modules"))
    for _ in range(2):
        ran = site.evaluate(called_with(model, 2), Step(True))
        found = {slot: numbers(value) for slot, value in ran.stored.items()}
        first, second = [3, 4, 30, 40], [71, 140, 710, 1400]
        assert found == dict(zip([*slots(0), *slots(1)], [*first, *second], strict=True))
        assert ran.ran is True and ran.features == ran.stored and ran.entry is None
    forecasts = {slot: torch.full((1, 2, 1), float(i)) for i, slot in enumerate([*slots(0), *slots(1)])}
    inner = []
    handles = [m.register_forward_pre_hook(lambda *args: inner.append(args)) for m in model.modules() if m is not model]
    skipped = site.evaluate(called_with(model, 3), Step(False, **forecasts))
    assert numbers(skipped.output[0]) == 6 + 7 + 0.5
    assert skipped.ran is False and skipped.stored == {} and skipped.features == forecasts
    for handle in handles:
        handle.remove()
    site.remove()
    assert numbers(model(torch.ones(1, 2, 1))[0]) == 1210.5


def test_what_only_feeds_a_stored_projection_is_not_run_and_has_no_width():
    model = Small(Merged())
    site = ModuleSite(model, LAYOUT, method(site="modules"))
    ran = site.evaluate(called_with(model, 2), Step(True))
    assert list(ran.stored) == ["blocks.0.proj_out.1.0"]
    assert ran.stored["blocks.0.proj_out.1.0"].flatten().tolist() == [30, 40, 200] * 2
    widths = []
    model.blocks[0].proj_out.register_forward_pre_hook(lambda module, args: widths.append(args[0].shape[-1]))
    value = {"blocks.0.proj_out.1.0": torch.ones(1, 2, 3)}
    assert numbers(site.evaluate(called_with(model, 2), Step(False, **value)).output[0]) == 3.5
    assert widths == [0]
    site.remove()


def test_the_modules_site_refuses_what_it_cannot_store():
    for settings in ({"space": "residual"}, {"front_blocks": 1}):
        with pytest.raises(SpectrumError, match=r"^method.site=modules stores what each module returns: type method"):
            ModuleSite(Small(), LAYOUT, method(site="modules", **settings))
    with pytest.raises(
        SpectrumError, match=r"^Small has no attention or MLP that could be found: type method.site=exit$"
    ):
        ModuleSite(Small(Multiply(), Multiply()), LAYOUT, method(site="modules"))
