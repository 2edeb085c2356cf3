"""Denoisers whose weights are quantised, fused or cast: every kind of method works on them, with its proof."""

import pytest
import torch
from cases import Subject, method_of, runs_of

from spectrum.api import Accelerated
from spectrum.bench.probe import probe_model
from spectrum.models.toys import toy

SPECTRUM = [0, 1, 2, 3, 4, 6, 8]


def torchao(model, folder):
    pytest.importorskip("torchao")
    from diffusers import TorchAoConfig
    from torchao.quantization import Int8WeightOnlyConfig

    model.save_pretrained(folder)
    config = TorchAoConfig(Int8WeightOnlyConfig())
    found = type(model).from_pretrained(folder, quantization_config=config, torch_dtype=torch.float32)
    assert type(found.transformer_blocks[0].attn.to_q.weight).__name__ == "Int8Tensor"
    return found


def gguf_file(model, folder):
    gguf = pytest.importorskip("gguf")
    from diffusers import GGUFQuantizationConfig

    model.save_config(folder)
    writer = gguf.GGUFWriter(folder / "model.gguf", "flux")
    for name, value in model.state_dict().items():
        kind = gguf.GGMLQuantizationType.Q8_0 if value.ndim == 2 and value.shape[1] % 32 == 0 else None
        data = value.numpy() if kind is None else gguf.quants.quantize(value.numpy(), kind)
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    config = GGUFQuantizationConfig(compute_dtype=torch.float32)
    found = type(model).from_single_file(
        str(folder / "model.gguf"), quantization_config=config, config=str(folder), torch_dtype=torch.float32
    )
    assert type(found.transformer_blocks[0].attn.to_q).__name__ == "GGUFLinear"
    return found


def fused(model, folder):
    model.fuse_qkv_projections()
    return model


def cast(model, folder):
    model.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    return model


@pytest.fixture(params=[torchao, gguf_file, fused, cast])
def changed(request, tmp_path):
    """What changes a FLUX denoiser."""
    return lambda model: request.param(model, tmp_path)


def test_every_kind_of_method_works_with_the_layout_found_and_proved(changed):
    one = toy("flux")
    found = probe_model(one, changed(one.build()))
    assert set(found.outcomes.values()) == {"works"}, found.outcomes


def test_in_a_pipeline_the_same_steps_run_as_without(changed):
    subject = Subject("flux")
    subject.pipe.transformer = changed(subject.pipe.transformer)
    plain = subject.sample()
    with Accelerated(subject.pipe, method_of("spectrum", "schedule=always")):
        assert torch.equal(subject.sample(), plain)
    with Accelerated(subject.pipe, method_of("spectrum")) as handle:
        image = subject.sample()
        assert runs_of(handle) == [SPECTRUM] and torch.isfinite(image).all() and not torch.equal(image, plain)
    assert torch.equal(subject.sample(), plain)
