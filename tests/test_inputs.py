"""What a pipeline is given beside prompts: pictures, videos and masks, and pipelines that take one sample a call."""

import dataclasses

import numpy as np
import pytest
from cases import PROMPTS, subject_of
from command import call, error_line

from spectrum.bench.sampling import call_arguments, check_arguments
from spectrum.config.compose import compose
from spectrum.config.sampling import Sampling
from spectrum.core.errors import SpectrumError
from spectrum.models.inputs import prompt_inputs


def sampling_of(model, *words):
    return Sampling.of(compose([f"model={model}", "model.weights=tiny", *words]))


def test_a_video_and_its_mask_have_the_size_and_the_frames_of_the_sample():
    subject = subject_of("wan_vace")
    found = call_arguments(subject.pipe, PROMPTS[:1], sampling_of("wan_vace", "model.height=48", "model.frames=9"))
    assert len(found["video"]) == len(found["mask"]) == 9
    assert {picture.size for picture in (*found["video"], *found["mask"])} == {(32, 48)}
    mask = np.asarray(found["mask"][0])
    assert mask[:24].max() == 0 and mask[24:].min() == 255 and found["num_frames"] == 9
    assert np.asarray(found["video"][0]).std() > 0


def test_the_prompt_draws_the_video():
    subject, sampling = subject_of("wan_animate"), sampling_of("wan_animate")
    one, same, other = (
        np.asarray(call_arguments(subject.pipe, [sample], sampling)["pose_video"][0])
        for sample in (PROMPTS[0], PROMPTS[0], PROMPTS[1])
    )
    assert (one == same).all() and (one != other).any()


def test_with_published_weights_the_prompt_is_one_text_and_the_video_is_given_all_the_same():
    sampling = Sampling.of(compose(["model=wan_vace"]))
    assert set(sampling.embeds) == {"video", "mask"}
    small = dataclasses.replace(sampling, height=32, width=32, frames=5)
    found = call_arguments(subject_of("wan_vace").pipe, PROMPTS[:1], small)
    assert found["prompt"] == PROMPTS[0].prompt and isinstance(found["negative_prompt"], str)
    assert len(found["video"]) == 5 and "prompt_embeds" not in found


@pytest.mark.parametrize("model", ["wan_vace", "wan_animate"])
def test_a_pipeline_of_one_sample_a_call_says_so(model, capsys):
    assert compose([f"model={model}", "model.weights=tiny"]).batch == compose([f"model={model}"]).batch == 1
    said = error_line(call("run", f"model={model}", "model.weights=tiny", "batch=2", capsys=capsys))
    assert "batch=2: " in said and "takes one sample a call: type batch=1" in said
    subject = subject_of(model)
    with pytest.raises(SpectrumError, match="takes one sample a call: type batch=1"):
        prompt_inputs(subject.pipe, Sampling.of(subject.config).embeds, ["a cat", "two pears"])


def test_frames_that_are_not_set_are_asked_for():
    subject = subject_of("wan_animate")
    with pytest.raises(SpectrumError, match=r"model\.frames is not set"):
        call_arguments(subject.pipe, PROMPTS[:1], sampling_of("wan_animate", "model.frames=null"))


def test_frames_of_a_pipeline_of_pictures_are_refused():
    check_arguments(subject_of("wan_animate").pipe, sampling_of("wan_animate"))
    with pytest.raises(SpectrumError, match="FluxPipeline makes pictures; take it out"):
        check_arguments(subject_of("flux").pipe, sampling_of("flux", "model.frames=5"))
