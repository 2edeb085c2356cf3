"""ImageReward written out from the names of its published checkpoint, in plain torch, and toy weights under them."""

import torch
from torch.nn import functional as F

VISION, TEXT = "blip.visual_encoder", "blip.text_encoder"
HEAD = (0, 2, 4, 6, 7)


class Toy(dict):
    """Random weights under the published names, for `eval.metrics.reward_net.Sizes`."""

    def __init__(self, sizes, seed=0):
        self.g, self.sizes = torch.Generator().manual_seed(seed), sizes
        self._vision(sizes.width)
        self._text(sizes.text_width)
        self._linear("blip.vision_proj", sizes.width, 256)
        self._linear("blip.text_proj", sizes.text_width, 256)
        widths = (sizes.text_width, *sizes.head, 1)
        for number, into, out in zip(HEAD, widths, widths[1:], strict=False):
            self._linear(f"mlp.layers.{number}", into, out)

    def _add(self, name, *shape, around=0.0):
        self[name] = around + 0.5 * torch.randn(*shape, generator=self.g)

    def _linear(self, name, into, out):
        self._add(f"{name}.weight", out, into)
        self._add(f"{name}.bias", out)

    def _norm(self, name, width):
        self._add(f"{name}.weight", width, around=1.0)
        self._add(f"{name}.bias", width)

    def _vision(self, width):
        patch = self.sizes.patch
        self._add(f"{VISION}.cls_token", 1, 1, width)
        self._add(f"{VISION}.pos_embed", 1, 1 + (self.sizes.side // patch) ** 2, width)
        self._add(f"{VISION}.patch_embed.proj.weight", width, 3, patch, patch)
        self._add(f"{VISION}.patch_embed.proj.bias", width)
        self._norm(f"{VISION}.norm", width)
        for i in range(self.sizes.depth):
            block = f"{VISION}.blocks.{i}"
            self._norm(f"{block}.norm1", width)
            self._linear(f"{block}.attn.qkv", width, 3 * width)
            self._linear(f"{block}.attn.proj", width, width)
            self._norm(f"{block}.norm2", width)
            self._linear(f"{block}.mlp.fc1", width, 4 * width)
            self._linear(f"{block}.mlp.fc2", 4 * width, width)

    def _text(self, width):
        self._add(f"{TEXT}.embeddings.word_embeddings.weight", self.sizes.words, width)
        self._add(f"{TEXT}.embeddings.position_embeddings.weight", self.sizes.positions, width)
        self[f"{TEXT}.embeddings.position_ids"] = torch.arange(self.sizes.positions)[None]
        self._norm(f"{TEXT}.embeddings.LayerNorm", width)
        for i in range(self.sizes.text_depth):
            layer = f"{TEXT}.encoder.layer.{i}"
            for kind, source in (("attention", width), ("crossattention", self.sizes.width)):
                self._linear(f"{layer}.{kind}.self.query", width, width)
                self._linear(f"{layer}.{kind}.self.key", source, width)
                self._linear(f"{layer}.{kind}.self.value", source, width)
                self._linear(f"{layer}.{kind}.output.dense", width, width)
                self._norm(f"{layer}.{kind}.output.LayerNorm", width)
            self._linear(f"{layer}.intermediate.dense", width, self.sizes.inner)
            self._linear(f"{layer}.output.dense", self.sizes.inner, width)
            self._norm(f"{layer}.output.LayerNorm", width)


def linear(state, name, x):
    return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def norm(state, name, x, eps):
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)


def attend(q, k, v, heads, allowed=None):
    """Softmax attention written out; `allowed` (n, keys), 0 on keys that none may look at."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    scores = q @ k.mT / q.shape[-1] ** 0.5
    if allowed is not None:
        scores = scores.masked_fill(allowed[:, None, None] == 0, float("-inf"))
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def patches(state, sizes, images):
    """A pre-norm vision transformer with fused query, key and value: (n, 1 + patches, width)."""
    weight, bias = (state[f"{VISION}.patch_embed.proj.{part}"] for part in ("weight", "bias"))
    x = F.conv2d(images, weight, bias, sizes.patch).flatten(2).mT
    x = torch.cat([state[f"{VISION}.cls_token"].expand(len(x), -1, -1), x], 1) + state[f"{VISION}.pos_embed"]
    for i in range(sizes.depth):
        block = f"{VISION}.blocks.{i}"
        q, k, v = linear(state, f"{block}.attn.qkv", norm(state, f"{block}.norm1", x, 1e-6)).chunk(3, -1)
        x = x + linear(state, f"{block}.attn.proj", attend(q, k, v, sizes.heads))
        hidden = F.gelu(linear(state, f"{block}.mlp.fc1", norm(state, f"{block}.norm2", x, 1e-6)))
        x = x + linear(state, f"{block}.mlp.fc2", hidden)
    return norm(state, f"{VISION}.norm", x, 1e-6)


def reward(state, sizes, images, ids, mask):
    """The reward (n,): a post-norm BERT that looks at the patches after each self-attention, and the perceptron."""
    seen = patches(state, sizes, images)
    y = state[f"{TEXT}.embeddings.word_embeddings.weight"][ids]
    y = y + state[f"{TEXT}.embeddings.position_embeddings.weight"][: ids.shape[1]]
    y = norm(state, f"{TEXT}.embeddings.LayerNorm", y, 1e-12)
    for i in range(sizes.text_depth):
        layer = f"{TEXT}.encoder.layer.{i}"
        for kind, allowed in (("attention", mask), ("crossattention", None)):
            source = y if kind == "attention" else seen
            q = linear(state, f"{layer}.{kind}.self.query", y)
            k, v = (linear(state, f"{layer}.{kind}.self.{part}", source) for part in ("key", "value"))
            read = linear(state, f"{layer}.{kind}.output.dense", attend(q, k, v, sizes.text_heads, allowed))
            y = norm(state, f"{layer}.{kind}.output.LayerNorm", y + read, 1e-12)
        hidden = F.gelu(linear(state, f"{layer}.intermediate.dense", y))
        y = norm(state, f"{layer}.output.LayerNorm", y + linear(state, f"{layer}.output.dense", hidden), 1e-12)
    z = y[:, 0]
    for number in HEAD:
        z = linear(state, f"mlp.layers.{number}", z)
    return (z[:, 0] - 0.16717363) / 1.03333950
