"""Weights are told by their values, wherever they were loaded from; a plan of others is refused."""

import dataclasses

import diffusers
import pytest
import torch
from test_plan_file import PLAN, SETTING

from spectrum import accelerate
from spectrum.core.errors import SpectrumError
from spectrum.models.fingerprint import fingerprint
from spectrum.models.identity import EMBEDDED
from spectrum.models.pipeline_plans import setting_of_pipeline
from spectrum.records.plan_file import differences, write_plan


@pytest.fixture(scope="module")
def pipe():
    return diffusers.FluxPipeline.from_pretrained(EMBEDDED)


def test_the_same_weights_have_one_fingerprint_in_two_dtypes_and_others_have_another(pipe):
    own = fingerprint(pipe.transformer)
    half = diffusers.FluxTransformer2DModel.from_pretrained(EMBEDDED / "transformer", torch_dtype=torch.bfloat16)
    assert own == fingerprint(half) and len(own) == 64
    with torch.no_grad():
        next(half.parameters()).view(-1)[0] += 1
    assert fingerprint(half) != own
    assert fingerprint(torch.nn.Linear(2, 2, device="meta")) is None
    one, other = torch.nn.Module(), torch.nn.Module()
    one.w, other.w = torch.nn.Parameter(torch.ones(2, 3)), torch.nn.Parameter(torch.ones(3, 2))
    assert fingerprint(one) != fingerprint(other)
    assert fingerprint(one.half()) is None, "float16 is rounded otherwise"


def test_lora_layers_beside_the_weights_are_left_out():
    plain = torch.nn.Sequential(torch.nn.Linear(3, 3))
    adapted = torch.nn.Sequential(torch.nn.Module())
    adapted[0].base_layer = plain[0]
    adapted[0].lora_A = torch.nn.Linear(3, 1)
    assert fingerprint(plain) == fingerprint(adapted)


def test_a_plan_of_other_weights_is_refused_without_a_folder_to_tell_them_by(pipe, tmp_path):
    pipe.register_to_config(_name_or_path="someone/a-model")
    here = setting_of_pipeline(pipe, 8)
    assert here.model is None and here.weights == fingerprint(pipe.transformer)
    made_for = dataclasses.replace(here, sigmas=[1.0] * 8)
    write_plan(tmp_path / "own.json", dataclasses.replace(PLAN, setting=made_for))
    accelerate(pipe, "planned", plan=tmp_path / "own.json").restore()
    other = dataclasses.replace(made_for, weights="0" * 64)
    write_plan(tmp_path / "other.json", dataclasses.replace(PLAN, setting=other))
    with pytest.raises(SpectrumError, match="was made for weights 000000000000, here "):
        accelerate(pipe, "planned", plan=tmp_path / "other.json")
    accelerate(pipe, "planned", plan=tmp_path / "other.json", force=True).restore()


def test_fingerprints_count_where_both_are_known_and_names_elsewhere():
    one = dataclasses.replace(SETTING, weights="1" * 64)
    renamed = dataclasses.replace(one, model="hub@main")
    assert not differences(one, renamed), "the same weights under another name"
    assert differences(one, dataclasses.replace(renamed, weights=None)) == ["model aaaaaaaaaaaa, here hub@main"]
