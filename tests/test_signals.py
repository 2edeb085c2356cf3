"""The signals of data-dependent methods are the tensors that their authors name; the layout of the tokens."""

import dataclasses
import functools
import inspect
import math
import types

import pytest
import torch
from cases import subject_of
from families import CORE
from toys import flux_transformer

from spectrum.api import denoisers
from spectrum.core.errors import SpectrumError
from spectrum.core.grid import check_grid
from spectrum.core.method import Signal
from spectrum.hooks import scheduler as schedulers
from spectrum.hooks.layout import Denoiser
from spectrum.hooks.signals import signal_reader, token_grid
from spectrum.models.layouts import registered_layout


def signal_at_the_first_call(subject, signal):
    """The signal in the first call of a denoiser, that call's arguments, and how far the denoiser went for it."""
    model, found = denoisers(subject.pipe)[0], {}

    def read_once(module, args, kwargs):
        if found:
            return
        forward = functools.partial(type(model).forward, model)
        calls = []
        first = getattr(model, registered_layout(model).with_stacks(model).stacks[0])
        handles = [part.register_forward_pre_hook(lambda *a: calls.append(None)) for part in first]
        inputs = inspect.signature(forward).bind(*args, **kwargs).arguments
        read = signal_reader(signal, model, registered_layout(model).with_stacks(model))
        found["value"] = read(inputs, functools.partial(forward, *args, **kwargs))
        for handle in handles:
            handle.remove()
        found["calls"], found["inputs"] = calls, inputs

    handle = model.register_forward_pre_hook(read_once, with_kwargs=True)
    subject.sample()
    handle.remove()
    return model, found["inputs"], found["value"], found["calls"]


def test_of_flux_it_is_the_modulated_input_of_the_first_block():
    model, given, value, calls = signal_at_the_first_call(subject_of("flux"), Signal.teacache)
    with torch.no_grad():
        embedding = model.time_text_embed(
            given["timestep"] * 1000, given["guidance"] * 1000, given["pooled_projections"]
        )
        expected = model.transformer_blocks[0].norm1(model.x_embedder(given["hidden_states"]), emb=embedding)[0]
    assert torch.equal(value, expected) and not calls


def test_of_ltx_it_is_the_input_scaled_and_shifted():
    model, given, value, calls = signal_at_the_first_call(subject_of("ltx_video"), Signal.teacache)
    block = model.transformer_blocks[0]
    with torch.no_grad():
        hidden = model.proj_in(given["hidden_states"])
        embedding, _ = model.time_embed(given["timestep"].flatten(), batch_size=len(hidden), hidden_dtype=hidden.dtype)
        shift, scale = (block.scale_shift_table + embedding.view(len(hidden), -1, 6, hidden.shape[-1])).unbind(2)[:2]
        expected = block.norm1(hidden) * (1 + scale) + shift
    assert torch.equal(value, expected) and not calls


@pytest.mark.parametrize("name", ["wan21_14b", "cogvideox_5b", "hidream"])
def test_teacache_watches_the_timestep_where_its_authors_do_and_seacache_the_tokens(name):
    _, _, signal, calls = signal_at_the_first_call(subject_of(name), Signal.teacache)
    _, _, modulated, _ = signal_at_the_first_call(subject_of(name), Signal.modulated_input)
    assert signal.ndim == 2 and modulated.ndim == 3 and not calls


@pytest.mark.parametrize(
    "name", sorted({*CORE, "hidream", "ltx_video", "sana"} - {"sdxl", "sd15", "z_image", "lumina2"})
)
def test_the_grid_is_that_of_the_tokens(name):
    model, given, modulated, calls = signal_at_the_first_call(subject_of(name), Signal.modulated_input)
    assert check_grid(modulated.shape[1], token_grid(model, given), name) and not calls


def test_nothing_is_left_where_the_forward_was_broken_off():
    subject = subject_of("flux")
    hooks = [len(part._forward_pre_hooks) for part in subject.pipe.transformer.modules()]
    signal_at_the_first_call(subject, Signal.modulated_input)
    assert [len(part._forward_pre_hooks) for part in subject.pipe.transformer.modules()] == hooks
    assert type(subject.pipe.transformer.transformer_blocks) is torch.nn.ModuleList
    assert torch.equal(subject.sample(), subject.plain)


def test_a_grid_that_is_not_of_all_tokens_is_refused():
    assert check_grid(12, (3, 4), "x") == (3, 4)
    with pytest.raises(SpectrumError, match="21 tokens here are not those of 4x4 alone"):
        check_grid(21, (4, 4), "x")
    with pytest.raises(SpectrumError, match="does not tell"):
        check_grid(21, None, "x")


def test_the_levels_of_a_schedule_that_begins_in_pure_noise():
    kept = torch.tensor([0.0, 0.25, 0.9])
    scheduler = types.SimpleNamespace(
        alphas_cumprod=kept, timesteps=torch.arange(3), config=types.SimpleNamespace(num_train_timesteps=3)
    )
    found = schedulers.levels(scheduler)
    for (picture, noise), share in zip(found, kept.tolist(), strict=True):
        assert math.isclose(picture, share**0.5, abs_tol=1e-6) and math.isclose(noise, (1 - share) ** 0.5, abs_tol=1e-6)


def test_a_signal_of_the_latents_runs_nothing():
    latents = torch.ones(1, 2)
    for signal in (Signal.latents, Signal.front_residual):
        read = signal_reader(signal, torch.nn.Linear(1, 1), Denoiser(exit="x"))
        assert read({"self": None, "x": latents, "t": 3}, lambda: pytest.fail("the denoiser ran")) is latents


def test_a_denoiser_without_attention_and_a_forward_that_goes_elsewhere_are_refused():
    model = flux_transformer()
    layout = registered_layout(model).with_stacks(model)
    for signal in (Signal.modulated_input, Signal.teacache):
        for other in (layout, dataclasses.replace(layout, signal="norm_out")):
            read = signal_reader(signal, model, other)
            with pytest.raises(SpectrumError, match=r"^FluxTransformer2DModel did not pass through the module that"):
                read({}, lambda: None)
    bare = torch.nn.Sequential(torch.nn.ModuleList([torch.nn.Linear(1, 1)]))
    says = (
        "^the first block of Sequential has no attention whose input could be read: type a method of time alone, for "
        "example method=spectrum$"
    )
    with pytest.raises(SpectrumError, match=says):
        signal_reader(Signal.modulated_input, bare, Denoiser(exit="0", stacks=("0",)))
