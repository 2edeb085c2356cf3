"""Measures latency in a pass of its own: uncached and cached calls in turn, in one process, on one device."""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import torch

from eval.timing import PARTS, summary
from spectrum.api import Accelerated, denoisers
from spectrum.bench.generate import runs_of_samples
from spectrum.bench.prompts import Sample
from spectrum.bench.sampling import sample_batch
from spectrum.config.sampling import Sampling
from spectrum.core.method import Method
from spectrum.hooks.private_api import execution_device
from spectrum.models.solvers import with_solver
from spectrum.records.files import identity
from spectrum.records.timing import Conditions, TimedRound, Timing, round_nfe


class _Stopwatch:
    """Seconds from a denoiser's first call to the end of the scheduler's last step, device synchronised.

    Where a pipeline steps its scheduler twice at a step (Cosmos 1), the first of the two ends it.

    Of a pipeline that samples section after section it is the sum over them, without what is done between two.

    Args:
        pipe: a diffusers pipeline.
        clock: what the seconds are of: the time that passes, or that of the process on the CPU's cores.
    """

    def __init__(self, pipe: Any, clock: Callable[[], float]) -> None:
        self._began = self._ended = self._seconds = 0.0
        self._clock = clock
        self._handles = [model.register_forward_pre_hook(self._called) for model in denoisers(pipe)]
        self._device, self._pipe, self._timesteps = execution_device(pipe), pipe, None

    def _called(self, module: Any, args: Any) -> None:
        timesteps = self._pipe.scheduler.timesteps
        if timesteps is not self._timesteps:
            self._seconds, self._timesteps = self._seconds + self._ended - self._began, timesteps
            self._began = self._ended = self.now()

    def now(self) -> float:
        """The time once the device has finished what was asked of it."""
        if self._device.type != "cpu":
            torch.accelerator.synchronize(self._device)
        return self._clock()

    def step(self) -> None:
        """A step ended."""
        self._ended = self.now()

    def close(self) -> float:
        """Take the hooks off; the seconds measured."""
        for handle in self._handles:
            handle.remove()
        return self._seconds + self._ended - self._began


@dataclass(frozen=True)
class Side:
    """What is timed.

    Attributes:
        method: the method on the pipeline; None leaves the pipeline without a hook.
        sampling: how the pipeline is called.
        around: a context that the calls are made in, given the pipeline: a cache of others.
    """

    method: Method | None
    sampling: Sampling
    around: Callable[[Any], AbstractContextManager[Any]] = nullcontext


def time_call(pipe: Any, side: Side, batch: list[Sample]) -> tuple[dict[str, float], dict[str, Any]]:
    """Time one call of a pipeline, as it is when an earlier call has proved its layout.

    What begins after the first step, such as Wan 2.2's second expert, is proved in the timed call.

    Args:
        pipe: a diffusers pipeline.
        side: the method to put on it, and how it is called.
        batch: the samples to make.

    Returns:
        Seconds, `denoise`, from the first denoiser call to the end of the last step, `total`, from the prompt to the
        pixels, and `cpu`, those that the cores spent on `denoise` together; and the report of the call, see
        `Accelerated.report`, which is empty without a method.
    """
    pipe = with_solver(pipe, side.sampling.solver)
    with side.around(pipe), on_pipe(pipe, side.method) as handle:
        if side.method is not None:
            prove(pipe, side, batch)
        watch, cores = _Stopwatch(pipe, time.perf_counter), _Stopwatch(pipe, time.process_time)

        def step() -> None:
            watch.step()
            cores.step()

        try:
            began = watch.now()
            sample_batch(pipe, batch, side.sampling, step)
            ended = watch.now()
        finally:
            seconds, busy = watch.close(), cores.close()
        report = {} if handle is None else handle.report()
        return {"denoise": seconds, "total": ended - began, "cpu": busy}, report


def on_pipe(pipe: Any, method: Method | None) -> AbstractContextManager[Accelerated | None]:
    """A method on a pipeline, taken off when the context ends; None leaves it as it is."""
    return nullcontext() if method is None else Accelerated(pipe, method)


class _ProvedError(Exception):
    """Ends a call after its first step."""


