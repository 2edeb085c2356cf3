"""What the metrics share that score each picture against its prompt."""

import importlib
import importlib.util
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from eval.metrics.metric import BATCH
from eval.metrics.pictures import Pictures
from spectrum.core.errors import refuse

Preprocess = Callable[[Image.Image], Tensor]
"""From a picture of PIL to a normalised tensor (3, height, width)."""


def check_prompts(name: str, samples: Pictures, prompts: Sequence[str]) -> None:
    """Check that there is one prompt per picture.

    Args:
        name: the metric, for the message.
        samples: the pictures.
        prompts: their prompts.

    Raises:
        SpectrumError: if there is not.
    """
    if len(samples) != len(prompts):
        refuse(f"{name} needs one prompt a picture: there are {len(samples)} pictures and {len(prompts)} prompts")


def check_architecture(key: str, model: str, instead: str) -> None:
    """Check that open_clip knows an architecture. Where open_clip is not installed, nothing is checked.

    Args:
        key: the parameter that names it, `eval.hpsv2.model`.
        model: the architecture.
        instead: what to type instead, for the message.

    Raises:
        SpectrumError: if it does not.
    """
    if importlib.util.find_spec("open_clip") and model not in importlib.import_module("open_clip").list_models():
        refuse(f"{key}={model} is unknown to open_clip: type {instead}")


def preprocessed(images: Tensor, preprocess: Preprocess) -> Tensor:
    """Pass pictures through a network's own preprocessing, which takes 8-bit pictures of PIL.

    Args:
        images: (n, 3, height, width), float in [0, 1].
        preprocess: the network's preprocessing.

    Returns:
        (n, 3, height, width) as `preprocess` makes them.
    """
    pixels = (images.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
    return torch.stack([preprocess(Image.fromarray(np.ascontiguousarray(picture))) for picture in pixels])


def scores(samples: Pictures, prompts: Sequence[str], score: Callable[[Tensor, Sequence[str]], Tensor]) -> list[float]:
    """Score every picture against its prompt, batch by batch.

    Args:
        samples: the pictures.
        prompts: one prompt per picture.
        score: from pictures (n, 3, height, width), float in [0, 1], and their n prompts to scores (n,).

    Returns:
        One score per picture, in order.
    """
    values: list[float] = []
    with torch.no_grad():
        for number, images in enumerate(samples.batches(BATCH)):
            values += score(images, prompts[number * BATCH : number * BATCH + len(images)]).double().tolist()
    return values
