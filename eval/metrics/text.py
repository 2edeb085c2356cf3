"""Text alignment: the CLIP score, with any model of open_clip or with the small one that ships with the project."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from eval.metrics.checkpoints import UNREADABLE, short_reason
from eval.metrics.metric import BATCH, AbsentError, Result, import_package, weights_file
from eval.metrics.pictures import Pictures
from eval.metrics.prompted import check_architecture, check_prompts, preprocessed, scores
from spectrum.core.errors import refuse

EMBEDDED = Path(__file__).resolve().parent.parent / "assets" / "clip_tiny"
"""The folder of the CLIP model that ships with the project."""
UNKNOWN = 1
"""The id of words that are not in the vocabulary."""


@dataclass(frozen=True)
class Towers:
    """The two halves of a CLIP model.

    Attributes:
        image: from pictures (n, 3, height, width), float in [0, 1], to unit vectors (n, width).
        text: from n strings to unit vectors (n, width).
        about: what a record says of the model: its name, the SHA-256 of its weights.
    """

    image: Callable[[Tensor], Tensor]
    text: Callable[[Sequence[str]], Tensor]
    about: dict[str, Any]


class WordTokenizer:
    """A tokenizer that knows whole words.

    Args:
        words: the vocabulary, in lower case.
        context: tokens per text.

    Attributes:
        ids: the id of each word, from 2 on; 0 is padding and 1 an unknown word.
        end: the id that ends every text, the largest of all.
        context: tokens per text.

    Example:
        >>> tokenizer = WordTokenizer(["a", "cat", "on"], context=5)
        >>> tokenizer(["a cat", "A dog on a cat on a cat"]).tolist()
        [[2, 3, 5, 0, 0], [2, 1, 4, 2, 5]]
    """

    def __init__(self, words: Sequence[str], context: int) -> None:
        self.ids = {word: number for number, word in enumerate(words, UNKNOWN + 1)}
        self.end, self.context = len(words) + UNKNOWN + 1, context

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """The ids of texts.

        Args:
            texts: words with spaces between them. A text that is too long is cut; the id of the end is kept.

        Returns:
            (texts, context), int64.
        """
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
    """The metric `clip_score`: `100 max(cos(picture, prompt), 0)` of CLIP's embeddings (Hessel et al. 2021, unscaled).

    Args:
        samples: the method's pictures.
        reference: not used.
        prompts: one prompt per picture.
        model: an architecture of open_clip; or `tiny` for the small model that ships with the project. That one knows
            only the scenes of the embedded diffusion model, and the provenance says how well it retrieves.
        checkpoint: the file of the architecture's weights; not used with `tiny`.

    Raises:
        AbsentError: if the checkpoint or the package open_clip is missing.
        SpectrumError: if the prompts do not match the pictures, or for an unknown architecture.
    """
    check_prompts("clip_score", samples, prompts)
    towers = towers_of("clip_score", model, checkpoint)
    return Result.per_sample([100 * max(cosine, 0.0) for cosine in cosines(towers, samples, prompts)], **towers.about)


def cosines(towers: Towers, samples: Pictures, prompts: Sequence[str]) -> list[float]:
    """The cosine of each picture's embedding and its prompt's.

    Args:
        towers: the CLIP model.
        samples: the pictures.
        prompts: one prompt per picture.

    Returns:
        One number in [-1, 1] per picture, in order.
    """
    return scores(samples, prompts, lambda images, texts: (towers.image(images) * towers.text(texts)).sum(-1))


def check_clip_score(*, model: str = "tiny", checkpoint: str | None = None) -> None:
    """Check the parameters of `clip_score`.

    Args:
        model: the architecture, or `tiny`.
        checkpoint: not checked: without it the metric is left out.

    Raises:
        SpectrumError: for an architecture that open_clip does not know.
    """
    check_model("clip_score", model)


def check_model(metric: str, model: str) -> None:
    """Check that a CLIP model is one that there is.

    Args:
        metric: the metric that it is for.
        model: an architecture of open_clip, or `tiny`.

    Raises:
        SpectrumError: for an architecture that open_clip does not know.
    """
    if model != "tiny":
        check_architecture(f"eval.{metric}.model", model, "for example ViT-B-32, or tiny")


def towers_of(metric: str, model: str, checkpoint: str | None) -> Towers:
    """The CLIP model that a metric's parameters name.

    Args:
        metric: the metric, for messages.
        model: an architecture of open_clip, or `tiny`.
        checkpoint: the file of the architecture's weights; not used with `tiny`.

    Raises:
        AbsentError: if the weights or the package open_clip are missing.
        SpectrumError: for an architecture that open_clip does not know, and a file that is no checkpoint of it.
    """
    return embedded(metric=metric) if model == "tiny" else open_clip_towers(model, checkpoint, metric)


def embedded(folder: Path = EMBEDDED, metric: str = "clip_score") -> Towers:
    """The small CLIP that ships with the project, made by `scripts/train_clip.py` from the embedded model's scenes.

    Args:
        folder: holds `config.json`, with open_clip's settings and the vocabulary, and `model.safetensors`.
        metric: the metric that needs it, for messages.

    Raises:
        AbsentError: if the weights or the package open_clip are missing.
    """
    import_package("open_clip", "open_clip_torch", metric)
    from open_clip.model import CLIP

    path, digest = weights_file(metric, folder / "model.safetensors", "restore the folder")
    about = json.loads((folder / "config.json").read_text())
    model = CLIP(**about["architecture"])
    model.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    model.eval()
    tokenizer = WordTokenizer(about["words"], about["architecture"]["text_cfg"]["context_length"])
    side = about["architecture"]["vision_cfg"]["image_size"]

    def image(images: Tensor) -> Tensor:
        if images.shape[-2:] != (side, side):
            images = torch.nn.functional.interpolate(images, (side, side), mode="bicubic", antialias=True)
        return model.encode_image(2 * images - 1, normalize=True)

    facts = {"model": "tiny (ships here)", "sha256": digest, "held_out_retrieval": about["held_out_retrieval"]}
    return Towers(image, lambda texts: model.encode_text(tokenizer(texts), normalize=True), facts)


def open_clip_towers(model: str, checkpoint: str | None, metric: str = "clip_score") -> Towers:
    """A CLIP model of open_clip. Nothing is downloaded.

    Args:
        model: the architecture, for example `ViT-B-32`.
        checkpoint: the file of its weights.
        metric: the metric that needs it, for messages.

    Raises:
        AbsentError: if no checkpoint is given, or it or the package open_clip is missing.
        SpectrumError: for an architecture that open_clip does not know, and a file that is no checkpoint of it.
    """
    open_clip = import_package("open_clip", "open_clip_torch", metric)
    check_model(metric, model)
    how = f"type eval.{metric}.checkpoint=FILE"
    if checkpoint is None:
        fetch = f"fetch an open_clip checkpoint of {model} and {how}"
        raise AbsentError(f"{metric} with {model} needs its weights: {fetch}")
    path, digest = weights_file(metric, checkpoint, how)
    try:
        net, _, preprocess = open_clip.create_model_and_transforms(model, pretrained=str(path))
    except (*UNREADABLE, SafetensorError) as error:
        refuse(f"{path} is no checkpoint of open_clip's {model} ({short_reason(error)}): {how}")
    net.eval()
    tokens = open_clip.get_tokenizer(model)

    def image(images: Tensor) -> Tensor:
        return net.encode_image(preprocessed(images, preprocess), normalize=True)

    facts = {"model": model, "checkpoint": path.name, "sha256": digest, "open_clip": open_clip.__version__}
    return Towers(image, lambda texts: net.encode_text(tokens(list(texts)), normalize=True), facts)


def retrieval(towers: Towers, images: Tensor, texts: Sequence[str]) -> dict[str, float]:
    """How often a CLIP model finds the text of a picture among the texts of all pictures.

    Args:
        towers: the model.
        images: (n, 3, height, width), float in [0, 1].
        texts: the text of each picture; no two may be equal.

    Returns:
        The share of pictures whose own text is the nearest one (`top_1`), and among the five nearest (`top_5`).
    """
    with torch.no_grad():
        likeness = torch.cat([towers.image(some) for some in images.split(BATCH)]) @ towers.text(texts).T
    order = likeness.argsort(dim=1, descending=True)
    hits = order == torch.arange(len(texts))[:, None]
    return {f"top_{k}": hits[:, :k].any(1).double().mean().item() for k in (1, 5)}
