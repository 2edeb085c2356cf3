"""What was silent or confusing at the edges: other caches, copies, replaced modules, own loops, more branches."""

import copy
import pickle

import diffusers
import pytest
import torch
from cases import Subject, runs_of, subject_of
from diffusers.pipelines.deprecated.wuerstchen.modeling_paella_vq_model import PaellaVQModel
from small import Small, latents, method, numbers, put_on, steps
from torch import nn

from spectrum import SpectrumError, accelerate, restore
from spectrum.models.toys import toy


def fresh(name="flux"):
    return Subject(name)


def test_another_cache_on_the_same_denoiser_is_refused_in_either_order():
    subject = fresh()
    model = subject.pipe.transformer
    model.enable_cache(diffusers.FasterCacheConfig(current_timestep_callback=lambda: 0))
    with pytest.raises(
        SpectrumError, match=r"^a cache of diffusers is enabled on FluxTransformer2DModel, and spectrum"
    ):
        accelerate(subject.pipe, "spectrum")
    model.disable_cache()
    with accelerate(subject.pipe, "spectrum"):
        subject.sample()
        model.enable_cache(diffusers.FasterCacheConfig(current_timestep_callback=lambda: 0))
        with pytest.raises(SpectrumError, match=r"^a cache of diffusers is enabled"):
            subject.sample()
        model.disable_cache()
        subject.sample()


def test_a_cache_that_a_function_of_diffusers_applied_is_refused_too():
    subject = fresh()
    diffusers.hooks.apply_first_block_cache(subject.pipe.transformer, diffusers.FirstBlockCacheConfig(threshold=0.1))
    with pytest.raises(SpectrumError, match=r"^a cache of diffusers is enabled on FluxTransformer2DModel"):
        accelerate(subject.pipe, "spectrum")


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@pytest.mark.parametrize("name", ["spectrum", "taylorseer_modules"])
def test_a_copy_of_a_hooked_denoiser_is_bare_and_independent(copied, name):
    subject = fresh()
    model = subject.pipe.transformer
    with accelerate(subject.pipe, name) as handle:
        first = subject.sample()
        other = copied(model)
        assert type(other).forward is type(model).forward and "forward" not in vars(other)
        assert not any(part._forward_pre_hooks or part._forward_hooks for part in other.modules())
        assert not other._diffusers_hook.hooks and "__deepcopy__" not in vars(other)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.zero_()
        assert torch.equal(subject.sample(), first) and handle.hooks[0].model is model
    assert "__deepcopy__" not in vars(model) and "__reduce_ex__" not in vars(model)
    assert torch.equal(subject.sample(), subject.plain)


def test_a_copy_of_a_pipeline_has_no_method_on_it():
    subject = fresh()
    with accelerate(subject.pipe, "spectrum"):
        other = copy.deepcopy(subject.pipe)
        with accelerate(other, "taylorseer") as second:
            assert second.hooks[0].model is other.transformer is not subject.pipe.transformer
            twin = copy.copy(subject)
            twin.pipe = other
            assert twin.sample() is not None and second.report()
            other.transformer = copy.deepcopy(other.transformer)
            subject.sample()
            with pytest.raises(SpectrumError, match="has another denoiser"):
                twin.sample()
        pickled = pickle.loads(pickle.dumps(subject.pipe))
        assert pickled.progress_bar.__func__ is type(pickled).progress_bar and pickled.progress_bar.__self__ is pickled


def test_a_denoiser_that_was_swapped_is_said():
    subject = fresh()
    handle = accelerate(subject.pipe, "spectrum")
    subject.sample()
    assert handle.report()
    first = subject.pipe.transformer
    subject.pipe.transformer = copy.deepcopy(first)
    for run in (handle.report, subject.sample):
        with pytest.raises(SpectrumError, match=r"^FluxPipeline has another denoiser than the one that spectrum "):
            run()
    restore(subject.pipe)
    assert "forward" not in vars(first) and "progress_bar" not in vars(subject.pipe)
    assert torch.equal(subject.sample(), subject.plain)


class Wrapped(nn.Module):
    """An adapter around a module, as peft puts one in its place: both are given the same input."""

    def __init__(self, base):
        super().__init__()
        self.base_layer = base

    def forward(self, x):
        return self.base_layer(x) + 1000 * x


def test_an_exit_that_is_wrapped_afterwards_is_found_again():
    model = Small()
    hook, scheduler = put_on(model, method())
    for scheduler.step_index in range(2):
        model(latents(1))
    model.norm_out = Wrapped(model.norm_out)
    scheduler = steps()
    hook._scheduler = lambda: scheduler
    found = []
    for scheduler.step_index in range(2):
        found.append(numbers(model(latents(scheduler.step_index + 1))[0]))
    assert found == [1210 * 1001 + 0.5] * 2


