"""Metrics that compare two sets of pictures as a whole: FID, KID, and the Frechet distance on EfficientNet-Lite0.

The pictures need not be paired. The distances themselves are in `eval.metrics.distances`.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eval.metrics.distances import Array, Moments, frechet, kernel_distance
from eval.metrics.files import INCEPTION, hub_checkpoints
from eval.metrics.lite0 import WIDTH, Features, lite0_features
from eval.metrics.metric import AbsentError, Result, import_package, need_reference, weights_file
from eval.metrics.pictures import Pictures
from spectrum.core.errors import check_number, refuse
from spectrum.models.sources import COMMAND

CLEAN_FID = Path("/tmp")
"""The folder that clean-fid downloads Inception to."""
ENOUGH = 2048
"""Samples from which on a Frechet distance carries no warning."""


def feature_batches(pictures: Pictures, features: Features, batch: int = 64) -> Iterator[Array]:
    """The features of a set, batch by batch.

    Args:
        pictures: the set.
        features: the network.
        batch: pictures per batch.

    Returns:
        Arrays (n, columns), float64, with n up to `batch`.
    """
    for images in pictures.batches(batch):
        with torch.no_grad():
            yield features(images).double().numpy()


def moments_of(pictures: Pictures, features: Features) -> Moments:
    """Mean and covariance of the features of a set.

    Args:
        pictures: the set.
        features: the network.
    """
    found = Moments()
    for rows in feature_batches(pictures, features):
        found.add(rows)
    return found


def _warning(count: int) -> str:
    return f"from {count} samples; below {ENOUGH} a Frechet distance is biased upwards" if count < ENOUGH else ""


def _other_set(name: str, samples: Pictures, reference: Pictures | None) -> Pictures:
    """The reference, for a metric of two sets that have two pictures or more each."""
    other = need_reference(name, reference)
    if min(len(samples), len(other)) < 2:
        raise AbsentError(
            f"{name} needs two pictures or more on either side, and there are {len(samples)} and {len(other)}: sample "
            "more prompts or seeds"
        )
    return other


def _frechet(name: str, samples: Pictures, reference: Pictures | None, features: Features, **facts: Any) -> Result:
    """The Frechet distance of two sets as a metric's result; `facts` become part of the provenance."""
    other = _other_set(name, samples, reference)
    value = frechet(moments_of(samples, features), moments_of(other, features))
    return Result(value, None, _counts(samples, other) | facts, _warning(len(samples)))


def _counts(samples: Pictures, other: Pictures) -> dict[str, Any]:
    return {"samples": len(samples), "reference": len(other)}


def frechet_lite0(
    samples: Pictures, reference: Pictures | None, prompts: Sequence[str], *, dimensions: int | None = None
) -> Result:
    """The metric `frechet_lite0`: the Frechet distance of EfficientNet-Lite0's pooled features.

    It needs no download, because a package ships the network, trained on ImageNet. It is not comparable with FID.

    Args:
        samples: the method's pictures.
        reference: the uncached run's pictures.
        prompts: not used.
        dimensions: the features are projected on as many principal axes of the reference's features, those of the
            largest variance first; None for all 1280 features as they are. Few pictures say little of 1280 variances.

    Raises:
        AbsentError: if the packages are missing, a set has fewer than two pictures, or the reference has no more
            pictures than `dimensions`.
        SpectrumError: if there is no reference.
    """
    features, digest = lite0_features()
    facts = {"backbone": "efficientnet_lite0", "sha256": digest}
    if dimensions is None:
        return _frechet("frechet_lite0", samples, reference, features, **facts)
    other = _other_set("frechet_lite0", samples, reference)
    if len(other) <= dimensions:
        raise AbsentError(
            f"frechet_lite0 in {dimensions} dimensions needs {dimensions + 1} pictures or more of the uncached run, "
            f"and there are {len(other)}: sample more prompts or seeds, or type a smaller eval.frechet_lite0.dimensions"
        )
    ours, theirs = moments_of(samples, features), moments_of(other, features)
    value = frechet(ours, theirs, theirs.principal_axes(dimensions))
    where = f"on {dimensions} principal axes of the reference's {WIDTH} features, {_warning(len(samples))}"
    return Result(value, None, _counts(samples, other) | {"dimensions": dimensions} | facts, where.rstrip(", "))


def check_frechet_lite0(*, dimensions: int | None = None) -> None:
    """Check the parameters of `frechet_lite0`.

    Args:
        dimensions: principal axes of the features.

    Raises:
        SpectrumError: for anything but a whole number from 1 to 1280.
    """
    if dimensions is not None:
        check_number("eval.frechet_lite0.dimensions", dimensions, low=1, integer=True)
        if dimensions > WIDTH:
            refuse(
                f"eval.frechet_lite0.dimensions must be at most {WIDTH}, got {dimensions}: there are no more features"
            )


def fid(samples: Pictures, reference: Pictures | None, prompts: Sequence[str], *, weights: str | None = None) -> Result:
    """The metric `fid`: the Frechet distance of Inception's 2048 pooled features.

    They are those of clean-fid (Parmar et al. 2022).

    Args:
        samples: the method's pictures.
        reference: the uncached run's pictures.
        prompts: not used.
        weights: see `inception_features`.

    Raises:
        AbsentError: if the package clean-fid or the network's file is missing, or a set has fewer than two pictures.
        SpectrumError: if there is no reference.
    """
    features, facts = inception_features("fid", weights)
    return _frechet("fid", samples, reference, features, **facts)


def kid(samples: Pictures, reference: Pictures | None, prompts: Sequence[str], *, weights: str | None = None) -> Result:
    """The metric `kid`: 1000 times the kernel distance of the features that `fid` uses.

    Arguments and errors are those of `fid`.
    """
    features, facts = inception_features("kid", weights)
    other = _other_set("kid", samples, reference)
    rows = [np.concatenate(list(feature_batches(p, features))) for p in (samples, other)]
    mean, spread = kernel_distance(rows[0], rows[1])
    return Result(1000 * mean, None, {"samples": len(samples), "spread": 1000 * spread, **facts})


def inception_features(metric: str, weights: str | None) -> tuple[Features, dict[str, Any]]:
    """Inception as clean-fid's feature extractor, with clean-fid's resizing to 299x299 pixels.

    Args:
        metric: the metric that needs it, for messages.
        weights: the TorchScript file `inception-2015-12-05.pt`; None for the one in torch hub's checkpoints, or where
            clean-fid keeps it.

    Returns:
        The function from pictures to features (n, 2048), and its provenance: the file's name and SHA-256.

    Raises:
        AbsentError: if clean-fid or the file is missing, or the file is no TorchScript.
    """
    import_package("cleanfid", "clean-fid", metric)
    how = f"type {COMMAND} fid, or eval.{metric}.weights=FILE"
    places = hub_checkpoints() / INCEPTION, CLEAN_FID / INCEPTION
    path, digest = weights_file(metric, weights or next((p for p in places if p.is_file()), places[0]), how)
    from cleanfid.resize import build_resizer

    try:
        model = torch.jit.load(str(path)).eval()
    except RuntimeError as error:
        raise AbsentError(f"{metric}: {path} is no TorchScript file ({str(error).splitlines()[0]}): {how}") from None
    resize = build_resizer("clean")

    def features(images: Tensor) -> Tensor:
        pixels = (images.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
        sized = np.stack([resize(picture) for picture in pixels]).transpose(0, 3, 1, 2)
        return model(torch.from_numpy(sized).float(), return_features=True)

    return features, {"backbone": path.name, "sha256": digest}
