"""At which step a denoiser is called, and which calls belong to one run: what whole pipelines showed."""

from types import SimpleNamespace

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, PNDMScheduler
from diffusers.pipelines.ltx2 import LTX2Vocoder
from small import LAYOUT, Small, latents, method, numbers, put_on, steps, walk
from torch import nn

from spectrum import SpectrumError, accelerate, restore
from spectrum.core.schedule import always
from spectrum.hooks.hook import CacheHook
from spectrum.hooks.scheduler import Mark, position
from spectrum.models.attached import attached, is_denoiser, named_denoisers, scheduler_of
from spectrum.models.toy_pipelines import toy_pipelines
from spectrum.models.toys import toy


def set_up(kind, steps=6, **settings):
    scheduler = kind(**settings)
    scheduler.set_timesteps(steps)
    return scheduler


@pytest.mark.parametrize(("settings", "start"), [({"skip_prk_steps": True}, 0), ({"skip_prk_steps": True}, 3), ({}, 0)])
def test_pndm_repeats_timesteps_and_is_followed_by_what_it_counts(settings, start):
    scheduler = set_up(PNDMScheduler, **settings)
    assert len(set(scheduler.timesteps.tolist())) < len(scheduler.timesteps)
    found, mark = [], None
    for now in scheduler.timesteps[start:]:
        for _ in range(2):  # two CFG branches
            mark = position(scheduler, now, mark)
            found.append(mark.step)
        scheduler.step(torch.zeros(1, 2), now, torch.zeros(1, 2))
    assert found == [index for index in range(start, len(scheduler.timesteps)) for _ in range(2)]


def test_where_nothing_says_where_a_run_begins_the_timestep_does():
    scheduler = set_up(DPMSolverMultistepScheduler)
    assert scheduler.begin_index is None and scheduler.step_index is None
    assert position(scheduler, scheduler.timesteps[2]).step == 2
    assert position(scheduler, scheduler.timesteps[2].float() / 1000).step == 2  # as flow models are given it
    assert position(scheduler, torch.tensor(12345)).step == 0 and position(scheduler).step == 0
    assert position(DPMSolverMultistepScheduler(), torch.tensor(900)).step == 0  # never set: 1000 timesteps are no run
    plain = set_up(FlowMatchEulerDiscreteScheduler, 1000)
    assert (
        plain.timesteps[-1] == 1.0 and position(plain, torch.tensor(1.0)).step == 0
    )  # the first sigma, not the last t
    flow = set_up(FlowMatchEulerDiscreteScheduler)
    tokens = torch.stack([torch.zeros(()), flow.timesteps[3], flow.timesteps[3]])  # a given frame has none of its own
    assert position(flow, tokens).step == 3
    assert position(flow, flow.timesteps[3].long()).step == 3  # as pipelines cut it off
    flow.set_begin_index(1)
    assert position(flow, flow.timesteps[3]).step == 1


def test_before_a_scheduler_steps_only_the_next_timestep_is_taken_for_a_step():
    scheduler = set_up(FlowMatchEulerDiscreteScheduler)  # copies of it step, one for each frame
    begun = position(scheduler, scheduler.timesteps[0])
    assert position(scheduler, scheduler.timesteps[0], begun).step == 0
    assert position(scheduler, scheduler.timesteps[1], begun).step == 1
    assert position(scheduler, scheduler.timesteps[2], begun).step == 0  # another loop's: refused as a second call
    alone = set_up(DDIMScheduler)
    with pytest.raises(
        SpectrumError, match="called at step 3 of the pipeline's DDIMScheduler after step 1: a loop with a"
    ):
        position(alone, alone.timesteps[3], Mark(1, None))
    with pytest.raises(SpectrumError, match="PNDMScheduler does not tell which step it is at"):
        position(PNDMScheduler(), torch.tensor(5))


def test_several_timesteps_and_repeated_ones_are_refused_where_only_they_tell_the_step():
    scheduler = set_up(DDIMScheduler)
    with pytest.raises(SpectrumError, match=r"called with several timesteps at once, \[833, 666\], and a caching"):
        position(scheduler, torch.tensor([833, 666]))
    jumping = SimpleNamespace(timesteps=torch.tensor([30, 20, 10, 20, 10]))
    assert position(jumping, torch.tensor(30)).step == 0
    assert position(jumping, torch.tensor(20), Mark(2, None)).step == 3
    with pytest.raises(SpectrumError, match="has the timestep 20 several times and no `step_index`"):
        position(jumping, torch.tensor(20), Mark(0, None))


