"""Modular pipelines and guiders of diffusers: cached rightly, or refused with the reason; never uncached or wrong."""

import dataclasses
import pickle

import pytest
import torch
from diffusers import FluxAutoBlocks, FluxModularPipeline, FluxTransformer2DModel, LayerSkipConfig, apply_layer_skip

from spectrum import SpectrumError, accelerate, restore
from spectrum.bench.pipeline_probe import CHECKS, WORKS, probe_pipeline
from spectrum.hooks.private_api import hook_names
from spectrum.models import toy_pipelines as toys
from spectrum.models.attached import loaded_from
from spectrum.models.identity import EMBEDDED
from spectrum.models.toy_pipelines import missing_pipelines, toy_pipelines
from spectrum.models.watch import WatchedBlocks

MODULAR = {name: toy for name, toy in toy_pipelines().items() if toy.blocks}
REFUSED = {
    "EchoModularPipeline": "EchoModularPipeline has no scheduler that is known to step its transformer",
    "WanModularPipeline SmoothedEnergyGuidance for some steps": "it cannot be told which call was left out",
}
FIRST = (
    "Flux2KleinBaseModularPipeline SkipLayerGuidance for some steps", "QwenImageModularPipeline",
    "WanModularPipeline SkipLayerGuidance for some steps", "WanModularPipeline AutoGuidance with one prompt",
)  # fmt: skip
"""The toys of which each has something that no other one has; the rest run with `-m whole`."""


def tier(name):
    return pytest.param(name, marks=() if name in (*FIRST, *REFUSED) else pytest.mark.whole)


@pytest.mark.parametrize("name", [tier(name) for name in MODULAR])
def test_a_modular_pipeline_is_cached_rightly_or_refused(name):
    found = probe_pipeline(MODULAR[name])
    if name in REFUSED:
        assert REFUSED[name] in found.outcomes["always run"] and found.outcomes["taken off"] == WORKS
        assert not found.wrong, found.outcomes
    else:
        assert found.outcomes == dict.fromkeys(CHECKS, WORKS)


def with_guider(name, **guider):
    toy = MODULAR[name]
    return dataclasses.replace(toy, components={**toy.components, "guider": guider})


def sampled(toy, pipe):
    with torch.no_grad():
        return pipe(**toy.arguments(pipe))


SKIP = {"class": "SkipLayerGuidance", "skip_layer_config": {"indices": [0]}, "skip_layer_guidance_stop": 1.0}


def test_a_named_branch_whose_layers_change_in_mid_run_begins_anew():
    """Without CFG diffusers skips no layer, so from step 4 on this branch is another one."""
    toy = with_guider("LTXModularPipeline SkipLayerGuidance for some steps", **SKIP, stop=0.5)
    pipe = toy.build()
    with accelerate(pipe, "fora") as handle:
        sampled(toy, pipe)
        report = handle.report()
    steps = {name: [*own["run_steps"], *(one["step"] for one in own["skipped"])] for name, own in report.items()}
    assert {name: sorted(own) for name, own in steps.items()} == {
        "pred_cond": list(range(8)),
        "pred_uncond": [0, 1, 2, 3],
        "pred_cond_skip": [1, 2, 3],
        "pred_cond_skip from step 4": [4, 5, 6, 7],
    }


def test_a_refused_call_leaves_no_layers_of_a_guider_behind():
    toy = with_guider("WanModularPipeline SkipLayerGuidance", **SKIP)
    pipe = toy.build()
    plain = sampled(toy, pipe)
    accelerate(pipe, "seacache")
    with pytest.raises(SpectrumError, match=r"a guider skips its first layer.*: type a method of time alone"):
        sampled(toy, pipe)
    restore(pipe)
    assert torch.equal(plain, sampled(toy, pipe))


def test_a_refused_call_leaves_the_layers_that_were_skipped_before():
    toy = MODULAR["WanModularPipeline ClassifierFreeGuidance"]
    pipe = toy.build()
    apply_layer_skip(pipe.transformer, LayerSkipConfig([0], fqn="blocks"))
    with accelerate(pipe, "seacache"), pytest.raises(SpectrumError, match=r"did not pass through the module"):
        sampled(toy, pipe)
    assert hook_names(pipe.transformer.blocks[0]) == ["layer_skip_hook"]


def test_another_denoiser_is_seen_when_it_is_put_in_and_where_a_loop_begins():
    toy = MODULAR["FluxModularPipeline"]
    pipe, other = toy.build(), toy.build().transformer
    says = r"^FluxModularPipeline has another denoiser .* call restore\(pipe\) and accelerate\(pipe, ...\) again$"
    accelerate(pipe, "fora")
    with pytest.raises(SpectrumError, match=says):
        pipe.update_components(transformer=other)
    restore(pipe)
    accelerate(pipe, "fora")
    pipe.transformer = toy.build().transformer
    with pytest.raises(SpectrumError, match=says):
        sampled(toy, pipe)


def test_a_guider_and_a_scheduler_may_be_put_in_later():
    toy = MODULAR["WanModularPipeline"]
    pipe = toy.build()
    with accelerate(pipe, "fora") as handle:
        pipe.update_components(guider=type(pipe.guider)(enabled=False), scheduler=toy.build().scheduler)
        sampled(toy, pipe)
        assert list(handle.report()) == ["branch 0"]


