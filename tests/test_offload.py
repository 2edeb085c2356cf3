"""`offload=`: what it refuses, that pictures are the same bits with it, and that a record says so."""

import pytest
import torch
from command import QUICK, call, error_line

from eval.timing import hardware_text
from spectrum import SpectrumError
from spectrum.api import Accelerated
from spectrum.bench.identity import settings_id
from spectrum.bench.job import Job
from spectrum.bench.prompts import Sample
from spectrum.bench.provenance import environment, hardware
from spectrum.bench.sampling import sample_batch
from spectrum.bench.timing import Side, time_call
from spectrum.config.compose import compose
from spectrum.config.sampling import Sampling
from spectrum.models.architectures import randomise
from spectrum.models.offload import networks, part_of, placed
from spectrum.models.pieces import in_pieces
from spectrum.models.pipelines import load_pipeline
from spectrum.records.record import read_record

CPU = torch.device("cpu")
BATCH = [Sample(0, "a cat", 0), Sample(1, "two pears", 1)]
WAYS = ["model", "group"]


def job(*words):
    return Job.of(compose(["method=spectrum", "model.steps=7", "batch=2", *words]))


@pytest.mark.parametrize("words", [[], ["model=tiny_unet"], ["model=sd35", "model.weights=tiny"]])
@pytest.mark.parametrize("way", WAYS)
def test_pictures_of_an_offloaded_pipeline_are_the_same_bits(way, words):
    made = job(*words)
    sampling = Sampling.of(made.config)
    plain = load_pipeline(made.config.model, CPU)
    expected = sample_batch(plain, BATCH, sampling)
    with Accelerated(plain, made.method) as handle:
        cached, runs = sample_batch(plain, BATCH, sampling), handle.report()
    assert not torch.equal(expected, cached)
    pipe = placed(load_pipeline(made.config.model, CPU), CPU, way)
    offloaded = [part for part in networks(pipe).values() if _is_offloaded(part)]
    assert len(offloaded) == len(networks(pipe))
    for _ in range(2):
        assert torch.equal(sample_batch(pipe, BATCH, sampling), expected)
        with Accelerated(pipe, made.method) as handle:
            assert torch.equal(sample_batch(pipe, BATCH, sampling), cached)
            assert {name: own["run_steps"] for name, own in handle.report().items()} == {
                name: own["run_steps"] for name, own in runs.items()
            }


def _is_offloaded(part):
    """Whether accelerate or diffusers brings a network to its device for a call."""
    return hasattr(part, "_hf_hook") or any(hasattr(module, "_diffusers_hook") for module in part.modules())


@pytest.mark.parametrize("way", WAYS)
def test_an_offloaded_pipeline_is_timed(way):
    made = job()
    pipe = placed(load_pipeline(made.config.model, CPU), CPU, way)
    seconds, report = time_call(pipe, Side(made.method, Sampling.of(made.config)), BATCH)
    assert 0 < seconds["denoise"] < seconds["total"] and all(branch["skipped"] for branch in report.values())


@pytest.mark.parametrize("way", WAYS)
def test_a_cpu_has_nothing_to_offload_from(way, capsys, tmp_path):
    line = error_line(call("run", *QUICK, f"offload={way}", f"out={tmp_path}", capsys=capsys))
    assert line == (
        f"error: offload={way} moves weights between the CPU and an accelerator, and this run is on the CPU: type "
        "offload=none, or device=cuda where there is a GPU"
    )
    assert not list(tmp_path.iterdir())


def test_another_word_is_refused(capsys):
    assert error_line(call("run", "offload=disk", capsys=capsys)) == (
        "error: offload=disk is unknown: type one of none, model, group"
    )