def test_a_pipeline_that_swaps_its_schedulers_state_at_each_call_is_refused_at_the_third():
    model = Small()
    _, scheduler = put_on(model, method())
    expected = numbers(model(latents(1))[0])
    scheduler.step_index = 1
    scheduler.timesteps = scheduler.timesteps.clone()
    assert numbers(model(latents(1))[0]) == expected  # once may be a pipeline that copies its scheduler once
    scheduler.timesteps = scheduler.timesteps.clone()
    with pytest.raises(SpectrumError, match="gives its SimpleNamespace another state at every call, as Panorama"):
        model(latents(1))


@pytest.mark.parametrize("changed", ["other timesteps", "the first step", "a run of two calls", "a later step"])
def test_a_run_that_begins_in_the_middle_is_no_swapped_state(changed):
    model = Small()
    hook, scheduler = put_on(model, method(schedule=always))
    walk(model, scheduler, [1, 2] if changed == "a run of two calls" else [1])
    for _ in range(3):
        scheduler.timesteps = scheduler.timesteps.clone() + (changed == "other timesteps")
        scheduler.step_index = {"the first step": 0, "a later step": scheduler.step_index + 2}.get(changed, 1) % 4
        model(latents(3))
        if changed == "a run of two calls":
            scheduler.step_index = 2
            model(latents(3))
    assert hook.running


def two_denoisers():
    pipe = SimpleNamespace(transformer=Small(), transformer_2=Small(), scheduler=steps())
    return pipe, attached(pipe, method(), CacheHook, LAYOUT)


def test_two_denoisers_that_are_called_at_the_same_steps_each_keep_what_they_stored():
    pipe, hooks = two_denoisers()
    for _ in range(2):
        pipe.scheduler.timesteps = pipe.scheduler.timesteps.clone()
        for pipe.scheduler.step_index, values in enumerate([(1, 2), (3, 4)]):
            outputs = [pipe.transformer(latents(values[0])), pipe.transformer_2(latents(values[1]))]
            assert [numbers(output[0]) for output in outputs] == [1210.5, 2110.5]
        assert [hook.report()["branch 0"]["run_steps"] for hook in hooks] == [[0], [0]]


def test_of_two_experts_that_take_turns_the_first_frees_what_it_stored():
    pipe, (first, second) = two_denoisers()
    pipe.transformer(latents(1))
    pipe.scheduler.step_index = 1
    pipe.transformer_2(latents(1))
    assert second.running and not first.running
    pipe.scheduler.timesteps = pipe.scheduler.timesteps.clone()
    pipe.scheduler.step_index = 0
    pipe.transformer(latents(1))
    assert first.running and not second.running


def test_all_parts_of_a_pipeline_that_denoise_are_found_each_with_the_scheduler_of_its_name():
    names = ("unet", "prior_prior", "super_res_first", "vae")
    parts = {name: toy("prior").build() for name in names[:3]} | {"vae": nn.Identity()}
    schedulers = {name: steps() for name in ("scheduler", "prior_scheduler", "super_res_scheduler")}
    pipe = SimpleNamespace(**parts, **schedulers, components={**parts, **schedulers})
    assert [*named_denoisers(pipe)] == ["unet", "prior_prior", "super_res_first"]
    found = [scheduler_of(pipe, name) for name in named_denoisers(pipe)]
    assert found == [*schedulers.values()]


def test_a_vocoder_is_no_denoiser_and_a_layout_goes_where_it_fits():
    assert not is_denoiser(LTX2Vocoder(in_channels=8, hidden_channels=32, out_channels=2))
    pipe, _ = two_denoisers()
    pipe.transformer_2.layers, pipe.transformer_2.blocks = pipe.transformer_2.blocks, None
    for name in ("transformer", "transformer_2"):
        restore(SimpleNamespace(transformer=getattr(pipe, name)))
    first, second = attached(pipe, method(), CacheHook, LAYOUT)
    assert first.layout.stacks == LAYOUT.stacks and second.layout is None


def test_a_pipeline_that_makes_one_step_may_be_called_again_and_again():
    toy = toy_pipelines()["StableDiffusionXLImg2ImgPipeline"]
    pipe = toy.build()
    once = {**toy.arguments(pipe), "num_inference_steps": 2, "strength": 0.5}
    with torch.no_grad(), accelerate(pipe, "fora") as handle:
        for _ in range(4):
            pipe(**once)
            assert handle.report()["branch 0"]["run_steps"] == [1]
