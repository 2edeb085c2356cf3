"""What a pipeline's call returned, as one tensor."""

from typing import Any

import torch
from torch import Tensor

from spectrum.core.errors import refuse

NAMES = ("frames", "videos", "images", "image")
"""What pipelines call their samples."""
GREY = 0.5


def samples_in(result: Any, count: int) -> Tensor:
    """The samples that a call with `output_type="pt"` returned.

    A pipeline that makes several pictures of each sample, as Qwen-Image-Layered does its layers, returns a list, whose
    parts are not each a sample's: diffusers 0.42.1 cuts the list one picture too late for each sample.

    Args:
        result: what the pipeline returned.
        count: number of samples.

    Returns:
        (count, channels, height, width); for videos and pictures in layers (count, frames, channels, height, width).

    Raises:
        SpectrumError: if there are none.
    """
    given = (getattr(result, name, None) for name in NAMES)
    found = next((own for own in given if own is not None), None)
    if found is None:
        refuse("the pipeline returns no pictures to fit on or to score: type one that decodes")
    return torch.cat(found).unflatten(0, (count, -1)) if isinstance(found, list) else found


def over_grey(images: Tensor) -> Tensor:
    """Pictures without transparency: those that have it lie over grey, on which white and black both show.

    What colour a picture has where nothing is seen of it makes no difference.

    Args:
        images: (..., 3 or 4, height, width) in [0, 1], red, green, blue and alpha.

    Returns:
        (..., 3, height, width).

    Raises:
        SpectrumError: for pictures of another number of channels.

    Example:
        >>> over_grey(torch.tensor([1.0, 0.0, 0.0, 0.5]).view(4, 1, 1)).flatten().tolist()
        [0.75, 0.25, 0.25]
    """
    channels = images.shape[-3]
    if channels == 3:
        return images
    if channels != 4:
        refuse(f"the pipeline returns pictures of {channels} channels, and only those of 3 and 4 can be stored")
    colours, alpha = images.split((3, 1), dim=-3)
    return alpha * colours + (1 - alpha) * GREY