@pytest.mark.parametrize("command", ["trace", "calibrate", "fit"])
def test_a_command_that_needs_the_whole_model_says_so(command, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = {"calibrate": ["method=teacache"], "fit": ["runs=4"]}.get(command, [])
    assert "offload=model is for run.py, and" in error_line(call(command, *words, "offload=model", capsys=capsys))


def test_it_is_no_part_of_a_run_s_id_and_stands_in_its_record():
    plain, offloaded = job(), job("offload=group", "memory_limit_gb=3", "check_memory=false")
    assert plain.folder.name == offloaded.folder.name and plain.base_folder == offloaded.base_folder
    assert settings_id(plain.config, plain.prompts) == settings_id(offloaded.config, offloaded.prompts)
    assert "offload" not in hardware(CPU) and environment(CPU)["hardware"] == hardware(CPU)
    about = environment(CPU, "group")["hardware"]
    assert about == {**hardware(CPU), "offload": "group"}
    assert hardware_text(about) == f"{hardware_text(hardware(CPU))}, offload=group"


def test_the_record_and_its_timing_say_so_and_the_pictures_are_those_of_the_whole_model(tmp_path, monkeypatch):
    words = [*QUICK[:-2], "probe=2", "timing=1", f"out={tmp_path}"]
    assert call("run", *words).code == 0
    (path,) = tmp_path.glob("tiny/spectrum-*/record.json")
    whole = read_record(path)
    for module in ("spectrum.bench.run", "spectrum.models.pipelines"):
        monkeypatch.setattr(f"{module}.check_offload", lambda offload, device: None)  # there is no accelerator here
    assert call("run", *words, "offload=group", "redo=[samples]").code == 0
    record = read_record(path)
    assert record.hardware == {**whole.hardware, "offload": "group"} and record.digests == whole.digests
    assert record.timing is not None and record.timing.hardware == record.hardware
    assert whole.timing is not None and record.timing.id != whole.timing.id
    for model in (compose([]).model, compose(["model=flux", "model.weights=tiny"]).model):
        assert all(map(_is_offloaded, networks(load_pipeline(model, CPU, "model")).values()))


def test_what_a_network_takes_in_groups():
    pipe = load_pipeline(compose([]).model, CPU)
    found = {name: part_of(part) for name, part in networks(pipe).items()}
    blocks = [*pipe.transformer.transformer_blocks, *pipe.transformer.single_transformer_blocks]
    sizes = [sum(p.numel() * 4 for p in block.parameters()) for block in blocks]
    own = found["transformer"]
    assert own.denoises and own.group == max(sizes) and own.always == own.weights - sum(sizes) > 0
    assert own.on_device("group", ahead=True) == own.always + 2 * own.group
    embedding = pipe.text_encoder.get_input_embeddings().weight.numel() * 4
    assert not found["text_encoder"].denoises and found["text_encoder"].group == embedding
    for part in found.values():
        assert 0 < part.group + part.always < part.weights


def test_a_network_that_diffusers_does_not_offload_in_groups_stays_whole():
    pipe = load_pipeline(compose(["model=dit_xl2", "model.weights=tiny"]).model, CPU)
    part = part_of(pipe.transformer)
    assert part.always == part.weights and part.group == 0
    placed(pipe, CPU, "group")
    assert not _is_offloaded(pipe.transformer) and _is_offloaded(pipe.vae)


def test_weights_that_another_device_draws_are_those_of_that_device():
    drawn = [randomise(torch.nn.Linear(8, 4), on=on) for on in (None, torch.device("cpu", 0))]
    assert torch.equal(drawn[0].weight, drawn[1].weight)
    absent = randomise(torch.nn.Linear(8, 4, device="meta"))
    assert absent.weight.is_meta


@pytest.mark.parametrize("piece", ["slices", "tiling"])
def test_a_vae_that_cannot_do_what_is_asked_is_named(piece):
    model = compose(["model=flux", "model.weights=tiny", f"model.vae=[{piece}]"]).model
    pipe = load_pipeline(compose(["model=flux", "model.weights=tiny"]).model, CPU)
    if piece == "tiling":
        in_pieces(pipe, model)
        assert pipe.vae.use_tiling
        pipe.vae.enable_tiling = _cannot
    with pytest.raises(SpectrumError, match=f"model.vae={piece} is nothing that AutoencoderKL can do"):
        in_pieces(pipe, model)


def _cannot():
    raise NotImplementedError
