"""Whole pipelines of diffusers at toy width: cached rightly, or refused with the reason; never uncached or wrong."""

import contextlib

import pytest
import torch

from spectrum import SpectrumError, accelerate
from spectrum.bench.pipeline_probe import CHECKS, WORKS, PipelineFinding, probe_pipeline
from spectrum.commands.probe_pipelines import chosen, page
from spectrum.config.reader import choices
from spectrum.hooks import exit_site, hook
from spectrum.models import attached
from spectrum.models.toy_pipelines import NO_TOY, missing_pipelines, toy_pipelines

MAPS = "the pipeline reads the attention maps that {} keeps in UNet2DConditionModel"
WAYS = "so its CFG branches cannot be told apart: what it is conditioned on changes from step to step"
UNKNOWN = "{} does not tell which step it is at"
REFUSED = {
    "AmusedImg2ImgPipeline": UNKNOWN.format("AmusedScheduler"),
    "AmusedPipeline": UNKNOWN.format("AmusedScheduler"),
    "KarrasVePipeline": UNKNOWN.format("KarrasVeScheduler"),
    "RePaintPipeline": "RePaintScheduler has the timestep 750 several times",
    "ScoreSdeVePipeline": UNKNOWN.format("ScoreSdeVeScheduler"),
    "SkyReelsV2DiffusionForcingPipeline staggered": "frames with timesteps of their own as with ar_step=5",
    "StableDiffusionAttendAndExcitePipeline": MAPS.format("AttendExciteAttnProcessor"),
    "StableDiffusionPanoramaPipeline": "another state at every call, as Panorama does",
    "StableDiffusionParadigmsPipeline": "is called with several timesteps at once",
    "StableDiffusionPix2PixZeroPipeline": MAPS.format("Pix2PixZeroAttnProcessor"),
    "StableDiffusionSAGPipeline": MAPS.format("CrossAttnStoreProcessor"),
    "UniDiffuserPipeline": WAYS,
    "UniDiffuserPipeline without guidance": WAYS,
}
ODD = (
    "FluxPipeline true CFG", "FluxControlNetInpaintPipeline", "Flux2KleinKVPipeline pictures", "VisualClozePipeline",
    "GlmImagePipeline picture", "StableDiffusion3Pipeline skip-layer guidance", "ZImageControlNetPipeline",
    "StableDiffusionPipeline", "StableDiffusionPipeline PNDM with Runge-Kutta", "StableDiffusionPipeline Heun",
    "StableDiffusionImg2ImgPipeline", "WanVideoToVideoPipeline", "WanPipeline two experts", "AnyFlowFARPipeline",
    "LTX2Pipeline 2.3 with all guidance", "StableCascadeCombinedPipeline", "WuerstchenDecoderPipeline",
    "VersatileDiffusionTextToImagePipeline", "TextToVideoZeroSDXLPipeline", "LongCatAudioDiTPipeline",
    "SkyReelsV2DiffusionForcingPipeline long", "AceStepPipeline",
)  # fmt: skip
"""The toys of which each has something that no other one has; the rest run with `-m whole`."""


def tier(name):
    return pytest.param(name, marks=() if name in (*ODD, *REFUSED) else pytest.mark.whole)


@pytest.mark.parametrize("name", [tier(name) for name, toy in toy_pipelines().items() if not toy.blocks])
def test_a_pipeline_is_cached_rightly_or_refused(name):
    found = probe_pipeline(toy_pipelines()[name])
    if name in REFUSED:
        assert REFUSED[name] in found.outcomes["always run"] and found.outcomes["taken off"] == WORKS
        assert not found.wrong, found.outcomes
    else:
        assert found.outcomes == dict.fromkeys(CHECKS, WORKS)


def outcomes(name):
    return probe_pipeline(toy_pipelines()[name]).outcomes


def test_a_denoiser_that_is_left_out_is_seen(monkeypatch):
    monkeypatch.setattr(attached, "is_denoiser", lambda part: False)
    assert outcomes("Ideogram4Pipeline")["always run"] == ("WRONG: of 8 calls of unconditional_transformer 0 were seen")


