"""Samples prompts x seeds into numbered pictures, with a line for each in `samples.jsonl`; goes on where it broke off.

The unit of resuming is a batch. Batches lie on a fixed grid, so a picture is made with the same neighbours, by the same
kernels, whether the run was broken off or not, and comes out byte-equal.
"""

import contextlib
import hashlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from torch import Tensor

from spectrum.api import Accelerated
from spectrum.bench.ledger import Entry, append, finished_samples, lock_of, whole_ledger, write_ledger
from spectrum.bench.prompts import Sample
from spectrum.bench.sampling import encoded, sample_batch
from spectrum.config.sampling import Sampling
from spectrum.core.method import Method
from spectrum.models.solvers import with_solver
from spectrum.records.files import write_bytes

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
) -> list[Entry]:
    """Sample what a folder still lacks.

    Writes `images/NNNNN-sS.png`, and appends to `samples.jsonl` only when a whole batch is on disk. Several processes
    may work on one folder: each claims a batch that nobody else is making, and in the end waits for the others'.

    Args:
        pipe: a diffusers pipeline.
        method: the method to put on it.
        samples: the samples to make.
        sampling: how the pipeline is called.
        folder: where they go.
        on_step: told after each denoising step how many samples advanced by one.

    Returns:
        The ledger: the entry of each sample, in their order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    grid = [samples[i : i + sampling.batch] for i in range(0, len(samples), sampling.batch)]
    with lock_of(folder):
        write_ledger(folder, list(finished_samples(folder).values()))
    pipe = with_solver(pipe, sampling.solver)
    made: dict[str, Entry] = {}
    with Accelerated(pipe, method) as handle:
        while lacking := [batch for batch in grid if batch[0].file not in made]:
            known = len(made)
            for batch in lacking:
                with _claimed(folder, batch) as mine:
                    entries = whole_ledger(folder, batch)
                    if entries is not None:
                        on_step(len(batch) * sampling.steps)
                    elif mine:
                        images = sample_batch(pipe, batch, sampling, _counting(on_step, len(batch)))
                        entries = _store(folder, batch, images, handle.report(), sampling.fps)
                        append(folder, entries)
                made |= {entry["file"]: entry for entry in entries or []}
            if len(made) == known:
                time.sleep(WAIT)
    with lock_of(folder):
        ledger = [made[s.file] for s in samples]
        write_ledger(folder, ledger)
        for draft in (folder / "images").glob(".draft-*"):
            draft.unlink(missing_ok=True)
        shutil.rmtree(folder / CLAIMS, ignore_errors=True)
    return ledger


@contextlib.contextmanager
def _claimed(folder: Path, batch: list[Sample]) -> Iterator[bool]:
    """Claim a batch while it is made; whether it is claimed now, for another process may be at it."""
    claim = FileLock(folder / CLAIMS / f"{batch[0].file}.lock")
    try:
        claim.acquire(timeout=0)
    except (Timeout, FileNotFoundError):  # the process that ends last deletes the folder of the claims
        yield False
        return
    try:
        yield True
    finally:
        claim.release()


def _counting(on_step: Callable[[int], None], count: int) -> Callable[[], None]:
    return lambda: on_step(count)


def _store(
    folder: Path, batch: list[Sample], images: Tensor, report: dict[str, Any], fps: int | None
) -> list[dict[str, Any]]:
    entries = []
    for sample, image, done in zip(batch, images, runs_of_samples(report, len(batch)), strict=True):
        content = encoded(image, fps)
        write_bytes(folder / "images" / sample.file, content)
        entry = {"index": sample.index, "seed": sample.seed, "prompt": sample.prompt, "file": sample.file}
        entries.append({**entry, "sha256": hashlib.sha256(content).hexdigest(), **done})
    return entries


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
