"""The weighted sum of stored features, in one pass over memory where that can be had."""

import functools
from collections.abc import Sequence
from types import ModuleType

import torch
from torch import Tensor

CHUNK = 1 << 18
"""Elements that a thread of a CPU sums at a time: as float32 one MiB, which stays in the caches of its core."""
ON_A_DEVICE = 1 << 22
"""Elements that an accelerator works on at a time where there is no kernel for the whole."""


def weighted_sum(weights: Sequence[float], features: Sequence[Tensor]) -> Tensor:
    """`sum_k weights[k] * features[k]`, each term a multiply-add in float32 (float64 for float64), oldest first.

    On a GPU with Triton one kernel reads every feature once (`spectrum.core.triton_sums`); elsewhere the sum is made in
    chunks that stay in a core's cache, or for other layouts of memory by one addition for each feature.

    Args:
        weights: one finite weight for each feature.
        features: at least one tensor, all of one shape, dtype and device.

    Returns:
        A new tensor in the features' shape and dtype.

    Example:
        >>> weighted_sum([-1.0, 2.0], [torch.ones(2), torch.full((2,), 3.0)])
        tensor([5., 5.])
    """
    first = features[0]
    if torch.compiler.is_compiling():
        return by_additions(weights, features)
    if first.device.type == "cuda" and (kernel := _kernel()) is not None and kernel.serves(features):
        return kernel.weighted_sum(weights, features)
    large = first.device.type == "cpu" and first.numel() > CHUNK
    if large and all(f.is_contiguous() and f.shape == first.shape for f in features):
        return in_chunks(weights, features)
    return by_additions(weights, features)


def prepare(device: torch.device) -> None:
    """Compile the kernel and try it, where a device can have one, so that no later sum waits for the device.

    Args:
        device: where features will be stored.
    """
    if device.type == "cuda" and (kernel := _kernel()) is not None:
        kernel.works(device)


def by_additions(weights: Sequence[float], features: Sequence[Tensor]) -> Tensor:
    """`weighted_sum` by one addition for each feature to an accumulator of the whole size.

    Args:
        weights: see `weighted_sum`.
        features: see there.

    Returns:
        See there.
    """
    first = features[0]
    if first.dtype == torch.promote_types(first.dtype, torch.float32) and first.is_contiguous():
        total = first * weights[0]
        _add_to(total, weights[1:], features[1:])
        return total
    total = _accumulator(first, first.shape)
    _add_up(total, weights, features)
    return total.to(first.dtype)


def in_chunks(weights: Sequence[float], features: Sequence[Tensor]) -> Tensor:
    """`weighted_sum` of contiguous features, `CHUNK` elements at a time for each thread: no temporary is larger.

    Args:
        weights: see `weighted_sum`.
        features: see there; contiguous.

    Returns:
        See there.
    """
    first = features[0]
    result = torch.empty_like(first)
    rows, out = [feature.view(-1) for feature in features], result.view(-1)
    size = CHUNK * torch.get_num_threads()
    scratch = _accumulator(first, (size,))
    for begin in range(0, len(out), size):
        part = slice(begin, begin + size)
        total = scratch[: len(out[part])]
        _add_up(total, weights, [row[part] for row in rows])
        out[part] = total
    return result


def _accumulator(like: Tensor, shape: Sequence[int]) -> Tensor:
    return torch.empty(shape, dtype=torch.promote_types(like.dtype, torch.float32), device=like.device)


def _add_up(total: Tensor, weights: Sequence[float], features: Sequence[Tensor]) -> None:
    """Overwrite `total` by the weighted sum."""
    total.copy_(features[0]).mul_(weights[0])
    _add_to(total, weights[1:], features[1:])


def _add_to(total: Tensor, weights: Sequence[float], features: Sequence[Tensor]) -> None:
    for weight, feature in zip(weights, features, strict=True):
        total.add_(feature, alpha=weight)


@functools.cache
def _kernel() -> ModuleType | None:
    """The module with the Triton kernel; None where Triton is not installed."""
    try:
        from spectrum.core import triton_sums
    except ImportError:
        return None
    return triton_sums
