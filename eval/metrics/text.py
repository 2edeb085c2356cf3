"""Text alignment: the CLIP score, with any model of open_clip or with the small one that ships here."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from eval.metrics.metric import BATCH, AbsentError, Result, package, weights_file
from eval.metrics.pictures import Pictures
from spectrum.core.errors import refuse

EMBEDDED = Path(__file__).resolve().parent.parent / "assets" / "clip_tiny"
UNKNOWN = 1


@dataclass(frozen=True)
class Towers:
    """A CLIP model ready for float pictures and strings.

    Attributes:
        image: (n, 3, height, width) in [0, 1] -> unit vectors (n, width).
        text: n strings -> unit vectors (n, width).
        about: what a record says of it.
    """

    image: Callable[[Tensor], Tensor]
    text: Callable[[Sequence[str]], Tensor]
    about: dict[str, Any]


class Words:
    """A tokenizer of whole words: ids (n, context), 0 padding, 1 unknown, the largest id at the end of each text."""

    def __init__(self, words: Sequence[str], context: int) -> None:
        self.ids = {word: number for number, word in enumerate(words, UNKNOWN + 1)}
        self.end, self.context = len(words) + UNKNOWN + 1, context

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """The ids of `texts`; one that is too long is cut, its end kept."""
        rows = torch.zeros(len(texts), self.context, dtype=torch.long)
        for row, text in zip(rows, texts, strict=True):
            ids = [self.ids.get(word, UNKNOWN) for word in text.lower().split()][: self.context - 1]
            row[: len(ids) + 1] = torch.tensor([*ids, self.end])
        return rows


def clip_score(
    samples: Pictures,
    reference: Pictures | None,
    prompts: Sequence[str],
    *,
    model: str = "tiny",
    checkpoint: str | None = None,
) -> Result:
    """CLIP score (Hessel et al. 2021, unscaled): `100 max(cos(image, text), 0)` of every sample and its prompt.

    `model` is an architecture of open_clip with `checkpoint` its file of weights, or `tiny`, which ships here and knows
    the embedded model's world alone: its provenance holds how well it retrieves.
    """
    if len(samples) != len(prompts):
        refuse(f"clip_score needs one prompt a picture: there are {len(samples)} pictures and {len(prompts)} prompts")
    towers = embedded() if model == "tiny" else open_clip_towers(model, checkpoint)
    values: list[float] = []
    with torch.no_grad():
        for number, images in enumerate(samples.batches(BATCH)):
            texts = towers.text(prompts[number * BATCH : number * BATCH + len(images)])
            values += (100 * (towers.image(images) * texts).sum(-1).clamp(min=0)).double().tolist()
    return Result.per_sample(values, **towers.about)


def embedded(folder: Path = EMBEDDED) -> Towers:
    """The small CLIP of `scripts/train_clip.py`: an open_clip architecture, trained on the embedded model's scenes."""
    package("open_clip", "open_clip_torch", "clip_score")
    from open_clip.model import CLIP

    path, digest = weights_file("clip_score", folder / "model.safetensors", "restore the folder")
    about = json.loads((folder / "config.json").read_text())
    model = CLIP(**about["architecture"])
    model.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    model.eval()
    words = Words(about["words"], about["architecture"]["text_cfg"]["context_length"])
    side = about["architecture"]["vision_cfg"]["image_size"]

    def image(images: Tensor) -> Tensor:
        if images.shape[-2:] != (side, side):
            images = torch.nn.functional.interpolate(images, (side, side), mode="bicubic", antialias=True)
        return model.encode_image(2 * images - 1, normalize=True)

    facts = {"model": "tiny (ships here)", "sha256": digest, "held_out_retrieval": about["held_out_retrieval"]}
    return Towers(image, lambda texts: model.encode_text(words(texts), normalize=True), facts)


def open_clip_towers(model: str, checkpoint: str | None) -> Towers:
    """Any open_clip architecture with weights from a local file; nothing is fetched."""
    open_clip = package("open_clip", "open_clip_torch", "clip_score")
    if model not in open_clip.list_models():
        refuse(f"eval.clip_score.model={model} is unknown to open_clip: type for example ViT-B-32, or tiny")
    if checkpoint is None:
        raise AbsentError(
            f"clip_score with {model} needs its weights: fetch an open_clip checkpoint of {model} and type "
            "eval.clip_score.checkpoint=FILE"
        )
    path, digest = weights_file("clip_score", checkpoint, "type eval.clip_score.checkpoint=FILE")
    net, _, preprocess = open_clip.create_model_and_transforms(model, pretrained=str(path))
    net.eval()
    tokens = open_clip.get_tokenizer(model)

    def image(images: Tensor) -> Tensor:
        pixels = (images.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
        sized = torch.stack([preprocess(Image.fromarray(np.ascontiguousarray(picture))) for picture in pixels])
        return net.encode_image(sized, normalize=True)

    facts = {"model": model, "checkpoint": path.name, "sha256": digest, "open_clip": open_clip.__version__}
    return Towers(image, lambda texts: net.encode_text(tokens(list(texts)), normalize=True), facts)


def retrieval(towers: Towers, images: Tensor, texts: Sequence[str]) -> dict[str, float]:
    """Share of pictures whose own text is the nearest of all (`top_1`), or among the five nearest (`top_5`)."""
    with torch.no_grad():
        likeness = torch.cat([towers.image(some) for some in images.split(BATCH)]) @ towers.text(texts).T
    order = likeness.argsort(dim=1, descending=True)
    hits = order == torch.arange(len(texts))[:, None]
    return {f"top_{k}": hits[:, :k].any(1).double().mean().item() for k in (1, 5)}
