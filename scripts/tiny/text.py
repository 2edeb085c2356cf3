"""The embedded model's tokenizers and text encoders: CLIP and T5 at toy width, one token per caption word."""

import json
from collections.abc import Iterable

import tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5Tokenizer

from . import vocabulary as v

WIDTH = 128
T5_TOKENS = 16
CLIP_TOKENS = 24


def words() -> list[str]:
    """Every word that a caption can hold, sorted."""
    nouns = [*v.FILES, *v.OBJECTS]
    phrases = [*nouns, *map(v.plural, nouns), *v.COLOURS, *v.PATTERNS]
    phrases += ["a an and above left right top bottom of on at the small large two three four"]
    return sorted({word for phrase in phrases for word in phrase.split()})


def t5_tokenizer(vocabulary: Iterable[str]) -> T5Tokenizer:
    """A unigram tokenizer: caption words whole, any other text by its printable characters."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -20.0)]
    pieces += [(f"▁{word}", -2.0) for word in vocabulary]
    pieces += [(chr(code), -20.0) for code in range(33, 127)]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512)


def clip_tokenizer(vocabulary: Iterable[str]) -> CLIPTokenizer:
    """A byte-level BPE tokenizer whose merges end at whole caption words."""
    start, end = "<|startoftext|>", "<|endoftext|>"
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    trained = tokenizers.Tokenizer(tokenizers.models.BPE(end_of_word_suffix="</w>"))
    trained.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=4096, min_frequency=1, end_of_word_suffix="</w>")
    trained.train_from_iterator(vocabulary, trainer)
    model = json.loads(trained.to_str())["model"]
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in model["merges"]]
    pieces = [start, end, *alphabet, *(c + "</w>" for c in alphabet), *("".join(m) for m in merges)]
    vocab = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=CLIP_TOKENS)  # pyright: ignore[reportArgumentType]


def clip_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """An untrained two-layer CLIP text model; its pooled output conditions the denoiser's modulation."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=CLIP_TOKENS,
        hidden_act="gelu",
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return CLIPTextModel(config)


def t5_encoder(tokenizer: T5Tokenizer) -> T5EncoderModel:
    """An untrained three-layer T5 encoder; its states are the denoiser's text tokens."""
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=WIDTH,
        d_kv=32,
        d_ff=2 * WIDTH,
        num_layers=3,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=1,
    )
    return T5EncoderModel(config)
