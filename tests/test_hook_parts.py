"""The parts that the hook is made of, one at a time: scheduler, tensors, stand-ins, discovery, compiled calls."""

import math
from types import SimpleNamespace

import pytest
import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    UNet2DConditionModel,
    UniPCMultistepScheduler,
)
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from torch import nn
from toys import flux_transformer

from spectrum.core.clock import Clock
from spectrum.core.errors import SpectrumError
from spectrum.hooks import scheduler as schedulers
from spectrum.hooks import tensors
from spectrum.hooks.compiled import CompiledCall, compiled_whole, refuse_compiled_later
from spectrum.hooks.discovery import block_stacks, first_block_parts, hidden_output, site_modules
from spectrum.hooks.finite import FiniteCheck
from spectrum.hooks.layout import Denoiser
from spectrum.hooks.offload import beneath_offload
from spectrum.hooks.stand_ins import entered_first_block, front_blocks, in_place_of_stacks, no_blocks


def set_up(kind, steps=10, **settings):
    scheduler = kind(**settings)
    scheduler.set_timesteps(steps)
    return scheduler


def test_an_argument_named_for_time_is_a_timestep_and_its_ids_are_none():
    assert all(map(tensors.is_time, ("timestep", "t", "r", "decoder_noise_time", "timestep_r", "sigma")))
    assert not any(map(tensors.is_time, ("added_time_ids", "time_ids", "time_embed", "text", "target")))


def test_the_position_is_the_step_index_and_before_the_first_step_where_the_run_begins():
    scheduler = set_up(FlowMatchEulerDiscreteScheduler)
    assert schedulers.position(scheduler).step == 0
    scheduler.set_begin_index(4)
    assert schedulers.position(scheduler).step == 4
    sample = torch.zeros(1, 2)
    for expected in (5, 6):
        scheduler.step(sample, scheduler.timesteps[schedulers.position(scheduler).step], sample)
        assert schedulers.position(scheduler).step == expected


def test_a_scheduler_without_a_step_index_is_asked_for_the_timestep():
    scheduler = set_up(CogVideoXDDIMScheduler)
    for index in (0, 3, 9):
        now = scheduler.timesteps[index]
        assert schedulers.position(scheduler, now).step == index
        assert schedulers.position(scheduler, now.repeat(2)).step == index
        assert schedulers.position(scheduler, int(now)).step == index
    scheduler.timesteps = torch.tensor([10, 1])
    for unknown in (None, 12345):
        with pytest.raises(SpectrumError, match="CogVideoXDDIMScheduler does not tell which step it is at: use a"):
            schedulers.position(scheduler, unknown)


def test_the_second_expert_begins_at_the_first_timestep_below_the_boundary():
    scheduler = FlowMatchEulerDiscreteScheduler()
    before = scheduler.timesteps.clone()
    assert schedulers.starts(scheduler, None, 10) == [0]
    times = set_up(FlowMatchEulerDiscreteScheduler).timesteps
    boundary = float(times[3]) / 1000
    assert schedulers.starts(scheduler, boundary, 10) == [0, 4]
    assert schedulers.starts(scheduler, boundary + 1e-4, 10) == [0, 3]
    assert schedulers.starts(scheduler, float(times[0]) / 1000, 10) == [0, 1]
    assert schedulers.starts(scheduler, 0.0, 10) == [0] and schedulers.starts(scheduler, 1.1, 10) == [0]
    assert torch.equal(scheduler.timesteps, before)


def test_the_clocks_of_a_flow_model():
    scheduler = set_up(FlowMatchEulerDiscreteScheduler, 5, shift=3.0)
    sigmas = scheduler.sigmas[:5].tolist()
    assert schedulers.readings(scheduler, Clock.step) == ([0.0, 1.0, 2.0, 3.0, 4.0], (0.0, 5.0))
    assert schedulers.readings(scheduler, Clock.sigma) == (sigmas, (0.0, 1.0))
    assert schedulers.readings(scheduler, Clock.timestep) == ([1000 * s for s in sigmas], (0.0, 1000.0))
    assert schedulers.levels(scheduler) == [(1 - s, s) for s in sigmas]
    assert sigmas[0] == 1.0 and 0.7 < sigmas[2] < 0.9


def test_the_clocks_of_a_diffusion_model():
    scheduler = set_up(EulerDiscreteScheduler, 5)
    sigmas = scheduler.sigmas[:5].tolist()
    assert schedulers.readings(scheduler, Clock.sigma) == (sigmas, (0.0, max(sigmas))) and max(sigmas) > 1
    assert schedulers.readings(scheduler, Clock.timestep) == (scheduler.timesteps.tolist(), (0.0, 1000.0))
    for (picture, noise), sigma in zip(schedulers.levels(scheduler), sigmas, strict=True):
        assert picture == pytest.approx(1 / math.sqrt(1 + sigma**2)) and noise == pytest.approx(sigma * picture)


