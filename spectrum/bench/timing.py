"""Measures latency in a pass of its own: uncached and cached calls in turn, in one process, on one device."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from spectrum.api import Accelerated, denoisers
from spectrum.bench.prompts import Sample
from spectrum.bench.sampling import sample_batch
from spectrum.config.sampling import Sampling
from spectrum.core.method import Method
from spectrum.models.solvers import with_solver


class _Stopwatch:
    """Seconds from a denoiser's first call to the end of the last step, device synchronised."""

    def __init__(self, pipe: Any) -> None:
        self.began = self.ended = 0.0
        self._handles = [model.register_forward_pre_hook(self._first) for model in denoisers(pipe)]
        self._device = pipe.device

    def _first(self, module: Any, args: Any) -> None:
        if not self.began:
            self.began = self.now()

    def now(self) -> float:
        """The time once the device has finished what was asked of it."""
        if self._device.type != "cpu":
            torch.accelerator.synchronize(self._device)
        return time.perf_counter()

    def step(self) -> None:
        """A step ended."""
        self.ended = self.now()

    def close(self) -> float:
        """Take the hooks off; the seconds measured."""
        for handle in self._handles:
            handle.remove()
        return self.ended - self.began


def time_call(pipe: Any, method: Method, batch: list[Sample], sampling: Sampling) -> dict[str, float]:
    """Time one call of a pipeline.

    Args:
        pipe: a diffusers pipeline.
        method: the method to put on it.
        batch: the samples to make.
        sampling: how the pipeline is called.

    Returns:
        Seconds: `denoise`, from the first denoiser call to the end of the last step, and `total`, from the prompt to
        the pixels.
    """
    pipe = with_solver(pipe, sampling.solver)
    with Accelerated(pipe, method):
        watch = _Stopwatch(pipe)
        try:
            began = watch.now()
            sample_batch(pipe, batch, sampling, watch.step)
            ended = watch.now()
        finally:
            seconds = watch.close()
        return {"denoise": seconds, "total": ended - began}


def compare(
    pipe: Any,
    baseline: tuple[Method, Sampling],
    candidate: tuple[Method, Sampling],
    batch: list[Sample],
    repeats: int,
    on_call: Callable[[int], None] = lambda count: None,
) -> dict[str, Any]:
    """Time the uncached and the cached run in turn, after one warm-up call of each.

    A candidate that caches nothing and samples as the baseline does is timed once. What may be quoted is the ratio,
    uncached over cached: machines differ and are noisy.

    Args:
        pipe: a diffusers pipeline.
        baseline: (method, sampling) of the uncached run.
        candidate: (method, sampling) of the method.
        batch: the samples of each call.
        repeats: timed calls of each side.
        on_call: told after each call of how many steps of a sample it was.

    Returns:
        The fields of `spectrum.records.record.Timing`, but for id and hardware.
    """
    raw: dict[str, list[dict[str, float]]] = {"baseline": [], "candidate": []}
    sides = {"baseline": baseline, "candidate": candidate}
    if candidate[0].forecast is None and candidate[1] == baseline[1]:
        sides, raw["candidate"] = {"baseline": baseline}, raw["baseline"]
    for repeat in range(repeats + 1):
        for name, (method, sampling) in sides.items():
            seconds = time_call(pipe, method, batch, sampling)
            on_call(len(batch) * sampling.steps)
            if repeat:
                raw[name].append(seconds)
    median = {n: {k: float(np.median([t[k] for t in ts])) for k in ("denoise", "total")} for n, ts in raw.items()}
    return {
        "batch": len(batch),
        "repeats": repeats,
        "raw": raw,
        "seconds_per_sample": {n: {k: v / len(batch) for k, v in times.items()} for n, times in median.items()},
        "speedup": median["baseline"]["denoise"] / median["candidate"]["denoise"],
        "speedup_end_to_end": median["baseline"]["total"] / median["candidate"]["total"],
    }
