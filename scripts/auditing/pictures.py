"""Digests, PSNR and SSIM from the pictures of a run and of its uncached run."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import correlate1d

from auditing.findings import PICTURES, Findings
from auditing.records import Record

RADIUS, SIGMA = 5, 1.5
"""SSIM's window: 11 x 11 pixels, Gaussian."""


def files_of(record: Record) -> list[str]:
    """The file names of a record's samples, in order."""
    return [f"{index:05d}-s{seed}.png" for index in range(len(record["prompts"])) for seed in record["seeds"]]


def folder_of(name: str, samples: Path) -> Path | None:
    """The folder of a run's pictures below a folder; None if it is not there."""
    return next((path for path in sorted(samples.rglob(f"{name}/images")) if path.is_dir()), None)


def check_pictures(records: Mapping[str, Record], samples: Path, findings: Findings) -> None:
    """Compare what the records say with the pictures below a folder."""
    for name, record in records.items():
        folder = folder_of(name, samples)
        if folder is None:
            findings.leave(f"pictures that are not below {samples}")
            continue
        for file, digest in zip(files_of(record), record["digests"], strict=False):
            findings.compare("digests of pictures", f"{name} {file}", digest, file_digest(folder / file))
        full = folder_of(record["reference"], samples)
        if full is not None and name != record["reference"]:
            _fidelity(name, record, folder, full, findings)


def _fidelity(name: str, record: Record, folder: Path, full: Path, findings: Findings) -> None:
    values = {m: record["metrics"][m]["values"] for m in ("psnr", "ssim") if m in record["metrics"]}
    for number, file in enumerate(files_of(record)):
        if not ((folder / file).exists() and (full / file).exists()):
            continue
        try:
            picture, other = pixels(folder / file), pixels(full / file)
        except (OSError, SyntaxError):
            findings.leave("PSNR and SSIM of pictures that cannot be read, whose digest is wrong")
            continue
        if picture is None or other is None:
            findings.leave("PSNR and SSIM of videos")
            return
        for metric, function in (("psnr", psnr), ("ssim", ssim)):
            if metric in values:
                made = function(picture, other)
                findings.compare(
                    f"{metric.upper()} of pictures", f"{name} {file}", values[metric][number], made, PICTURES
                )


def file_digest(path: Path) -> str:
    """The first 16 hex digits of a file's SHA-256; `missing` if there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.exists() else "missing"


def pixels(path: Path) -> NDArray[Any] | None:
    """(height, width, 3), 0 to 1; None for a video."""
    with Image.open(path) as image:
        if getattr(image, "n_frames", 1) > 1:
            return None
        return np.asarray(image.convert("RGB"), dtype=float) / 255


def psnr(picture: NDArray[Any], other: NDArray[Any]) -> float | None:
    """Peak signal-to-noise ratio of values from 0 to 1, in dB; None for equal pictures."""
    error = np.mean((picture - other) ** 2)
    return float(-10 * np.log10(error)) if error else None


def ssim(picture: NDArray[Any], other: NDArray[Any]) -> float:
    """Structural similarity over the windows that lie inside the picture whole; by scikit-image where it is here."""
    try:
        from skimage.metrics import structural_similarity
    except ImportError:
        return ssim_by_hand(picture, other)
    window = {"gaussian_weights": True, "sigma": SIGMA, "use_sample_covariance": False}
    found: Any = structural_similarity(picture, other, data_range=1.0, channel_axis=2, **window)
    return float(found)


def ssim_by_hand(picture: NDArray[Any], other: NDArray[Any]) -> float:
    """`ssim` with SciPy alone."""
    offsets = np.arange(-RADIUS, RADIUS + 1)
    window = np.exp(-(offsets**2) / (2 * SIGMA**2))

    def smooth(values: NDArray[Any]) -> NDArray[Any]:
        weights = window / window.sum()
        return correlate1d(correlate1d(values, weights, axis=0), weights, axis=1)

    means = smooth(picture), smooth(other)
    spread = [smooth(a * b) - m * n for a, b, m, n in ((picture, picture, means[0], means[0]),
              (other, other, means[1], means[1]), (picture, other, *means))]  # fmt: skip
    low, high = 0.01**2, 0.03**2
    found = (2 * means[0] * means[1] + low) * (2 * spread[2] + high)
    found /= (means[0] ** 2 + means[1] ** 2 + low) * (spread[0] + spread[1] + high)
    return float(found[RADIUS:-RADIUS, RADIUS:-RADIUS].mean())