def test_a_scheduler_without_sigmas_has_those_of_its_alphas():
    scheduler = set_up(DDIMScheduler, 4)
    readings, _ = schedulers.readings(scheduler, Clock.sigma)
    kept = [float(scheduler.alphas_cumprod[int(t)]) for t in scheduler.timesteps]
    assert readings == pytest.approx([math.sqrt((1 - a) / a) for a in kept], rel=1e-4)
    terminal = set_up(UniPCMultistepScheduler, 4, rescale_betas_zero_snr=True)
    assert schedulers.levels(terminal)[0][1] == pytest.approx(1.0)
    few = SimpleNamespace(alphas_cumprod=torch.tensor([0.9, 0.5, 0.2]), timesteps=torch.tensor([2.0, 0.0]))
    assert schedulers.readings(few, Clock.sigma)[0] == pytest.approx([2.0, 1 / 3], rel=1e-6)


def test_the_largest_sigma_tells_a_flow_model_from_a_diffusion_model():
    for most, picture in ((0.8, 0.2), (1.0, 0.0), (1.5, 1 / math.sqrt(3.25))):
        scheduler = SimpleNamespace(
            sigmas=torch.tensor([most, 0.5]), timesteps=torch.arange(2), config=SimpleNamespace(num_train_timesteps=9)
        )
        noise = most if most <= 1 else most * picture
        assert schedulers.levels(scheduler)[0] == pytest.approx((picture, noise))
        assert schedulers.readings(scheduler, Clock.sigma)[1] == (0.0, pytest.approx(max(most, 1.0)))


def test_the_sample_in_an_output_is_found_and_replaced():
    a, b = torch.zeros(2, 3), torch.ones(2, 3)
    assert tensors.sample_of((a, "rest")) is a and tensors.with_sample((a, "rest"), b) == (b, "rest")
    output = Transformer2DModelOutput(sample=a)
    replaced = tensors.with_sample(output, b)
    assert tensors.sample_of(output) is a and type(replaced) is Transformer2DModelOutput and replaced.sample is b
    listed = ([a[0], a[1]], {"more": 1})
    assert torch.equal(tensors.sample_of(listed), a)
    parts, rest = tensors.with_sample(listed, b)
    assert isinstance(parts, list) and torch.equal(torch.stack(parts), b) and rest == {"more": 1}


def test_latents_and_hidden_states_are_found_among_arguments():
    a = torch.zeros(2, 3)
    assert tensors.latents_of({"self": None, "sample": a, "timestep": 1}) is a
    assert torch.equal(tensors.latents_of({"self": None, "x": [a[0], a[1]], "t": 1}), a)
    assert tensors.hidden_states_of((1,), {"hidden_states": a}) is a
    assert tensors.hidden_states_of((a, 1), {"temb": 2}) is a and tensors.hidden_states_of((), {"x": a, "y": 1}) is a


def test_stacks_and_parts_are_found_by_diffusers_names():
    model = flux_transformer()
    assert block_stacks(model) == ("transformer_blocks", "single_transformer_blocks")
    assert Denoiser(exit="norm_out").with_stacks(model).stacks == block_stacks(model)
    assert Denoiser(exit="x", stacks=("blocks",)).with_stacks(model).stacks == ("blocks",)
    stored, feeding = site_modules(model, block_stacks(model))
    double = [f"transformer_blocks.{i}.{part}" for i in range(2) for part in ("attn", "ff", "ff_context")]
    single = [f"single_transformer_blocks.{i}" for i in range(3)]
    assert sorted(stored) == sorted([*double, *(f"{name}.proj_out" for name in single)])
    assert sorted(feeding) == sorted(f"{name}.{part}" for name in single for part in ("attn", "proj_mlp"))
    assert all(module is model.get_submodule(name) for name, module in (stored | feeding).items())
    first = [model.get_submodule(f"transformer_blocks.0.{part}") for part in ("attn", "ff", "ff_context")]
    parts = first_block_parts(model, block_stacks(model))
    assert len(parts) == 3 and all(any(part is one for one in first) for part in parts)
    with pytest.raises(SpectrumError, match="Linear has no list of blocks that diffusers knows: name its stacks"):
        block_stacks(nn.Linear(1, 1))


def test_a_layout_names_modules_that_there_are():
    model = flux_transformer()
    whole = Denoiser(exit="norm_out", signal="time_text_embed").with_stacks(model)
    whole.check(model)
    for layout in (
        Denoiser(exit="nowhere", stacks=whole.stacks),
        Denoiser(exit="norm_out", stacks=("nowhere",)),
        Denoiser(exit="norm_out", stacks=whole.stacks, signal="nowhere"),
    ):
        with pytest.raises(SpectrumError, match=r"has no module nowhere, .*; it has pos_embed, time_text_embed"):
            layout.check(model)


def test_the_hidden_states_among_what_a_block_returns():
    model = flux_transformer()
    image, text = torch.zeros(1, 4, 32), torch.ones(1, 5, 32)
    double, single = model.transformer_blocks[0], model.single_transformer_blocks[0]
    assert hidden_output(double, (text, image), image) is image and hidden_output(single, image, text) is image
    assert hidden_output(nn.Identity(), (text, image), image) is image
    assert hidden_output(double, (image + 1, image), image) is image
    for output in ((text, text), (image, image)):
        with pytest.raises(SpectrumError, match="cannot be told which output of Identity are the hidden states: leave"):
            hidden_output(nn.Identity(), output, image)


