"""Loads the pipeline of a job, once it is known that the job fits into the device's memory."""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console

from spectrum.bench.job import Job
from spectrum.bench.memory_check import TRY, check_fit, free_memory
from spectrum.bench.prompts import check_length
from spectrum.bench.requirements import missing_line
from spectrum.bench.sampling import check_arguments
from spectrum.config.sampling import Sampling
from spectrum.config.schema import BYTES, RunConfig
from spectrum.core.choices import Keep
from spectrum.core.errors import SpectrumError, refuse
from spectrum.core.method import Method
from spectrum.models.identity import model_kind, on_this_machine
from spectrum.models.kept_rehearsals import kept_rehearsal, rehearsal_id
from spectrum.models.memory import BLOCK, DECODER, need_of, stored_bytes, why
from spectrum.models.need import GIB, Rehearsed, gib
from spectrum.models.pipelines import AbsentWeightsError, device_of, load_pipeline
from spectrum.models.plans import feature_bytes, plan_of
from spectrum.models.shadow import config_folder
from spectrum.models.solvers import with_solver


def pipeline_of(job: Job, console: Console) -> Any:
    """The pipeline of a job, with its memory, its arguments and prompts checked."""
    config, model = job.config, job.config.model
    device = device_of(config.device)
    called = dataclasses.replace(config, batch=job.batch)
    check_memory_of(
        called, job.method, device, lambda line: console.print(line, highlight=False, markup=False, soft_wrap=True)
    )
    if model_kind(model) == "real weights":
        console.print(f"loading the weights of {model.name}", highlight=False)
    try:
        pipe = load_pipeline(model, device, config.offload)
    except AbsentWeightsError as error:
        raise SpectrumError(missing_line(config) or str(error)) from None
    with_solver(pipe, Sampling.of(config).solver)
    check_arguments(pipe, Sampling.of(config))
    limit = model.call.get("max_sequence_length") or getattr(pipe, "tokenizer_max_length", 77)
    check_length(pipe, job.prompts, limit)
    return pipe


def check_memory_of(config: RunConfig, method: Method, device: torch.device, say: Callable[[str], None]) -> None:
    """Refuse a run that would not fit into its device's memory, and say what one that fits will take.

    A small model on a CPU is not rehearsed, and nothing is said of it. Where the estimate fails, that is said, and the
    run goes on.

    Args:
        config: the config, with what was fitted filled in.
        method: its method.
        device: where it is to run.
        say: gets the line.

    Raises:
        SpectrumError: with the nearest setting that fits.
    """
    free, cpu = free_memory(device), device.type == "cpu"
    given = None if config.memory_limit_gb is None else int(config.memory_limit_gb * GIB)
    limit = min((size for size in (free, given) if size is not None), default=None)
    if not config.check_memory or limit is None or not on_this_machine(config.model):
        return
    if cpu and given is None and _small(config, limit):
        return
    if cpu and method.keep is Keep.host:  # where the host is the device
        config = dataclasses.replace(config, method=dataclasses.replace(config.method, keep=Keep.features))
    plan, ahead = plan_of(config, method), device.type == "cuda"
    rehearsal = exact_rehearsals()
    try:
        need_of(config, plan, rehearsal)
        on_host = (stored_bytes(config, plan, rehearsal(config)) or 0) if config.method.keep is Keep.host else 0
    except Exception as error:  # an estimate stops no run
        say(f"memory: cannot be worked out ({why(error)})")
        return
    there = free_memory(torch.device("cpu"))
    if there is not None and on_host > there:
        refuse(
            f"method.keep=host keeps {gib(on_host)} GiB of features in the host's memory, which has {gib(there)} GiB: "
            f"type method.keep=float8, or fewer runs=, or {TRY} to try it all the same"
        )
    found = check_fit(config, method, lambda other: need_of(other, plan, rehearsal), limit, ahead, cpu)
    say(f"memory: {found.text(config.offload, ahead)}")


def exact_rehearsals() -> Callable[[RunConfig], Rehearsed]:
    """Gives rehearsals of a model as it is on this machine, each made once."""
    from spectrum.bench.rehearsal import rehearse

    made: dict[str, Rehearsed] = {}

    def rehearsal(config: RunConfig) -> Rehearsed:
        key = rehearsal_id(config)
        if key not in made:
            own = model_kind(config.model) == "real weights" and config_folder(config.model) is not None
            made[key] = (None if own else kept_rehearsal(config)) or rehearse(config)
        return made[key]

    return rehearsal


def _small(config: RunConfig, memory: int) -> bool:
    """Whether a model is so small that nobody has to work out whether it fits."""
    model, size = config.model, config.batch or 1
    weights = 0 if model.weights == "tiny" else 2e9 * model.size_gb  # in float32 of a download in 16 bits
    work = size * model.branches * BLOCK * feature_bytes(config)
    pixels = size * (model.frames or 1) * model.height * model.width * DECODER * BYTES[model.dtype]
    return weights + work + pixels < memory / 2
