"""Samples prompts x seeds into numbered pictures, with a line for each in the ledger; goes on where it broke off.

The unit of resuming is a batch. Batches lie on a fixed grid, so a picture is made with the same neighbours, by the same
kernels, whether the run was broken off or not and however many processes share it, and comes out byte-equal.
"""

import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from spectrum.api import Accelerated
from spectrum.bench.ledger import Entry, Ledger, names_in
from spectrum.bench.locks import held
from spectrum.bench.made_on import keep_kind
from spectrum.bench.prompts import Sample
from spectrum.bench.provenance import kernels_of
from spectrum.bench.sampling import sample_batch
from spectrum.bench.saving import Saving
from spectrum.bench.workers import ALONE, Worker, in_turn
from spectrum.config.sampling import Sampling
from spectrum.core.method import Method
from spectrum.hooks.private_api import execution_device
from spectrum.models.solvers import with_solver

CLAIMS = ".claims"
"""The folder of the locks that processes hold on the batches which they are making."""
WAIT = 0.1
"""Seconds until a process that has nothing left to claim looks again."""


def generate(
    pipe: Any,
    method: Method,
    samples: list[Sample],
    sampling: Sampling,
    folder: Path,
    on_step: Callable[[int], None] = lambda count: None,
    worker: Worker = ALONE,
) -> list[Entry]:
    """Sample what a folder still lacks.

    Writes `images/NNNNN-sS.png`, and notes a batch in the ledger only when all of it is on disk. Several processes may
    work on one folder: each claims a batch that nobody else is making, and in the end waits for the others'.

    Args:
        pipe: a diffusers pipeline.
        method: the method to put on it.
        samples: the samples to make.
        sampling: how the pipeline is called.
        folder: where they go.
        on_step: told after each denoising step how many samples advanced by one, also of those that others made.
        worker: which process this is, which says where it begins.

    Returns:
        The ledger: the entry of each sample, in their order.

    Raises:
        SpectrumError: if the folder's samples are made on another kind of machine and some are lacking.
    """
    if (there := finished(samples, folder, worker)) is not None:
        on_step(len(samples) * sampling.steps)
        return there
    folder.mkdir(parents=True, exist_ok=True)
    kind = kernels_of(execution_device(pipe))
    keep_kind(folder, kind)
    ledger = Ledger(folder, {s.file for s in samples}, kind)
    grid = [samples[i : i + sampling.batch] for i in range(0, len(samples), sampling.batch)]
    todo = in_turn(grid, worker)
    told = 0
    pipe = with_solver(pipe, sampling.solver)
    with Accelerated(pipe, method) as handle, Saving(folder, ledger, sampling.fps) as saving:
        while todo:
            known = len(todo)
            for batch in todo:
                ledger.follow()
                on_step((ledger.found - told) * sampling.steps)
                told = ledger.found
                if ledger.entries(batch) is None:
                    _make(handle, batch, sampling, folder, on_step, ledger, saving)
            saving.settle()
            todo = [batch for batch in todo if ledger.entries(batch) is None]
            if len(todo) == known:
                time.sleep(WAIT)
    on_step((ledger.found - told) * sampling.steps)
    return _end(samples, folder, ledger)


def finished(samples: list[Sample], folder: Path, worker: Worker = ALONE) -> list[Entry] | None:
    """The ledger of a folder that lacks nothing; None where something is to be made.

    The first worker ends the folder where the processes that made the last samples were killed before they had.

    Args:
        samples: all samples of the folder.
        folder: where they are.
        worker: which process this is.
    """
    ledger = Ledger(folder, {s.file for s in samples})
    ledger.follow()
    found = ledger.entries(samples)
    return _end(samples, folder, ledger) if found is not None and worker.first else found


def _end(samples: list[Sample], folder: Path, ledger: Ledger) -> list[Entry]:
    """Write `samples.jsonl`, and delete what served to make the samples."""
    for name in names_in(folder / "images"):
        if name.startswith(".draft-"):
            (folder / "images" / name).unlink(missing_ok=True)
    found = ledger.end(samples)
    shutil.rmtree(folder / CLAIMS, ignore_errors=True)
    return found


def _make(
    handle: Accelerated,
    batch: list[Sample],
    sampling: Sampling,
    folder: Path,
    on_step: Callable[[int], None],
    ledger: Ledger,
    saving: Saving,
) -> None:
    """Sample a batch and hand it to be saved, unless another process is at it or has just made it."""
    with ExitStack() as stack:
        if not stack.enter_context(held(folder / CLAIMS / f"{batch[0].file}.lock", wait=False)):
            return
        ledger.follow()
        if ledger.entries(batch) is None:
            images = sample_batch(handle.pipe, batch, sampling, lambda: on_step(len(batch)))
            done = runs_of_samples(handle.report(), len(batch))
            saving.save(batch, images, done, stack.pop_all())


def sample_report(report: Mapping[str, Any], number: int, count: int) -> dict[str, Any]:
    """What was done for one sample of a batch.

    Args:
        report: of the call, from `Accelerated.report`.
        number: the sample's place in the batch.
        count: samples of the batch.

    Returns:
        Its `run_steps`, `skipped` and `errors` by CFG branch. Where guidance is batched with latents that differ, each
        row decides for itself, and the rows of a sample have a branch each.

    Example:
        >>> mine, other = {"run_steps": [0]}, {"run_steps": [0, 1]}
        >>> sample_report({"cond": {"samples": [other, mine]}}, 1, 2)
        {'cond': {'run_steps': [0]}}
    """
    found = {}
    for name, branch in report.items():
        samples = branch["samples"]
        own = samples if len(samples) == 1 else samples[number::count]
        found |= {name if row == 0 else f"{name} {row}": part for row, part in enumerate(own)}
    return found


def runs_of_samples(report: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    """Where the blocks ran for each sample of a call of the pipeline.

    Args:
        report: of the call, from `Accelerated.report`.
        count: number of samples in it.

    Returns:
        For each sample, by CFG branch, `runs` (the steps at which the blocks ran) and `calls` (how often the denoiser
        was called).
    """
    found = []
    for own in (sample_report(report, number, count) for number in range(count)):
        runs = {name: branch["run_steps"] for name, branch in own.items()}
        calls = {name: len(branch["run_steps"]) + len(branch["skipped"]) for name, branch in own.items()}
        found.append({"runs": runs, "calls": calls})
    return found