def test_branches_that_are_taken_for_one_are_seen(monkeypatch):
    monkeypatch.setattr(hook, "find_branch", lambda trajectory, who, step: next(iter(trajectory.branches), None))
    found = outcomes("FluxPipeline true CFG")
    assert found["always run"] == WORKS and found["branches"].startswith(
        "WRONG: not as by the order of calls: output 0"
    )


def test_blocks_that_are_called_at_a_skipped_step_are_seen(monkeypatch):
    monkeypatch.setattr(exit_site, "in_place_of_stacks", lambda stand_ins: contextlib.nullcontext())
    monkeypatch.setattr(hook, "proved", lambda site, model, layout, call, result, whole: result)
    found = outcomes("FluxPipeline")
    assert found["features"] == "WRONG: call 2 of transformer is skipped, and transformer_blocks.0 is called"


def test_features_that_are_not_put_back_where_they_were_are_seen(monkeypatch):
    monkeypatch.setattr(exit_site.ExitSite, "_replaced", lambda self, slot, value: self._replacements[slot] + 1)
    monkeypatch.setattr(hook, "proved", lambda site, model, layout, call, result, whole: result)
    assert outcomes("FluxPipeline")["features"].startswith("WRONG: output 0")


def test_a_hook_that_stays_on_is_seen(monkeypatch):
    monkeypatch.setattr(hook, "detach", lambda model: None)
    assert outcomes("FluxPipeline")["taken off"] == "WRONG: the pipeline is not as it was"


def test_a_toy_is_chosen_by_its_name_its_class_or_its_family():
    assert [toy.name for toy in chosen("FluxPipeline,chroma")][:2] == ["ChromaPipeline", "ChromaPipeline without CFG"]
    assert {toy.cls for toy in chosen("FluxPipeline")} == {"FluxPipeline"} and len(chosen("FluxPipeline")) > 1
    assert len(chosen("all")) == len(toy_pipelines())
    with pytest.raises(SpectrumError, match=r"^pipelines=nonsense: type all, a pipeline's class, or any of amused"):
        chosen("flux,nonsense")


def test_the_page_has_a_row_for_each_and_numbers_the_reasons():
    toys = chosen("FluxPipeline true CFG,FluxPipeline schnell,FluxFillPipeline")
    works = PipelineFinding("FluxPipeline true CFG", ("FluxTransformer2DModel",), 16, 2, dict.fromkeys(CHECKS, WORKS))
    refused = PipelineFinding("schnell", outcomes={**dict.fromkeys(CHECKS, "too odd"), "taken off": WORKS})
    wrong = PipelineFinding("fill", outcomes={"always run": "WRONG: a|b"})
    text = page(list(zip(toys, (works, refused, wrong), strict=True)))
    assert (
        "| `FluxPipeline true CFG` | flux | FluxTransformer2DModel | 16 | 2 | works | works | works | works |" in text
    )
    assert "| `schnell` | flux |  |  |  | refused (1) | refused (1) | refused (1) | works |" in text
    assert "WRONG: a/b" in text and "\n1. too odd\n" in text
    assert "1 of 3 toys, of 2 pipeline classes, pass every check. 1 are wrong." in text


def test_every_pipeline_has_a_toy_or_a_reason():
    known = toy_pipelines().values()
    assert len({toy.cls for toy in known}) >= 250
    assert set(missing_pipelines()) <= {*NO_TOY, "deprecated by diffusers"}


def test_files_are_data_of_known_words():
    for toy in toy_pipelines().values():
        assert toy.call and toy.components and toy.family in choices("pipeline")


def test_denoisers_of_one_step_have_branches_of_their_own_in_the_report():
    toy = toy_pipelines()["Ideogram4Pipeline"]
    pipe = toy.build()
    with torch.no_grad(), accelerate(pipe, "fora") as handle:
        pipe(**toy.arguments(pipe))
        report = handle.report()
    assert set(report) == {"branch 0", "unconditional_transformer: branch 0"}
    for branch in report.values():
        steps = [*branch["run_steps"], *(entry["step"] for entry in branch["skipped"])]
        assert sorted(steps) == list(range(8)) and branch["skipped"]
