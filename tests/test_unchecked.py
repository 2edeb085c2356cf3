"""Cosmos's safety checker: none for drawn weights, the published one for all others."""

import pytest
import torch
from cases import subject_of
from diffusers.pipelines.cosmos import pipeline_cosmos2_text2image
from diffusers.utils import is_cosmos_guardrail_available

from spectrum.config.compose import compose
from spectrum.core.errors import SpectrumError
from spectrum.models.architectures import UNCHECKED, class_of
from spectrum.models.pipelines import load_pipeline
from spectrum.models.unchecked import UncheckedFrames

CHECKER = "CosmosSafetyChecker"


class Published:
    """Stands for what the package cosmos_guardrail has."""


@pytest.fixture
def config(tmp_path):
    """The config of a folder with Cosmos weights; schedulers stand for the parts that encode texts."""
    subject_of("cosmos2_image").pipe.save_pretrained(tmp_path)
    texts = [f"++model.parts.{name}={{class: DDIMScheduler, config: {{}}}}" for name in ("text_encoder", "tokenizer")]
    return compose(["model=cosmos2_image", f"model.weights={tmp_path}", *texts]).model


def test_drawn_weights_are_not_checked():
    frames = torch.rand(2, 3)
    checker = subject_of("cosmos2_image").pipe.safety_checker
    assert type(checker) is UncheckedFrames and checker.check_video_safety(frames) is frames


def test_weights_from_a_folder_get_the_published_checker(config, monkeypatch):
    assert config.architecture["components"]["safety_checker"] == {"class": "UncheckedFrames"}
    monkeypatch.setattr(pipeline_cosmos2_text2image, CHECKER, Published)
    assert type(load_pipeline(config, torch.device("cpu")).safety_checker) is Published


@pytest.mark.skipif(is_cosmos_guardrail_available(), reason="the published checker is here")
def test_without_the_published_checker_such_weights_are_refused(config):
    with pytest.raises(SpectrumError, match="cosmos_guardrail` is not installed"):
        load_pipeline(config, torch.device("cpu"))


@pytest.mark.parametrize("name", ["TypeVar", "Frames", "toys.Toy", "SpectrumError"])
def test_no_other_class_of_ours_can_be_named(name):
    assert class_of("UncheckedFrames", "diffusers", "transformers", UNCHECKED) is UncheckedFrames
    with pytest.raises(SpectrumError, match=f"there is no {name} in diffusers or transformers"):
        class_of(name, "diffusers", "transformers", UNCHECKED)
