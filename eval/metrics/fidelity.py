"""Fidelity: how close each picture is to the one that the uncached run makes of the same noise.

The functions named `*_of` take tensors; those named like a metric take `Pictures`, see `eval.metrics.metric`. All work
on float pictures in [0, 1].
"""

import functools
import importlib.util
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from eval.metrics.files import metric_item, needed
from eval.metrics.metric import AbsentError, Result, import_package, paired_batches, weights_file
from eval.metrics.pictures import Pictures
from spectrum.core.errors import refuse
from spectrum.models.sources import Item

Net = Literal["alex", "vgg"]
"""The backbones that LPIPS and ST-LPIPS have heads for."""
SSIM_WINDOW, SSIM_SIGMA = 11, 1.5
"""Height and width of SSIM's window and the deviation of its Gaussian, in pixels."""
BRIGHTNESS, CONTRAST = 0.01**2, 0.03**2
"""SSIM's constants for pixels that range from 0 to 1."""
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""MS-SSIM's exponents, the finest scale first."""
Pictured = Pictures | None
"""The uncached run's pictures. The metrics here refuse None: they compare in pairs."""


def psnr_of(samples: Tensor, reference: Tensor) -> list[float]:
    """Peak signal-to-noise ratio of each pair, `-10 log10(mean squared difference)`.

    The bench reads both pictures from PNG files of 8 bits, so both have been rounded to 1/255. `scripts/eight_bits.py`
    measures what that changes against the pipeline's own float pictures.

    Args:
        samples: (count, 3, height, width), float in [0, 1].
        reference: the same shape.

    Returns:
        One PSNR per pair in dB; infinite where the two are equal.

    Raises:
        SpectrumError: for integer tensors, because differences of 8-bit values wrap around.

    Example:
        >>> black, grey = torch.zeros(1, 3, 8, 8), torch.full((1, 3, 8, 8), 0.1)
        >>> round(psnr_of(grey, black)[0], 3)
        20.0
    """
    if not (samples.is_floating_point() and reference.is_floating_point()):
        refuse("PSNR takes float images in [0, 1]; divide 8-bit ones by 255 first")
    error = (samples - reference).square().flatten(1).mean(1, dtype=torch.float64)
    return (-10 * torch.log10(error)).tolist()


def ssim_of(samples: Tensor, reference: Tensor) -> list[float]:
    """Structural similarity of each pair (Wang et al. 2004), over the places where the window lies within the picture.

    The window is a Gaussian of sigma 1.5 over 11x11 pixels, so 5 pixels at each edge are left out, as the authors and
    scikit-image do. torchmetrics pads pictures by reflection, which gives higher values.

    Args:
        samples: (count, 3, height, width), float in [0, 1]. Both sides are at least 11 pixels.
        reference: the same shape.

    Returns:
        One SSIM per pair, the mean over places and colours; 1 where the two are equal.

    Example:
        >>> picture = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        >>> [round(value, 4) for value in ssim_of(picture, picture)]
        [1.0]
    """
    return _similarity(samples.double(), reference.double())[0].tolist()


def ms_ssim_of(samples: Tensor, reference: Tensor) -> list[float]:
    """Multi-scale structural similarity of each pair (Wang et al. 2003), with the window of `ssim_of` at each scale.

    There are five scales, each the means of 2x2 pixels of the one before. The result is the product, with the authors'
    exponents, of the mean contrast and structure of the first four (of a negative mean, 0) and the SSIM of the last.
    torchmetrics pads the last scale by reflection.

    Args:
        samples: (count, 3, height, width), float in [0, 1]. Both sides are at least 176 pixels.
        reference: the same shape.

    Returns:
        One MS-SSIM per pair, 1 where the two are equal.
    """
    pair = samples.double(), reference.double()
    found = torch.ones(len(samples), dtype=torch.float64)
    for scale, exponent in enumerate(SCALES, 1):
        ssim, structure = _similarity(*pair)
        found = found * (ssim if scale == len(SCALES) else structure).clamp(min=0) ** exponent
        pair = tuple(torch.nn.functional.avg_pool2d(side, 2) for side in pair)
    return found.tolist()


