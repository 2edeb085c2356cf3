"""What people would prefer: ImageReward and HPSv2, from their published checkpoints and without their packages."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from eval.metrics.checkpoints import filled, stored
from eval.metrics.files import HPS, IMAGE_REWARD, VOCABULARY, hub_path
from eval.metrics.metric import BATCH, Result, package, weights_file
from eval.metrics.pictures import Pictures
from spectrum.core.errors import refuse
from spectrum.models.sources import COMMAND

MEAN, STD = 0.16717362830052426, 1.0333394966054072
TOKENS = 35
PIXEL_MEAN, PIXEL_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
NO_WEIGHTS = f"type {COMMAND} image_reward, or eval.image_reward.checkpoint=FILE"
NO_VOCABULARY = f"type {COMMAND} image_reward, or eval.image_reward.vocabulary=FILE"
NO_HPS = f"type {COMMAND} hpsv2, or eval.hpsv2.checkpoint=FILE (HPS_v2.1_compressed.pt will do too)"

RENAMED = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"^mlp\.layers\.", "mlp."),
        (r"^blip\.text_encoder\.", "text."),
        (r"^blip\.visual_encoder\.", "vision."),
        (r"^vision\.cls_token$", "vision.embeddings.class_embedding"),
        (r"^vision\.pos_embed$", "vision.embeddings.position_embedding"),
        (r"^vision\.patch_embed\.proj\.", "vision.embeddings.patch_embedding."),
        (r"^vision\.norm\.", "vision.post_layernorm."),
        (r"^vision\.blocks\.", "vision.encoder.layers."),
        (r"^(vision\.encoder\.layers\.\d+)\.norm([12])\.", r"\1.layer_norm\2."),
        (r"^(vision\.encoder\.layers\.\d+)\.attn\.qkv\.", r"\1.self_attn.qkv."),
        (r"^(vision\.encoder\.layers\.\d+)\.attn\.proj\.", r"\1.self_attn.projection."),
    )
)
UNUSED = re.compile(r"^blip\.((vision|text)_proj\.(weight|bias)|text_encoder\.embeddings\.position_ids)$")


@dataclass(frozen=True)
class Sizes:
    """Widths, depths and counts of ImageReward's network; the defaults are the published ones (BLIP with ViT-L/16).

    Attributes:
        side: of the picture, pixels.
        patch: side of a patch, pixels.
        width: of the vision tower, which has `depth` layers and `heads` heads.
        text_width: of the text tower, which has `text_depth` layers, `text_heads` heads and `inner` hidden units.
        words: rows of the token embedding: BERT's vocabulary and two tokens of BLIP's own.
        positions: rows of the position embedding.
        head: hidden widths of the multilayer perceptron.
    """

    side: int = 224
    patch: int = 16
    width: int = 1024
    depth: int = 24
    heads: int = 16
    text_width: int = 768
    text_depth: int = 12
    text_heads: int = 12
    inner: int = 3072
    words: int = 30524
    positions: int = 512
    head: tuple[int, int, int, int] = (1024, 128, 64, 16)


PUBLISHED = Sizes()


class RewardNet(nn.Module):
    """ImageReward (Xu et al. 2023): BLIP's text tower reads the prompt with the picture's patches in cross-attention.

    `reward = (mlp(CLS) - 0.16717363) / 1.03333950`, with CLS the first output of the text tower. Weights are random
    until they are loaded.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

        self.vision = BlipVisionModel(
            BlipVisionConfig(
                image_size=sizes.side, patch_size=sizes.patch, hidden_size=sizes.width, layer_norm_eps=1e-6,
                intermediate_size=4 * sizes.width, num_hidden_layers=sizes.depth, num_attention_heads=sizes.heads,
            )
        )  # fmt: skip
        self.text = BlipTextModel(
            BlipTextConfig(
                vocab_size=sizes.words, hidden_size=sizes.text_width, encoder_hidden_size=sizes.width,
                intermediate_size=sizes.inner, num_hidden_layers=sizes.text_depth, layer_norm_eps=1e-12,
                num_attention_heads=sizes.text_heads, max_position_embeddings=sizes.positions, is_decoder=True,
            ),
            add_pooling_layer=False,
        )  # fmt: skip
        a, b, c, d = sizes.head
        self.mlp = nn.Sequential(
            nn.Linear(sizes.text_width, a), nn.Dropout(0.2), nn.Linear(a, b), nn.Dropout(0.2),
            nn.Linear(b, c), nn.Dropout(0.1), nn.Linear(c, d), nn.Linear(d, 1),
        )  # fmt: skip

    def forward(self, images: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Rewards (n,) of normalised pictures (n, 3, side, side) and token ids (n, tokens), `mask` 0 on padding."""
        patches = self.vision(pixel_values=images).last_hidden_state
        read = self.text(input_ids=ids, attention_mask=mask, encoder_hidden_states=patches).last_hidden_state
        return (self.mlp(read[:, 0]).squeeze(-1) - MEAN) / STD


def reward_net(path: Path, sizes: Sizes = PUBLISHED) -> nn.Module:
    """ImageReward's network with the weights of a checkpoint in the published naming, which is that of BLIP.

    BLIP's projections for its contrastive loss, which the checkpoint carries too, are left out.
    """
    state = {}
    for key, value in stored(path).items():
        if not UNUSED.match(key):
            name = key
            for pattern, replacement in RENAMED:
                name = pattern.sub(replacement, name)
            state[name] = value
    return filled(RewardNet(sizes), state, path, "ImageReward")


def word_pieces(path: Path, words: int) -> Callable[[Sequence[str]], tuple[Tensor, Tensor]]:
    """BERT's uncased tokenizer over a vocabulary file: texts -> ids and mask, both (n, 35), cut or padded.

    Refuses a file without BERT's special tokens, or of more than `words` entries.
    """
    from tokenizers.implementations import BertWordPieceTokenizer

    vocabulary = {word: number for number, word in enumerate(path.read_text(encoding="utf-8").rstrip("\n").split("\n"))}
    if not {"[PAD]", "[UNK]", "[CLS]", "[SEP]"} <= vocabulary.keys() or len(vocabulary) > words:
        refuse(f"{path} is not the vocab.txt of bert-base-uncased: type eval.image_reward.vocabulary=FILE")
    tokenizer = BertWordPieceTokenizer(vocabulary, lowercase=True)
    tokenizer.enable_truncation(TOKENS)
    tokenizer.enable_padding(length=TOKENS, pad_id=vocabulary["[PAD]"], pad_token="[PAD]")

    def tokens(texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        rows = tokenizer.encode_batch(list(texts))
        return torch.tensor([row.ids for row in rows]), torch.tensor([row.attention_mask for row in rows])

    return tokens


def image_reward(
    samples: Pictures,
    reference: Pictures | None,
    prompts: Sequence[str],
    *,
    checkpoint: str | None = None,
    vocabulary: str | None = None,
) -> Result:
    """ImageReward (Xu et al. 2023) of every sample and its prompt, see `RewardNet`; the scale has no fixed ends.

    `checkpoint` is the published `ImageReward.pt`, `vocabulary` the `vocab.txt` of bert-base-uncased; without them the
    Hugging Face cache is looked in, and for the vocabulary the checkpoint's folder first. AbsentError where they are
    not there.
    """
    _one_each("image_reward", samples, prompts)
    transformers = package("transformers", "transformers", "image_reward")
    resized = package("torchvision.transforms", "torchvision", "image_reward")
    path, digest = weights_file("image_reward", checkpoint or hub_path(IMAGE_REWARD), NO_WEIGHTS)
    beside = path.parent / "vocab.txt"
    words = vocabulary or (beside if beside.is_file() else hub_path(VOCABULARY))
    listed, words_digest = weights_file("image_reward", words, NO_VOCABULARY)
    tokens, net = word_pieces(listed, PUBLISHED.words), reward_net(path, PUBLISHED)
    preprocess = resized.Compose(
        [
            resized.Resize(PUBLISHED.side, interpolation=resized.InterpolationMode.BICUBIC),
            resized.CenterCrop(PUBLISHED.side),
            resized.ToTensor(),
            resized.Normalize(PIXEL_MEAN, PIXEL_STD),
        ]
    )

    def score(images: Tensor, texts: Sequence[str]) -> Tensor:
        return net(_eight_bit(images, preprocess), *tokens(texts))

    facts = {"model": "ImageReward", "checkpoint": path.name, "sha256": digest, "vocabulary_sha256": words_digest}
    return _scored(samples, prompts, score, {**facts, "transformers": transformers.__version__})


def hpsv2(
    samples: Pictures,
    reference: Pictures | None,
    prompts: Sequence[str],
    *,
    checkpoint: str | None = None,
    model: str = "ViT-H-14",
) -> Result:
    """Human Preference Score v2 (Wu et al. 2023) of every sample and its prompt: `cos(image, text)`, in [-1, 1].

    `checkpoint` is `HPS_v2_compressed.pt` or `HPS_v2.1_compressed.pt`, weights of open_clip's architecture `model`;
    without it the Hugging Face cache is looked in for the former. Pictures that are not square are padded with black,
    as its authors do. AbsentError where the checkpoint is not there.
    """
    _one_each("hpsv2", samples, prompts)
    open_clip = package("open_clip", "open_clip_torch", "hpsv2")
    if model not in open_clip.list_models():
        refuse(f"eval.hpsv2.model={model} is unknown to open_clip: type ViT-H-14, which the published weights are of")
    path, digest = weights_file("hpsv2", checkpoint or hub_path(HPS), NO_HPS)
    net, _, preprocess = open_clip.create_model_and_transforms(model, image_resize_mode="longest")
    filled(net, stored(path), path, f"open_clip's {model}")
    tokens = open_clip.get_tokenizer(model)

    def score(images: Tensor, texts: Sequence[str]) -> Tensor:
        seen = net.encode_image(_eight_bit(images, preprocess), normalize=True)
        return (seen * net.encode_text(tokens(list(texts)), normalize=True)).sum(-1)

    facts = {"model": model, "checkpoint": path.name, "sha256": digest, "open_clip": open_clip.__version__}
    return _scored(samples, prompts, score, facts)


def _eight_bit(images: Tensor, preprocess: Callable[[Image.Image], Tensor]) -> Tensor:
    pixels = (images.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
    return torch.stack([preprocess(Image.fromarray(np.ascontiguousarray(picture))) for picture in pixels])


def _one_each(name: str, samples: Pictures, prompts: Sequence[str]) -> None:
    if len(samples) != len(prompts):
        refuse(f"{name} needs one prompt a picture: there are {len(samples)} pictures and {len(prompts)} prompts")


def _scored(
    samples: Pictures,
    prompts: Sequence[str],
    score: Callable[[Tensor, Sequence[str]], Tensor],
    facts: Mapping[str, Any],
) -> Result:
    values: list[float] = []
    with torch.no_grad():
        for number, images in enumerate(samples.batches(BATCH)):
            values += score(images, prompts[number * BATCH : number * BATCH + len(images)]).double().tolist()
    return Result.per_sample(values, **facts)