def prove(pipe: Any, side: Side, batch: list[Sample]) -> None:
    """Make the first step of a call, at which the hook finds and proves what later calls go by."""

    def stop() -> None:
        raise _ProvedError

    with suppress(_ProvedError):
        sample_batch(pipe, batch, side.sampling, stop)


def batches_of(samples: list[Sample], size: int, rounds: int) -> list[list[Sample]]:
    """The batches of a pass: one for the warm-up and one for each round, spread over the samples.

    Args:
        samples: all samples of a run, at least `size`.
        size: samples per call.
        rounds: how many rounds are timed.

    Returns:
        `rounds + 1` full batches of those that the samples were made in; where there are fewer, they come round again.

    Example:
        >>> four = [Sample(number, "a cat", 0) for number in range(4)]
        >>> [[sample.index for sample in batch] for batch in batches_of(four, 1, 1)]
        [[0], [2]]
    """
    grid = [samples[first : first + size] for first in range(0, len(samples) - size + 1, size)]
    count = rounds + 1
    spread = len(grid) / count if count < len(grid) else 1
    return [grid[int(number * spread) % len(grid)] for number in range(count)]


def timed_rounds(
    pipe: Any,
    reference: Side,
    candidates: Sequence[Side],
    batches: Sequence[list[Sample]],
    on_call: Callable[[int], None] = lambda count: None,
    parts: Sequence[str] = PARTS,
) -> list[list[TimedRound]]:
    """Time methods in turn, each between two uncached runs of the same samples.

    A round takes one batch: reference, method 1, reference, method 2, ..., reference. The reference after one method is
    the one before the next. What may be quoted is the ratio, uncached over cached: machines differ and are noisy. The
    uncached run may be among the methods; its ratio shows the noise.

    Args:
        pipe: a diffusers pipeline.
        reference: the uncached run.
        candidates: the methods.
        batches: the samples of the warm-up, in which each side is called once and which is thrown away, and then those
            of each round.
        on_call: told after each call of how many steps of a sample it was.
        parts: which seconds of `time_call` a round has.

    Returns:
        For each method its rounds, without the warm-up.
    """
    found: list[list[TimedRound]] = [[] for _ in candidates]

    def call(side: Side, batch: list[Sample]) -> tuple[dict[str, float], dict[str, Any]]:
        seconds, report = time_call(pipe, side, batch)
        on_call(len(batch) * side.sampling.steps)
        return {part: seconds[part] for part in parts}, report

    for side in (reference, *candidates):
        call(side, batches[0])
    for batch in batches[1:]:
        before, _ = call(reference, batch)
        for rounds, candidate in zip(found, candidates, strict=True):
            seconds, report = call(candidate, batch)
            after, _ = call(reference, batch)
            entries = runs_of_samples(report, len(batch))
            runs, calls = ([entry[key] for entry in entries] for key in ("runs", "calls"))
            files = [sample.file for sample in batch]
            rounds.append(TimedRound(files, before, seconds, after, runs, calls, round_nfe(runs, calls)))
            before = after
    return found


def sample_steps(reference: Side, candidates: Sequence[Side], batches: Sequence[list[Sample]]) -> int:
    """How many steps of a sample `timed_rounds` takes, for its progress."""
    full, rest = reference.sampling.steps, sum(side.sampling.steps for side in candidates)
    return len(batches[0]) * (full + rest) + (full * (1 + len(candidates)) + rest) * sum(map(len, batches[1:]))


def process_id(where: Conditions) -> str:
    """The id of a timing pass, which all that it timed share."""
    return identity([where.command, where.date, os.getpid()])


def timing_of(run: str, rounds: list[TimedRound], hardware: dict[str, Any], where: Conditions, process: str) -> Timing:
    """The timing of a record.

    Args:
        run: the record's id.
        rounds: the timed rounds.
        hardware: what they ran on.
        where: the conditions of the pass.
        process: the id of the pass.
    """
    batch = len(rounds[0].samples)
    about = {"id": identity([run, hardware]), "process": process, "hardware": hardware, "conditions": where}
    return Timing(**about, batch=batch, rounds=rounds, **summary(rounds, batch))
