"""Fidelity to the uncached run: PSNR and SSIM of picture pairs, on float images."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from spectrum.errors import refuse


def load_images(folder: Path, files: list[str]) -> Tensor:
    """PNG files as (count, 3, height, width) float32 in [0, 1]. Refuses a file that is missing or damaged."""
    images = []
    for name in files:
        try:
            with Image.open(folder / name) as image:
                images.append(torch.from_numpy(np.asarray(image.convert("RGB")).copy()))
        except FileNotFoundError:
            refuse(f"{folder / name} is missing: run the same command again to sample it")
        except (UnidentifiedImageError, OSError):
            refuse(f"{folder / name} is not a whole picture: delete it and run the same command again")
    return torch.stack(images).permute(0, 3, 1, 2).float() / 255


def psnr(samples: Tensor, reference: Tensor) -> list[float]:
    """Peak signal-to-noise ratio in dB of each pair, `-10 log10(mean squared difference)`; infinite for equal pairs.

    Both (count, 3, height, width), float in [0, 1]. Integer images are refused: their differences wrap around.
    """
    if not (samples.is_floating_point() and reference.is_floating_point()):
        refuse("PSNR takes float images in [0, 1]; divide 8-bit ones by 255 first")
    error = (samples.double() - reference.double()).square().flatten(1).mean(1)
    return (-10 * torch.log10(error)).tolist()


def ssim(samples: Tensor, reference: Tensor) -> list[float]:
    """Structural similarity of each pair (Wang et al. 2004: Gaussian window of sigma 1.5), by torchmetrics."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    values = structural_similarity_index_measure(samples, reference, data_range=1.0, reduction="none")
    return values.reshape(-1).tolist()  # pyright: ignore[reportAttributeAccessIssue]
