"""The weighted sum of stored features on a GPU: one Triton kernel, which reads each feature once and writes the sum."""

import functools
import warnings
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024
MOST = 64
"""Features that one kernel can take."""

_DTYPES = (torch.bfloat16, torch.float16, torch.float32)


@triton.jit(do_not_specialize=["count", "size"])
def _weighted_sum(  # noqa: ANN202
    out,  # noqa: ANN001
    features,  # noqa: ANN001
    weights,  # noqa: ANN001
    count,  # noqa: ANN001
    size,  # noqa: ANN001
    SLOTS: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
):
    """`out = sum_k weights[k] * features[k]` in float32; slots from `count` on are not read."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for slot in tl.static_range(SLOTS):  # pyright: ignore[reportGeneralTypeIssues]
        given = tl.full((BLOCK,), slot, tl.int32) < count
        value = tl.load(features[slot] + at, mask=inside & given, other=0.0)
        total += weights[slot] * value.to(tl.float32)
    tl.store(out + at, total.to(out.dtype.element_ty), mask=inside)


def serves(features: Sequence[Tensor]) -> bool:
    """Whether the kernel can sum these features.

    Args:
        features: at least one tensor on a GPU.

    Returns:
        True for few enough of one shape, dtype, device and layout without gaps, of which no gradient is asked, on a GPU
        that Triton can use.
    """
    first = features[0]
    alike = all(
        f.shape == first.shape and f.dtype == first.dtype and f.device == first.device and f.stride() == first.stride()
        for f in features
    )
    if not alike or len(features) > MOST or first.dtype not in _DTYPES or not _dense(first) or not first.numel():
        return False
    if torch.is_grad_enabled() and any(f.requires_grad for f in features):
        return False
    return works(first.device)


@functools.cache
def works(device: torch.device) -> bool:
    """Whether Triton can compile the kernel and run it on a device. It is tried once, which waits for the device.

    Args:
        device: a GPU.

    Returns:
        False, with a warning that says why, where Triton lacks a compiler or does not know the GPU.

    Raises:
        torch.OutOfMemoryError: if the GPU is full.
    """
    try:
        pair = [torch.full((2,), value, device=device) for value in (1.0, 3.0)]
        if weighted_sum([-1.0, 2.0], pair).tolist() == [5.0, 5.0]:
            return True
        reason = "its result is wrong"
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
    warnings.warn(f"Triton cannot be used on {device} ({reason}): forecasts are summed slower", stacklevel=2)
    return False


def _dense(tensor: Tensor) -> bool:
    """Whether a tensor's elements fill one piece of memory."""
    return tensor.is_contiguous() or torch.empty_like(tensor, device="meta").stride() == tensor.stride()


def weighted_sum(weights: Sequence[float], features: Sequence[Tensor]) -> Tensor:
    """See `spectrum.core.sums.weighted_sum`.

    The kernel is compiled for 2, 4, 8, ... features; a call with fewer passes over the rest.
    """
    out = torch.empty_like(features[0])
    count, slots = len(features), 2
    while slots < count:
        slots *= 2
    spare = slots - count
    tensors = (*features, *[features[-1]] * spare)
    numbers = (*map(float, weights), *[0.0] * spare)
    grid = (triton.cdiv(out.numel(), BLOCK),)
    with torch.cuda.device(out.device):
        kernel: Any = _weighted_sum[grid]
        kernel(out, tensors, numbers, count, out.numel(), SLOTS=slots, BLOCK=BLOCK)
    return out
