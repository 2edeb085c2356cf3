"""Measures what this machine can do: rates, the hook on a toy, and the embedded model's steps in turn."""

import contextlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from spectrum.api import Accelerated
from spectrum.bench.profiling import Profiled
from spectrum.bench.prompts import Sample, numbered_samples, read_prompts
from spectrum.bench.rates import COUNT, FEATURE, best_matmul_tflops, copy_bytes_per_second, sum_bytes_per_second
from spectrum.bench.resolve import resolve
from spectrum.bench.sampling import sample_batch
from spectrum.bench.timing import Side, prove
from spectrum.bench.watch import Watch
from spectrum.config.compose import compose
from spectrum.config.sampling import Sampling
from spectrum.config.schema import BYTES
from spectrum.models.architectures import torch_dtype
from spectrum.models.pipelines import load_pipeline
from spectrum.models.plans import plan_of

FULL_STEPS = 5
"""How many steps of the uncached run are timed in a round."""
SKIPPED_STEPS = 3
"""How many skipped steps of a cached run are timed in a round, with the steps that run before them."""
ROUNDS = 3


def rates_of(device: torch.device) -> dict[str, Any]:
    """The rates of a device.

    Args:
        device: the device.

    Returns:
        `matmul_tflops` by dtype, None where a device has no such product; `copy_bytes_per_second`;
        `sum_bytes_per_second`; `sum_of_copy`, their ratio.
    """
    large = torch.bfloat16 if device.type != "cpu" else torch.float32
    copied = (COUNT + 1) * FEATURE[0] * FEATURE[1] * large.itemsize // 2
    matmul = {name: _tflops(torch_dtype(name), device) for name in BYTES}
    copy = copy_bytes_per_second(copied, device, 7)
    summed = sum_bytes_per_second(device, large)
    return {
        "matmul_tflops": matmul,
        "copy_bytes_per_second": copy,
        "sum_dtype": str(large).removeprefix("torch."),
        "sum_bytes_per_second": summed,
        "sum_of_copy": summed / copy,
    }


def _tflops(dtype: torch.dtype, device: torch.device) -> float | None:
    try:
        return best_matmul_tflops(dtype, device)
    except RuntimeError:  # what a device cannot do in a dtype
        return None


def hook_microseconds(words: Sequence[str]) -> dict[str, float]:
    """What the hook takes at a skipped step, on a FLUX of toy width on the CPU: the host's work alone.

    Args:
        words: overrides of the method.

    Returns:
        Medians over the skipped steps: `hook`, with its `forecast`, in microseconds.
    """
    config, method = resolve(compose(["model=flux", "model.weights=tiny", *words, "runs=14", "batch=1"]))
    side = Side(method, Sampling.of(config))
    batch = numbered_samples(["a red cube on a blue table"], [0])
    pipe = load_pipeline(config.model, torch.device("cpu"))
    with Accelerated(pipe, method) as handle:
        prove(pipe, side, batch)
        profiled = Profiled(handle, side, batch)
        profiled.watched()
        kinds, steps = profiled.watched()
    skipped = [own for own, kind in zip(steps, kinds, strict=True) if kind == "skipped"]
    forecast = [own["forecast"] for own in skipped]
    whole = [own["denoiser"] + own["decision"] + own["forecast"] for own in skipped]
    return {"hook": 1000 * statistics.median(whole), "forecast": 1000 * statistics.median(forecast)}


def embedded_seconds(words: Sequence[str], runs: Sequence[int], device: torch.device) -> dict[str, Any]:
    """The embedded model's seconds of denoising, from a few steps of each side in turn.

    Args:
        words: overrides of the method.
        runs: numbers of block runs.
        device: where.

    Returns:
        `steps`; by side (`full`, and the numbers of runs) `seconds`, of which the medians `run_ms` and `skipped_ms` of
        a step were measured; `speedup` over `full`, and its share `efficiency` of the ideal one.
    """
    uncached, _ = resolve(compose(["model=tiny", "method=none"]))
    sides: dict[str, tuple[Side, list[int]]] = {}
    for name, own in {"full": ["method=none"], **{str(n): [*words, f"runs={n}"] for n in runs}}.items():
        config, method = resolve(compose(["model=tiny", *own, "batch=1"]))
        sides[name] = Side(method, Sampling.of(config)), plan_of(config, method).runs or []
    batch = numbered_samples(read_prompts(uncached.prompts)[:1], [0])
    pipe = load_pipeline(uncached.model, device)
    steps, found = uncached.model.steps, {name: ([], []) for name in sides}
    for _ in range(ROUNDS):
        for name, (side, ran) in sides.items():
            skipped = [step for step in range(steps) if step not in ran]
            stop = skipped[SKIPPED_STEPS - 1] + 1 if skipped else FULL_STEPS
            for step, spent in enumerate(_steps(pipe, side, batch, stop)):
                found[name][step not in ran].append(spent)
    return {
        "model": "tiny",
        "steps": steps,
        "sides": _rows({name: ran for name, (_, ran) in sides.items()}, found, steps),
    }


def _steps(pipe: Any, side: Side, batch: list[Sample], stop: int) -> list[float]:
    """The milliseconds of a call's first steps."""
    watch = Watch(pipe, side.sampling.steps, stop)
    with contextlib.ExitStack() as stack:
        if side.method is not None and side.method.forecast is not None:
            stack.enter_context(Accelerated(pipe, side.method))
        prove(pipe, side, batch)
        with watch.on():
            sample_batch(pipe, batch, side.sampling)
    return watch.milliseconds()["step"]


def _rows(
    ran: Mapping[str, Sequence[int]], found: Mapping[str, tuple[list[float], list[float]]], steps: int
) -> dict[str, dict[str, Any]]:
    """What follows for a whole sample from the milliseconds of run and skipped steps of each side."""
    rows: dict[str, dict[str, Any]] = {}
    for name, own in ran.items():
        run_ms, skipped_ms = (statistics.median(spent) if spent else None for spent in found[name])
        seconds = (len(own) * (run_ms or 0) + (steps - len(own)) * (skipped_ms or 0)) / 1000
        rows[name] = {"runs": len(own), "run_ms": run_ms, "skipped_ms": skipped_ms, "seconds": seconds}
    for row in rows.values():
        row["speedup"] = rows["full"]["seconds"] / row["seconds"]
        row["efficiency"] = row["speedup"] * row["runs"] / steps
    return rows
