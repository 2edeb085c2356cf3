"""Samples prompts x seeds into numbered pictures, with a line for each in `samples.jsonl`; goes on where it broke off.

The unit of resuming is a batch. Batches lie on a fixed grid, so a picture is made with the same neighbours, by the same
kernels, whether the run was broken off or not, and comes out byte-equal.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock
from torch import Tensor

from spectrum.api import Accelerated
from spectrum.bench.prompts import Sample
from spectrum.bench.sampling import encoded, sample_batch
from spectrum.config.sampling import Sampling
from spectrum.core.method import Method
from spectrum.models.solvers import with_solver
from spectrum.records.files import write_bytes


def finished_samples(folder: Path) -> dict[str, dict[str, Any]]:
    """The lines of `samples.jsonl` whose picture is there whole, by file name.

    What stands behind a damaged line is dropped: those samples are made again.
    """
    found: dict[str, dict[str, Any]] = {}
    ledger = folder / "samples.jsonl"
    if not ledger.exists():
        return found
    for line in ledger.read_text(errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            break
        if not _is_entry(entry):
            break
        picture = folder / "images" / Path(entry["file"]).name
        if picture.exists() and hashlib.sha256(picture.read_bytes()).hexdigest() == entry["sha256"]:
            found[entry["file"]] = entry
    return found


def _is_entry(entry: Any) -> bool:
    """Whether a line of the ledger has all that `generate` writes there."""
    kinds = {"index": int, "seed": int, "prompt": str, "file": str, "sha256": str, "runs": dict, "calls": dict}
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), kind) for key, kind in kinds.items()):
        return False
    return all(isinstance(runs, list) for runs in entry["runs"].values())


def whole_ledger(folder: Path, samples: list[Sample]) -> list[dict[str, Any]] | None:
    """The ledger of all `samples`, a dict for each, in order; None unless all their pictures are there whole."""
    have = finished_samples(folder)
    return [have[s.file] for s in samples] if all(s.file in have for s in samples) else None


def generate(
    pipe: Any,
    method: Method,
    samples: list[Sample],
    sampling: Sampling,
    folder: Path,
    on_step: Callable[[int], None] = lambda count: None,
) -> list[dict[str, Any]]:
    """Sample what a folder still lacks.

    Writes `images/NNNNN-sS.png`, and appends to `samples.jsonl` only when a whole batch is on disk. One process at a
    time works on a folder; another waits, and finds the samples there.

    Args:
        pipe: a diffusers pipeline.
        method: the method to put on it.
        samples: the samples to make.
        sampling: how the pipeline is called.
        folder: where they go.
        on_step: told after each denoising step how many samples advanced by one.

    Returns:
        The ledger: a dict for each sample, in their order, with its file, digest, run steps and calls by CFG branch.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f".{folder.name}.lock"):
        for draft in folder.rglob(".draft-*"):
            draft.unlink()
        return _generate(pipe, method, samples, sampling, folder, on_step)


def _generate(
    pipe: Any,
    method: Method,
    samples: list[Sample],
    sampling: Sampling,
    folder: Path,
    on_step: Callable[[int], None],
) -> list[dict[str, Any]]:
    have = finished_samples(folder)
    grid = [samples[i : i + sampling.batch] for i in range(0, len(samples), sampling.batch)]
    kept = [b for b in grid if all(s.file in have for s in b)]
    made = {s.file: have[s.file] for b in kept for s in b}
    _rewrite(folder, list(made.values()))
    pipe = with_solver(pipe, sampling.solver)
    with Accelerated(pipe, method) as handle:
        for batch in grid:
            if batch in kept:
                on_step(len(batch) * sampling.steps)
                continue
            images = sample_batch(pipe, batch, sampling, _counting(on_step, len(batch)))
            entries = _store(folder, batch, images, handle.report(), sampling.fps)
            _append(folder, entries)
            made |= {entry["file"]: entry for entry in entries}
    ledger = [made[s.file] for s in samples]
    _rewrite(folder, ledger)
    return ledger


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


def _lines(entries: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(entry) + "\n" for entry in entries).encode()


def _rewrite(folder: Path, entries: list[dict[str, Any]]) -> None:
    ledger = folder / "samples.jsonl"
    if not ledger.exists() or ledger.read_bytes() != _lines(entries):
        write_bytes(ledger, _lines(entries))


def _append(folder: Path, entries: list[dict[str, Any]]) -> None:
    with (folder / "samples.jsonl").open("ab") as file:
        file.write(_lines(entries))
        file.flush()
        os.fsync(file.fileno())
