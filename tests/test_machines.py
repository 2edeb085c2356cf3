"""Where and with what a denoiser runs: LoRA, offloaded, with another attention backend, split over ranks."""

import dataclasses
import functools
import os
import socket
import sys

import diffusers.hooks.tensor_parallel as tensor_parallel
import peft
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from cases import Subject, method_of, runs_of, skipping
from diffusers import ContextParallelConfig, TensorParallelConfig, attention_backend

from spectrum import SpectrumError
from spectrum.api import Accelerated

LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"
METHODS = ["spectrum", "teacache", "first_block_cache", "taylorseer_modules", "easycache"]


@pytest.mark.parametrize("first", ["offload", "method"])
@pytest.mark.parametrize("method", METHODS)
def test_case_15_a_denoiser_that_is_offloaded_after_every_call_is_cached_in_every_call(method, first):
    found = skipping("flux", method)
    subject = Subject("flux")
    with Accelerated(subject.pipe, found) as handle:
        expected, did = subject.sample(), runs_of(handle)
    if first == "offload":
        subject.pipe.enable_model_cpu_offload(device="cpu")
    with Accelerated(subject.pipe, found) as handle:
        if first == "method":
            subject.pipe.enable_model_cpu_offload(device="cpu")
        for _ in range(3):
            assert torch.equal(subject.sample(), expected) and runs_of(handle) == did
    for _ in range(2):
        assert torch.equal(subject.sample(), subject.plain) and hasattr(subject.pipe.transformer, "_hf_hook")
    subject.pipe.remove_all_hooks()
    model = subject.pipe.transformer
    assert model.forward.__func__ is type(model).forward


@pytest.mark.parametrize("method", METHODS)
def test_case_14_lora_reaches_what_runs_in_its_scale(method):
    subject, found = Subject("flux"), skipping("flux", method)
    with Accelerated(subject.pipe, found):
        before = subject.sample()
    config = peft.LoraConfig(r=2, target_modules=["to_q", "to_k"], init_lora_weights=False)
    torch.manual_seed(0)
    subject.pipe.transformer.add_adapter(config)
    half = {**subject.config.model.call, "joint_attention_kwargs": {"scale": 0.5}}
    plain, scaled = subject.sample(), subject.sample(call=half)
    assert not torch.equal(plain, subject.plain) and not torch.equal(plain, scaled)
    for schedule in (method_of("none").schedule, functools.partial(found.schedule, **_always(method))):
        with Accelerated(subject.pipe, dataclasses.replace(found, schedule=schedule)):
            assert torch.equal(subject.sample(call=half), scaled) and torch.equal(subject.sample(), plain)
    with Accelerated(subject.pipe, found):
        assert not torch.equal(subject.sample(), before)


def _always(method):
    """Parameters with which a method's own schedule runs every step, what it decides by measured all the same."""
    own = {"spectrum": {"window": 1, "growth": 0}, "taylorseer_modules": {"interval": 1}}
    return own.get(method, {"threshold": 0.0})


OFFLOADS = {
    "group offload": lambda model: model.enable_group_offload(
        onload_device=torch.device("cpu"), offload_device=torch.device("cpu"), offload_type="block_level",
        num_blocks_per_group=1,
    ),
    "layerwise casting": lambda model: model.enable_layerwise_casting(
        storage_dtype=torch.float32, compute_dtype=torch.float32
    ),
}  # fmt: skip


@pytest.mark.parametrize("first", ["machine", "method"])
@pytest.mark.parametrize("kind", OFFLOADS)
@pytest.mark.parametrize("method", METHODS)
def test_case_15_diffusers_own_hooks_for_memory_and_ours_go_together_in_either_order(method, kind, first):
    subject, found = Subject("flux"), skipping("flux", method)
    with Accelerated(subject.pipe, found) as handle:
        expected, did = subject.sample(), runs_of(handle)
    if first == "machine":
        OFFLOADS[kind](subject.pipe.transformer)
    with Accelerated(subject.pipe, found) as handle:
        if first == "method":
            OFFLOADS[kind](subject.pipe.transformer)
        for _ in range(2):
            assert torch.equal(subject.sample(), expected) and runs_of(handle) == did
    assert torch.equal(subject.sample(), subject.plain)


