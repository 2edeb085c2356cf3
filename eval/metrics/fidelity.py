"""Fidelity to the uncached run, picture by picture, on float images in [0, 1]."""

import importlib.util
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eval.metrics.files import metric_item, needed
from eval.metrics.metric import AbsentError, Result, package, paired_batches, weights_file
from eval.metrics.pictures import Pictures
from spectrum.core.errors import refuse

Pictured = Pictures | None


def psnr_of(samples: Tensor, reference: Tensor) -> list[float]:
    """Peak signal-to-noise ratio in dB of each pair, `-10 log10(mean squared difference)`; infinite for equal pairs.

    Both (count, 3, height, width), float in [0, 1]. Integer images are refused: their differences wrap around.
    """
    if not (samples.is_floating_point() and reference.is_floating_point()):
        refuse("PSNR takes float images in [0, 1]; divide 8-bit ones by 255 first")
    error = (samples - reference).square().flatten(1).mean(1, dtype=torch.float64)
    return (-10 * torch.log10(error)).tolist()


def ssim_of(samples: Tensor, reference: Tensor) -> list[float]:
    """Structural similarity of each pair (Wang et al. 2004: Gaussian window of sigma 1.5), by torchmetrics."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    return _each(structural_similarity_index_measure(samples, reference, data_range=1.0, reduction="none"))


def ms_ssim_of(samples: Tensor, reference: Tensor) -> list[float]:
    """Multi-scale structural similarity of each pair (Wang et al. 2003), by torchmetrics; sides above 160 pixels."""
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    return _each(multiscale_structural_similarity_index_measure(samples, reference, data_range=1.0, reduction="none"))


def _each(values: Any) -> list[float]:
    return values.reshape(-1).double().tolist()


def _over(
    name: str, samples: Pictures, reference: Pictured, function: Callable[[Tensor, Tensor], list[float]], **facts: Any
) -> Result:
    values = [v for own, other in paired_batches(name, samples, reference) for v in function(own, other)]
    return Result.per_sample(values, **facts)


def psnr(samples: Pictures, reference: Pictured, prompts: Sequence[str]) -> Result:
    """`psnr_of` every pair; the mean is over the pairs that differ."""
    return _over("psnr", samples, reference, psnr_of)


def ssim(samples: Pictures, reference: Pictured, prompts: Sequence[str]) -> Result:
    """`ssim_of` every pair."""
    return _over("ssim", samples, reference, ssim_of)


def ms_ssim(samples: Pictures, reference: Pictured, prompts: Sequence[str]) -> Result:
    """`ms_ssim_of` every pair. AbsentError for pictures of 160 pixels or less: the fifth scale has no room there."""
    if min(samples.size) <= 160:
        width, height = samples.size
        raise AbsentError(f"ms_ssim needs sides above 160 pixels, and these pictures have {width}x{height}")
    return _over("ms_ssim", samples, reference, ms_ssim_of)


def lpips(
    samples: Pictures, reference: Pictured, prompts: Sequence[str], *, net: str = "alex", weights: str | None = None
) -> Result:
    """LPIPS (Zhang et al. 2018) of every pair, by torchmetrics, backbone `alex` or `vgg` from `weights`.

    AbsentError where the backbone's file is not in the torch hub's cache or at `weights`: only its linear heads ship.
    """
    name = needed("lpips", {"net": net})
    if name is None:
        refuse(f"eval.lpips.net={net} is unknown: type one of alex, vgg")
    item = metric_item(name)
    hub = item.sources[0].target
    path, digest = weights_file("lpips", weights or hub, item.how)
    package("torchvision", "torchvision", "lpips")
    if path != hub:
        refuse(f"torchmetrics reads this backbone from its cache alone: copy {path} to {hub}")
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    model = LearnedPerceptualImagePatchSimilarity(net, normalize=True).eval()  # pyright: ignore[reportArgumentType]

    @torch.no_grad()
    def distance(own: Tensor, other: Tensor) -> list[float]:
        return _each(model.net(2 * own - 1, 2 * other - 1))

    return _over("lpips", samples, reference, distance, backbone=hub.name, sha256=digest)


def st_lpips(samples: Pictures, reference: Pictured, prompts: Sequence[str], *, net: str = "alex") -> Result:
    """ST-LPIPS (Ghildyal and Liu 2022) of every pair: a distance that shifts of a pixel do not move. Not LPIPS.

    By the package `stlpips-pytorch`, which ships its weights. Pictures smaller than 64 pixels are refused by its net.
    """
    if net not in ("alex", "vgg"):
        refuse(f"eval.st_lpips.net={net} is unknown: type alex or vgg")
    with _stubbed("IPython", "torchsummary"):
        module = package("stlpips_pytorch.stlpips", "stlpips-pytorch", "st_lpips")
    folder = Path(module.__file__).parent / "weights" / "vST0.0"
    _, digest = weights_file("st_lpips", folder / f"{net}_shift_tolerant.pth", "reinstall stlpips-pytorch")
    model = module.LPIPS(net=net, variant="shift_tolerant", verbose=False).eval()

    @torch.no_grad()
    def distance(own: Tensor, other: Tensor) -> list[float]:
        return _each(model(own, other, normalize=True))

    return _over("st_lpips", samples, reference, distance, backbone=f"{net}_shift_tolerant", sha256=digest)


@contextmanager
def _stubbed(*names: str) -> Iterator[None]:
    """Stand in for modules that a package imports and never uses here, where they are not installed."""
    absent = [name for name in names if name not in sys.modules and importlib.util.find_spec(name) is None]
    for name in absent:
        stub = types.ModuleType(name)
        stub.__dict__.update(embed=None, summary=None)
        sys.modules[name] = stub
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]