def _similarity(samples: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """The means over places and colours of SSIM and of its part without brightness, (count,) each.

    In float64: on plain grounds the variances are differences of nearly equal numbers, and float32 is off by 1e-4.
    """
    places = torch.arange(SSIM_WINDOW, dtype=torch.float64) - SSIM_WINDOW // 2
    weights = (-0.5 * (places / SSIM_SIGMA) ** 2).exp()
    weights = weights / weights.sum()

    def mean(pictures: Tensor) -> Tensor:
        for side in (-1, -2):
            count = pictures.shape[side] - SSIM_WINDOW + 1
            shifted = (weight * pictures.narrow(side, n, count) for n, weight in enumerate(weights.tolist()))
            pictures = functools.reduce(torch.add, shifted)
        return pictures

    ours, theirs = mean(samples), mean(reference)
    spread = mean(samples * samples) - ours * ours + mean(reference * reference) - theirs * theirs
    together = mean(samples * reference) - ours * theirs
    structure = (2 * together + CONTRAST) / (spread + CONTRAST)
    brightness = (2 * ours * theirs + BRIGHTNESS) / (ours * ours + theirs * theirs + BRIGHTNESS)
    return (structure * brightness).mean((1, 2, 3)), structure.mean((1, 2, 3))


def _each(values: Any) -> list[float]:
    """A tensor of one value per pair as a list of floats."""
    return values.reshape(-1).double().tolist()


def _over(
    name: str, samples: Pictures, reference: Pictured, function: Callable[[Tensor, Tensor], list[float]], **facts: Any
) -> Result:
    """Compare samples and reference batch by batch; `facts` become the provenance."""
    values = [v for own, other in paired_batches(name, samples, reference) for v in function(own, other)]
    return Result.per_sample(values, **facts)


def _need_sides(name: str, samples: Pictures, least: int) -> None:
    if min(samples.size) < least:
        width, height = samples.size
        raise AbsentError(f"{name} needs sides of {least} pixels or more, and these pictures have {width}x{height}")


def psnr(samples: Pictures, reference: Pictured, prompts: Sequence[str]) -> Result:
    """The metric `psnr`: `psnr_of` each pair of 8-bit pictures, in dB. Its mean is over the pairs that differ."""
    return _over("psnr", samples, reference, psnr_of)


def ssim(samples: Pictures, reference: Pictured, prompts: Sequence[str]) -> Result:
    """The metric `ssim`: `ssim_of` each pair.

    Raises:
        AbsentError: for pictures with a side below 11 pixels, which the window does not fit into.
    """
    _need_sides("ssim", samples, SSIM_WINDOW)
    return _over("ssim", samples, reference, ssim_of)


def ms_ssim(samples: Pictures, reference: Pictured, prompts: Sequence[str]) -> Result:
    """The metric `ms_ssim`: `ms_ssim_of` each pair.

    Raises:
        AbsentError: for pictures with a side below 176 pixels, which the window does not fit into at the fifth
            scale.
    """
    _need_sides("ms_ssim", samples, 176)
    return _over("ms_ssim", samples, reference, ms_ssim_of)


def lpips(
    samples: Pictures, reference: Pictured, prompts: Sequence[str], *, net: Net = "alex", weights: str | None = None
) -> Result:
    """The metric `lpips`: the perceptual distance LPIPS (Zhang et al. 2018) of each pair, computed by torchmetrics.

    Only the linear heads of LPIPS ship with torchmetrics; the backbone's weights have to be on this machine.

    Args:
        samples: the method's pictures.
        reference: the uncached run's pictures.
        prompts: not used.
        net: the backbone, `alex` or `vgg`.
        weights: the backbone's file; None for the one in torch hub's cache, the only place where torchmetrics looks.

    Raises:
        AbsentError: if the backbone's file is missing.
        SpectrumError: for a file outside torch hub's cache.
    """
    check_lpips(net=net, weights=weights)
    item = _lpips_item(net)
    hub = item.sources[0].target
    _, digest = weights_file("lpips", hub, item.how)
    import_package("torchvision", "torchvision", "lpips")
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    model = LearnedPerceptualImagePatchSimilarity(net).eval()

    @torch.no_grad()
    def distance(own: Tensor, other: Tensor) -> list[float]:
        return _each(model.net(2 * own - 1, 2 * other - 1))

    return _over("lpips", samples, reference, distance, backbone=hub.name, sha256=digest)


def check_lpips(*, net: Net = "alex", weights: str | None = None) -> None:
    """Check the parameters of `lpips`.

    Args:
        net: the backbone.
        weights: its file.

    Raises:
        SpectrumError: for a file outside torch hub's cache.
    """
    hub = _lpips_item(net).sources[0].target
    if weights and Path(weights).expanduser() != hub:
        refuse(
            f"torchmetrics does not read eval.lpips.weights={weights}: copy the file to {hub}, and leave "
            "eval.lpips.weights out"
        )


def _lpips_item(net: Net) -> Item:
    return metric_item(str(needed("lpips", {"net": net})))


def st_lpips(samples: Pictures, reference: Pictured, prompts: Sequence[str], *, net: Net = "alex") -> Result:
    """The metric `st_lpips`: the perceptual distance ST-LPIPS (Ghildyal and Liu 2022) of each pair.

    A shift by a pixel hardly changes it. It is not comparable with LPIPS. The package `stlpips-pytorch` computes it,
    and ships its weights.

    Args:
        samples: the method's pictures, 64 pixels or more on each side.
        reference: the uncached run's pictures.
        prompts: not used.
        net: the backbone, `alex` or `vgg`.

    Raises:
        AbsentError: if the package is missing.
    """
    with _stubbed("IPython", "torchsummary"):
        module = import_package("stlpips_pytorch.stlpips", "stlpips-pytorch", "st_lpips")
    folder = Path(module.__file__).parent / "weights" / "vST0.0"
    _, digest = weights_file("st_lpips", folder / f"{net}_shift_tolerant.pth", "reinstall stlpips-pytorch")
    model = module.LPIPS(net=net, variant="shift_tolerant", verbose=False).eval()

    @torch.no_grad()
    def distance(own: Tensor, other: Tensor) -> list[float]:
        return _each(model(own, other, normalize=True))

    return _over("st_lpips", samples, reference, distance, backbone=f"{net}_shift_tolerant", sha256=digest)


@contextmanager
def _stubbed(*names: str) -> Iterator[None]:
    """Let a package import modules that it does not use here, by empty stand-ins for those that are not installed."""
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
