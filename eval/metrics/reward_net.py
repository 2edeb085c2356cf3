"""ImageReward's network, read from the published checkpoint without ImageReward's own package, and its tokenizer."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from eval.metrics.checkpoints import load_weights, read_state_dict
from spectrum.core.errors import refuse

REWARD_MEAN, REWARD_STD = 0.16717362830052426, 1.0333394966054072
"""Mean and standard deviation of the perceptron's output, by which the authors normalise the reward."""
PROMPT_TOKENS = 35
"""Tokens that a prompt is cut or padded to."""

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
"""Patterns that turn the checkpoint's names into those of `RewardNet`, applied one after another."""
UNUSED = re.compile(r"^blip\.((vision|text)_proj\.(weight|bias)|text_encoder\.embeddings\.position_ids)$")
"""What the checkpoint has and the reward does not use: BLIP's projections for its contrastive loss, and a constant."""


@dataclass(frozen=True)
class Sizes:
    """Widths, depths and counts of `RewardNet`. The defaults are the published ones: BLIP with ViT-L/16.

    Attributes:
        side: height and width of the picture, in pixels.
        patch: height and width of a patch, in pixels.
        width: channels of the vision tower.
        depth: layers of the vision tower.
        heads: attention heads of the vision tower.
        text_width: channels of the text tower.
        text_depth: layers of the text tower.
        text_heads: attention heads of the text tower.
        inner: hidden channels of the text tower's feed-forward layers.
        words: rows of the token embedding: BERT's vocabulary and two tokens of BLIP's own.
        positions: rows of the position embedding.
        head: hidden channels of the perceptron that makes the reward.
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
    """ImageReward (Xu et al. 2023), with random weights until some are loaded.

    BLIP's vision tower turns the picture into patches. BLIP's text tower reads the prompt and attends to the patches.
    Its first output `CLS` gives the reward `(mlp(CLS) - 0.16717363) / 1.03333950`.

    Args:
        sizes: widths, depths and counts.
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
        """The rewards of pictures and their prompts.

        Args:
            images: (n, 3, side, side), float, normalised by the mean and standard deviation of CLIP's pictures.
            ids: token ids, (n, tokens), int64.
            mask: (n, tokens), 0 on padding and 1 elsewhere.

        Returns:
            (n,), float.
        """
        patches = self.vision(pixel_values=images).last_hidden_state
        read = self.text(input_ids=ids, attention_mask=mask, encoder_hidden_states=patches).last_hidden_state
        return (self.mlp(read[:, 0]).squeeze(-1) - REWARD_MEAN) / REWARD_STD


def load_reward_net(path: Path, sizes: Sizes = PUBLISHED) -> nn.Module:
    """ImageReward's network with the weights of a checkpoint.

    Args:
        path: the checkpoint, with the names that the authors published it with.
        sizes: widths, depths and counts of the network.

    Returns:
        A `RewardNet` in evaluation mode.

    Raises:
        SpectrumError: if the file is no checkpoint of a network of these sizes.
    """
    state = {}
    for key, value in read_state_dict(path).items():
        if not UNUSED.match(key):
            name = key
            for pattern, replacement in RENAMED:
                name = pattern.sub(replacement, name)
            state[name] = value
    return load_weights(RewardNet(sizes), state, path, "ImageReward")


def bert_tokenizer(path: Path, words: int) -> Callable[[Sequence[str]], tuple[Tensor, Tensor]]:
    """BERT's uncased tokenizer.

    Args:
        path: the vocabulary, one token per line: the `vocab.txt` of bert-base-uncased.
        words: how many tokens the network knows.

    Returns:
        A function from n texts to token ids and mask, both (n, 35) int64; longer texts are cut, shorter ones padded.

    Raises:
        SpectrumError: if the file lacks one of BERT's special tokens, or has more than `words` tokens.
    """
    from tokenizers.implementations import BertWordPieceTokenizer

    vocabulary = {word: number for number, word in enumerate(path.read_text(encoding="utf-8").rstrip("\n").split("\n"))}
    if not {"[PAD]", "[UNK]", "[CLS]", "[SEP]"} <= vocabulary.keys() or len(vocabulary) > words:
        refuse(f"{path} is not the vocab.txt of bert-base-uncased: type eval.image_reward.vocabulary=FILE")
    tokenizer = BertWordPieceTokenizer(vocabulary, lowercase=True)
    tokenizer.enable_truncation(PROMPT_TOKENS)
    tokenizer.enable_padding(length=PROMPT_TOKENS, pad_id=vocabulary["[PAD]"], pad_token="[PAD]")

    def tokens(texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        rows = tokenizer.encode_batch(list(texts))
        return torch.tensor([row.ids for row in rows]), torch.tensor([row.attention_mask for row in rows])

    return tokens
