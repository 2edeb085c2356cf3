"""What a device can do at most: products of matrices, copies, and the weighted sum of stored features."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from spectrum.core import sums

FEATURE = 4096, 3072
"""The feature of FLUX.1 at 1024 x 1024: (image tokens, width)."""
COUNT = 14
"""How many features are summed."""


def milliseconds(work: Callable[[], Any], cuda: bool, repeats: int) -> float:
    """The median time of some work.

    Args:
        work: what is timed.
        cuda: whether it runs on a GPU, and events are read.
        repeats: how often.

    Returns:
        Milliseconds.
    """
    spans = []
    for _ in range(repeats):
        if cuda:
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            work()
            end.record()
            end.synchronize()
            spans.append(start.elapsed_time(end))
        else:
            began = time.perf_counter()
            work()
            spans.append(1000 * (time.perf_counter() - began))
    return statistics.median(spans[2:] if len(spans) > 4 else spans)


def matmul_tflops(side: int, dtype: torch.dtype, device: torch.device, repeats: int = 20) -> float:
    """The rate of a product of two square matrices, in TFLOP/s.

    Args:
        side: of the matrices.
        dtype: of the matrices.
        device: where.
        repeats: how often; the median counts.
    """
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / milliseconds(_finished(lambda: a @ b, device), device.type == "cuda", repeats) / 1e9


def best_matmul_tflops(dtype: torch.dtype, device: torch.device, enough: float = 30.0, most: int = 8192) -> float:
    """The rate at the first size that takes long enough to tell, in TFLOP/s.

    Args:
        dtype: of the matrices.
        device: where.
        enough: milliseconds that one product has to take.
        most: the largest side; a GPU is measured at that one.
    """
    side = most if device.type == "cuda" else 128
    while True:
        rate = matmul_tflops(side, dtype, device, 3 if device.type != "cuda" else 20)
        if side >= most or 2 * side**3 / rate / 1e9 >= enough:
            return rate if device.type == "cuda" else max(rate, matmul_tflops(side, dtype, device, 5))
        side *= 2


def copy_bytes_per_second(size: int, device: torch.device, repeats: int = 20) -> float:
    """The rate of a copy within a device: bytes that are read and written together, a second.

    Args:
        size: bytes that are copied.
        device: where.
        repeats: how often; the median counts.
    """
    source = torch.empty(size, dtype=torch.uint8, device=device).random_()
    target = torch.empty_like(source)
    work = _finished(lambda: target.copy_(source), device)
    return 2000 * size / milliseconds(work, device.type == "cuda", repeats)


def sum_bytes_per_second(
    device: torch.device, dtype: torch.dtype, shape: Sequence[int] = FEATURE, count: int = COUNT, repeats: int = 7
) -> float:
    """The rate of the weighted sum of features: bytes that it has to read and write together, a second.

    Args:
        device: where the features are.
        dtype: theirs.
        shape: theirs.
        count: how many.
        repeats: how often; the median counts.
    """
    features = [torch.randn(*shape, device=device, dtype=dtype) for _ in range(count)]
    weights = [(-1.0) ** k * (1 + k) / 4 for k in range(count)]
    sums.prepare(device)
    work = _finished(lambda: sums.weighted_sum(weights, features), device)
    return 1000 * (count + 1) * features[0].nbytes / milliseconds(work, device.type == "cuda", repeats)


def _finished(work: Callable[[], Any], device: torch.device) -> Callable[[], Any]:
    """The work, and on devices whose time is the host's the wait for its end."""
    if device.type in ("cpu", "cuda"):
        return work

    def waited() -> None:
        work()
        torch.accelerator.synchronize(device)

    return waited