def test_nan_is_found_at_its_step_on_a_cpu():
    fine, broken = torch.zeros(3), torch.tensor([0.0, float("nan"), 1.0])
    check = FiniteCheck()
    check.check(0, True, fine, False)
    with pytest.raises(SpectrumError, match=r"^the denoiser gave NaN or infinite values at step 3: type another dtype"):
        check.check(3, True, broken, False)
    with pytest.raises(SpectrumError, match=r"^with the forecast feature the denoiser gave NaN .* at step 4"):
        check.check(4, False, broken / 0, True)


def test_on_another_device_nan_is_found_at_the_end_of_the_run():
    class Elsewhere(torch.Tensor):
        """A tensor that says it lies on an accelerator, where reading a flag would stall the run."""

        device = torch.device("cuda")

    fine, broken = (torch.tensor([x]).as_subclass(Elsewhere) for x in (1.0, float("inf")))
    check = FiniteCheck()
    for step, output in enumerate((fine, broken, broken)):
        check.check(step, step == 0, output, False)
    with pytest.raises(SpectrumError, match=r"with the forecast feature the denoiser gave .* at step 1"):
        check.check(3, True, fine, True)
    check.check(4, True, fine, True)


class Stack(nn.Module):
    """Two stacks whose blocks add 1, 10, 100 and 1000, 10000."""

    def __init__(self):
        super().__init__()
        self.first = nn.ModuleList(Add(v) for v in (1, 10, 100))
        self.second = nn.ModuleList(Add(v) for v in (1000, 10000))
        self.alone = Add(0)

    def forward(self, x):
        for stack in (self.first, self.second):
            for block in stack:
                x = block(x)
        return x


class Add(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x):
        return x + self.value


def test_stand_ins_run_the_blocks_that_they_should():
    model, stacks = Stack(), ("first", "second")
    with in_place_of_stacks(no_blocks(model, stacks)):
        assert model(0) == 0
        assert len(model.first) == 3 and model.first[1].value == 10 and model.second[-1].value == 10000
    for runs, expected in ((False, 11), (True, 11111)):
        with in_place_of_stacks(front_blocks(model, stacks, 2, lambda runs=runs: runs)):
            assert model(0) == expected
    hooked = []
    model.first[0].register_forward_pre_hook(lambda *args: hooked.append(1))
    with in_place_of_stacks(entered_first_block(model, ("first",))):
        assert [block(5) for block in model.first] == [6] and not hooked
        assert model(0) == 11001
    with pytest.raises(KeyError), in_place_of_stacks(no_blocks(model, stacks)):
        raise KeyError
    assert model(0) == 11111
    assert [own.module for own in no_blocks(model, ("alone",))] == [None]
    with pytest.raises(SpectrumError, match=r"Stack.alone is a single block, so no front of it can run: leave"):
        front_blocks(model, ("alone",), 1, lambda: True)


def test_a_compiled_call_is_wrapped_and_put_back():
    for as_called in (torch.compile(Add(1), backend="eager"), Add(1)):
        if type(as_called) is Add:
            as_called.compile(backend="eager")
        assert compiled_whole(as_called) and not compiled_whole(Add(1))
        inside, zero, calls = [], torch.zeros(2), {}

        def around(compiled, args, kwargs, inside=inside, calls=calls):
            inside.append(calls["one"].inside)
            return 2 * compiled(*args, **kwargs)

        call = calls["one"] = CompiledCall(as_called, around)
        root = getattr(as_called, "_orig_mod", as_called)
        handle = root.register_forward_pre_hook(lambda *args, inside=inside, call=call: inside.append(call.inside))
        assert as_called(zero).tolist() == [2, 2] and as_called(x=zero).tolist() == [2, 2]
        assert inside[0] is False and True in inside and call.inside is False
        handle.remove()
        call.remove()
        assert as_called(zero).tolist() == [1, 1]
    with pytest.raises(SpectrumError, match=r"compiled whole after a method was put on it: restore\(pipe\), compile"):
        refuse_compiled_later()


def test_beneath_an_offload_wrapper_the_forward_below_it_is_replaced():
    plain, offloaded = Add(1), Add(1)
    offloaded._old_forward, offloaded.forward = offloaded.forward, lambda x: 100 * offloaded._old_forward(x)
    for module, factor in ((plain, 1), (offloaded, 100)):
        assert module(1) == 2 * factor
        with beneath_offload(module):
            below = module.forward
            module.forward = lambda x, below=below: below(x) + 1
        assert module(1) == 3 * factor
    with pytest.raises(KeyError), beneath_offload(offloaded):
        raise KeyError
    assert offloaded(1) == 300


def test_a_unet_has_no_stack_of_its_own():
    unet = UNet2DConditionModel(
        block_out_channels=(4, 8), down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
        norm_num_groups=2, layers_per_block=1, cross_attention_dim=4,
    )  # fmt: skip
    with pytest.raises(SpectrumError, match="UNet2DConditionModel has no list of blocks"):
        block_stacks(unet)