@pytest.mark.parametrize("backend", ["native", "_native_math"])
@pytest.mark.parametrize("name", ["flux", "wan21_14b", "qwen_image"])
def test_an_attention_backend_is_that_of_the_steps_that_run(name, backend):
    subject = Subject(name)
    with Accelerated(subject.pipe, skipping(name, "spectrum")) as handle:
        expected, did = subject.sample(), runs_of(handle)
    with Accelerated(subject.pipe, skipping(name, "spectrum")) as handle, attention_backend(backend):
        image = subject.sample()
        assert runs_of(handle) == did
    torch.testing.assert_close(image, expected, rtol=1e-4, atol=1e-4)


def _join(rank, port):
    """Become one of two ranks."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": LOOPBACK}
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2"}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    # diffusers takes the rank modulo the number of accelerators, of which a CPU counts as none
    torch.accelerator.device_count = lambda: 1


def _rank(rank, name, port, results):
    """One of two ranks that share a denoiser's tokens: what it samples, with and without a method."""
    _join(rank, port)
    subject = Subject(name)
    methods = [skipping(name, method) for method in ("spectrum", "taylorseer_modules")]
    expected, alone = [], []
    for method in methods:
        with Accelerated(subject.pipe, method) as handle:
            expected.append((subject.sample(), runs_of(handle)))
            alone.append(max(branch["cache_bytes"] for branch in handle.report().values()))
    deciding = skipping(name, "teacache")
    subject.pipe.transformer.enable_parallelism(config=ContextParallelConfig(ulysses_degree=2))
    torch.testing.assert_close(subject.sample(), subject.plain, rtol=1e-4, atol=1e-4)
    for method, (image, did), held in zip(methods, expected, alone, strict=True):
        with Accelerated(subject.pipe, method) as handle:
            torch.testing.assert_close(subject.sample(), image, rtol=1e-4, atol=1e-4)
            assert runs_of(handle) == did
            assert max(branch["cache_bytes"] for branch in handle.report().values()) < held
    with Accelerated(subject.pipe, deciding), pytest.raises(SpectrumError, match="ranks could decide differently"):
        subject.sample()
    torch.testing.assert_close(subject.sample(), subject.plain, rtol=1e-4, atol=1e-4)
    results.put(rank)
    dist.destroy_process_group()


def _rank_of_weights(rank, name, port, results):
    """One of two ranks that share a denoiser's weights: what it samples, with methods of each kind."""
    _join(rank, port)
    subject = Subject(name)
    methods = [skipping(name, method) for method in ("spectrum", "teacache", "first_block_cache")]
    expected = []
    for method in methods:
        with Accelerated(subject.pipe, method) as handle:
            expected.append((subject.sample(), runs_of(handle)))
    tensor_parallel._SUPPORTED_TP_DEVICES = ("cpu",)  # which diffusers leaves out; torch's own part takes it
    subject.pipe.transformer.enable_parallelism(config=TensorParallelConfig(tp_degree=2))
    torch.testing.assert_close(subject.sample(), subject.plain, rtol=1e-4, atol=1e-4)
    for method, (image, did) in zip(methods, expected, strict=True):
        with Accelerated(subject.pipe, method) as handle:
            torch.testing.assert_close(subject.sample(), image, rtol=1e-4, atol=1e-4)
            assert runs_of(handle) == did
    split = pytest.raises(SpectrumError, match=r"proj_out is split over ranks, so its output here is only a part")
    with Accelerated(subject.pipe, skipping(name, "taylorseer_modules")), split:
        subject.sample()
    results.put(rank)
    dist.destroy_process_group()


@pytest.mark.parametrize(("work", "name"), [(_rank, "wan21_14b"), (_rank_of_weights, "flux")])
def test_ranks_that_share_a_denoiser_do_as_one_does(work, name):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    results = mp.get_context("fork").SimpleQueue()
    mp.start_processes(work, args=(name, port, results), nprocs=2, start_method="fork")
    assert {results.get(), results.get()} == {0, 1}