def test_features_are_freed_where_a_call_ends():
    toy = MODULAR["FluxModularPipeline"]
    pipe = toy.build()
    handle = accelerate(pipe, "fora")
    sampled(toy, pipe)
    assert not handle.hooks[0].running and handle.report()["branch 0"]["run_steps"] == [0, 3, 7]


def test_pipelines_that_share_their_loops_have_each_its_own_method():
    """Blocks of diffusers hold their loops as objects that all blocks of a class have in common."""
    toy, pipes = MODULAR["FluxModularPipeline"], []
    for blocks in (FluxAutoBlocks(), FluxAutoBlocks()):
        for name in ("text_encoder", "vae_encoder", "decode"):
            del blocks.sub_blocks[name]
        pipe, parts = FluxModularPipeline(blocks=blocks), toy.build().components
        pipe.update_components(transformer=parts["transformer"], scheduler=parts["scheduler"])
        pipes.append((blocks.sub_blocks["denoise"], pipe))
    (first, one), (second, other) = pipes
    assert first.sub_blocks["denoise"] is second.sub_blocks["denoise"]
    with accelerate(one, "fora") as handle:
        for pipe in (one, other, one):
            sampled(toy, pipe)
        assert handle.report()["branch 0"]["run_steps"] == [0, 3, 7] and not handle.hooks[0].running


def test_nothing_is_left_on_a_modular_pipeline_and_copies_of_its_blocks_have_nothing():
    pipe = MODULAR["FluxModularPipeline"].build()
    before, blocks = dict(vars(pipe)), pipe.__dict__["_blocks"]
    handle = accelerate(pipe, "fora")
    watched = pipe.__dict__["_blocks"]
    assert type(watched) is WatchedBlocks and isinstance(watched, type(blocks)) and pipe.doc == blocks.doc
    watched.note = "of mine"
    assert repr(watched) == repr(blocks)
    for copy in (pipe.blocks, pickle.loads(pickle.dumps(watched))):
        assert type(copy) is type(blocks)
    handle.restore()
    assert vars(pipe) == before and pipe.__dict__["_blocks"] is blocks and blocks.note == "of mine"


def test_blocks_and_pipelines_without_their_parts_are_refused_with_what_to_type():
    blocks = FluxAutoBlocks()
    says = (
        r"^FluxAutoBlocks has no transformer .*: these are blocks; call accelerate on the pipeline that init_pipeline"
    )
    with pytest.raises(SpectrumError, match=says):
        accelerate(blocks, "fora")
    with pytest.raises(SpectrumError, match=r"^FluxModularPipeline .*: call load_components\(\) on it first$"):
        accelerate(blocks.init_pipeline(), "fora")


def embedded(*names):
    pipe = FluxAutoBlocks().init_pipeline(str(EMBEDDED))
    pipe.load_components(list(names) or None)
    return pipe


def test_the_weights_of_a_modular_pipeline_are_those_of_its_denoiser():
    pipe = embedded("transformer")
    assert loaded_from(pipe) == str(EMBEDDED)
    pipe.update_components(transformer=FluxTransformer2DModel(**pipe.transformer.config))
    assert loaded_from(pipe) == ""


@pytest.mark.whole
def test_what_is_kept_beside_the_weights_is_found_and_a_plan_of_another_pipeline_goes_by_force_alone():
    pipe = embedded("transformer", "scheduler")
    with accelerate(pipe, "teacache", runs=10) as handle:
        assert handle.method.fitted_steps == 50
    with pytest.raises(SpectrumError, match=r"for pipeline FluxPipeline, here FluxModularPipeline: .*force=True"):
        accelerate(pipe, "planned", runs=10)
    with accelerate(pipe, "planned", runs=10, force=True) as handle:
        assert len(handle.plan(50).runs) == 10


@pytest.mark.whole
def test_a_plan_is_fitted_on_a_modular_pipeline_that_decodes():
    pipe = embedded()
    with accelerate(pipe, "fora") as handle:
        plan = handle.fit(["a lemon", "a fish"], runs=3, steps=6, height=96, width=96)
        pipe(prompt="a lemon", num_inference_steps=6, height=96, width=96)
        assert handle.report()["branch 0"]["run_steps"] == list(plan.run_steps) and len(plan.run_steps) == 3


def test_a_plan_is_not_fitted_without_pictures():
    toy = MODULAR["FluxModularPipeline"]
    pipe = toy.build()
    call = {name: value[:1] for name, value in toy.arguments(pipe).items() if "embeds" in name}
    with accelerate(pipe, "fora") as handle, pytest.raises(SpectrumError, match=r"returns no pictures to fit on"):
        handle.fit(["w3", "w4"], runs=3, steps=6, height=32, width=32, **call)


def test_modular_pipelines_without_a_toy_are_listed(monkeypatch):
    assert not [name for names in missing_pipelines().values() for name in names if "Modular" in name]
    known = {name: toy for name, toy in toy_pipelines().items() if toy.cls != "FluxModularPipeline"}
    monkeypatch.setattr(toys, "toy_pipelines", lambda: known)
    assert missing_pipelines()["new: nobody has written one"] == ["FluxModularPipeline"]
