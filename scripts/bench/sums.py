"""The weighted sum of stored features alone: our ways and the obvious ones, against a copy of the same bytes."""

import functools
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from spectrum.bench.rates import milliseconds
from spectrum.core import sums

SIZES = {"FLUX.1 1024": (4096, 3072), "Wan2.1-14B 480p": (32760, 5120), "HunyuanVideo 544p": (32640, 3072)}
COUNTS = 4, 8, 14


def _matmul(weights: Sequence[float], features: Sequence[Tensor]) -> Tensor:
    stacked = torch.stack(list(features)).float().flatten(1)
    row = torch.tensor([weights], dtype=torch.float32, device=stacked.device)
    return (row @ stacked).view(features[0].shape).to(features[0].dtype)


def _foreach(weights: Sequence[float], features: Sequence[Tensor]) -> Tensor:
    terms = torch._foreach_mul([feature.float() for feature in features], list(weights))
    return torch.stack(terms).sum(0).to(features[0].dtype)


def _plain(weights: Tensor, features: Sequence[Tensor]) -> Tensor:
    total = weights[0] * features[0].float()
    for number in range(1, len(features)):
        total = total + weights[number] * features[number].float()
    return total.to(features[0].dtype)


def _compiled() -> Callable[[Sequence[float], Sequence[Tensor]], Tensor]:
    torch.compiler.reset()
    inner = torch.compile(_plain, dynamic=False)

    def call(weights: Sequence[float], features: Sequence[Tensor]) -> Tensor:
        return inner(torch.tensor(weights, device=features[0].device), list(features))

    return call


def ways() -> dict[str, Callable[[Sequence[float], Sequence[Tensor]], Tensor]]:
    """The ways to make the sum, by name; `chosen` is the library's own."""
    return {
        "chosen": sums.weighted_sum,
        "one addition each": sums.by_additions,
        "float32 matmul": _matmul,
        "foreach": _foreach,
        "compiled": _compiled(),
    }


def measured(
    device: torch.device, small: bool, repeats: int = 25, sizes: Sequence[str] = tuple(SIZES)
) -> Iterator[dict[str, Any]]:
    """Time every way at every size and count of features.

    Args:
        device: where.
        small: at toy sizes, to try it.
        repeats: timed calls of each.
        sizes: the names of the sizes.

    Yields:
        A row for each size, count and way: `ms`, `of_copy` (the rate of useful bytes over that of the copies before
        and behind it), `error_ulp` (the largest difference from the float64 sum in units of the last place of the
        result); and one for the copies.
    """
    cuda = device.type == "cuda"
    for size, full in ((name, SIZES[name]) for name in sizes):
        for count in COUNTS:
            shape = (16, 32) if small else full
            generator = torch.Generator(device).manual_seed(count)
            features = [torch.randn(shape, generator=generator, device=device).bfloat16() for _ in range(count)]
            weights = [(-1.0) ** k * (1 + k) / 4 for k in range(count)]
            about = {"size": size, "features": count, "bytes": (count + 1) * features[0].nbytes}
            copy = _copy(about["bytes"], device)
            copies = [milliseconds(copy, cuda, repeats)]
            exact, unit = _exact(weights, features)
            for name, way in ways().items():
                error = float(((way(weights, features)[:64].double() - exact) / unit).abs().max())
                spent = milliseconds(functools.partial(way, weights, features), cuda, repeats)
                copies.append(milliseconds(copy, cuda, repeats))
                beside = sum(copies[-2:]) / 2
                yield {**about, "way": name, "ms": spent, "of_copy": beside / spent, "error_ulp": error}
            yield {**about, "way": "copy", "ms": statistics.median(copies), "all_ms": copies}


def _copy(size: int, device: torch.device) -> Callable[[], Any]:
    """A copy that reads half of so many bytes and writes the other half."""
    source = torch.empty(size // 2, dtype=torch.uint8, device=device).random_()
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def _exact(weights: Sequence[float], features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The sum in float64 of the first rows, and the size of one unit in the last place of it."""
    total = sum(w * f[:64].double() for w, f in zip(weights, features, strict=True))
    assert isinstance(total, Tensor)
    return total, torch.exp2(total.abs().clamp_min(1e-30).log2().floor()) * torch.finfo(features[0].dtype).eps