def test_a_loop_with_gradients_stores_no_graph():
    model = Small()
    hook, scheduler = put_on(model, method())
    x = 1 * latents(1).requires_grad_()  # as the sampler's own steps make it, of weights that want gradients
    for scheduler.step_index in range(2):
        model(x)
    (branch,) = hook._trajectory.branches
    assert not any(feature.requires_grad for history in branch.histories.values() for feature in history.features)


def test_gradients_that_are_asked_for_are_refused_since_a_skipped_step_has_none():
    model = Small()
    put_on(model, method())
    with pytest.raises(
        SpectrumError, match=r"^gradients are taken through Small to its latents, and a skipped step has"
    ):
        model(latents(1).requires_grad_())
    with torch.no_grad():
        assert model(latents(1).requires_grad_()) is not None


def test_skip_layer_guidance_is_a_branch_of_its_own():
    subject = fresh("sd35")
    call = {**subject.config.model.call, "skip_guidance_layers": [1], "skip_layer_guidance_start": 0.0}
    call |= {"skip_layer_guidance_stop": 1.0, "skip_layer_guidance_scale": 2.8}
    plain = subject.sample(call=call)
    assert not torch.equal(plain, subject.plain)
    with accelerate(subject.pipe, "spectrum", "schedule=always"):
        assert torch.equal(subject.sample(call=call), plain)
    with accelerate(subject.pipe, "spectrum") as handle:
        subject.sample(call=call)
        assert len(handle.report()) == 2 and all(len(runs) < 10 for runs in runs_of(handle))


def test_a_second_pipeline_on_the_same_transformer_with_its_own_scheduler_is_refused():
    subject = fresh()
    parts = {**subject.pipe.components, "scheduler": copy.deepcopy(subject.pipe.scheduler)}
    other = type(subject.pipe)(**parts)
    other.set_progress_bar_config(disable=True)
    whole = subject.pipe
    with accelerate(whole, "spectrum") as handle:
        expected = subject.sample()
        subject.pipe = other
        with pytest.raises(SpectrumError, match=r"was called at step 10 of a scheduler that has 10: another pipeline"):
            subject.sample()
        subject.pipe = whole
        assert torch.equal(subject.sample(), expected) and handle.report()


def test_nothing_has_to_be_registered(monkeypatch):
    from spectrum.models import layouts

    subject = subject_of("flux")
    with accelerate(subject.pipe, "spectrum") as handle:
        expected = subject.sample()
        known = handle.layout
    monkeypatch.setattr(layouts, "DENOISERS", {})
    with accelerate(subject.pipe, "spectrum") as handle:
        assert handle.layout is None
        assert torch.equal(subject.sample(), expected)
        assert handle.layout.stacks == known.stacks and str(handle.layout.exits[0]) == "norm_out"
        assert len(handle.report()) == 1


def stable_cascade():
    """Stable Cascade's decoder stage at toy width: it calls its denoiser `decoder`."""
    pipe = diffusers.StableCascadeDecoderPipeline(
        decoder=toy("stable_cascade_decoder").build(),
        tokenizer=None,
        text_encoder=None,
        scheduler=diffusers.DDPMWuerstchenScheduler(),
        vqgan=PaellaVQModel(levels=1, bottleneck_blocks=1, num_vq_embeddings=4),
    )
    pipe.set_progress_bar_config(disable=True)
    draw = torch.Generator().manual_seed(0)
    given = {"image_embeddings": torch.randn(1, 4, 3, 3, generator=draw), "prompt": None}
    given |= {"prompt_embeds": torch.randn(1, 5, 20, generator=draw)}
    given |= {"prompt_embeds_pooled": torch.randn(1, 1, 20, generator=draw)}

    def sample():
        generator = torch.Generator().manual_seed(0)
        return pipe(**given, num_inference_steps=8, generator=generator, output_type="latent").images

    return pipe, sample


def test_a_denoiser_under_another_name_and_a_scheduler_without_a_step_index_are_served():
    pipe, sample = stable_cascade()
    plain = sample()
    with accelerate(pipe, "taylorseer", "schedule=always"):
        assert torch.equal(sample(), plain)
    with accelerate(pipe, "taylorseer", schedule=[0, 1, 3, 6]) as handle:
        assert not torch.equal(sample(), plain)
        assert runs_of(handle) == [[0, 1, 3, 6]] and handle.hooks[0].model is pipe.decoder
    assert torch.equal(sample(), plain)


def test_a_pipeline_without_a_denoiser_or_without_its_scheduler_is_refused():
    pipe, sample = stable_cascade()
    with accelerate(pipe, "taylorseer", schedule=[0, 1, 3, 6]):
        pipe.scheduler = None
        with pytest.raises(
            SpectrumError, match=r"^StableCascadeDecoderPipeline has no scheduler that is known to step"
        ):
            pipe.decoder(**toy("stable_cascade_decoder").call(0))
    pipe.decoder = None
    with pytest.raises(SpectrumError, match=r"^StableCascadeDecoderPipeline has no transformer or unet to put"):
        accelerate(pipe, "taylorseer")
    assert sample
