"""What TeaCache watches in each family: `(denoiser, its forward's arguments by name) -> tensor`, and how tokens lie."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def flux_modulated_input(model: Any, inputs: Mapping[str, Any]) -> Tensor:
    """The first FLUX block's input after its adaptive norm, (batch, image tokens, width): TeaCache's signal."""
    hidden = model.x_embedder(inputs["hidden_states"])
    times = [inputs["timestep"].to(hidden.dtype) * 1000]
    if inputs.get("guidance") is not None:
        times.append(inputs["guidance"].to(hidden.dtype) * 1000)
    embedding = model.time_text_embed(*times, inputs["pooled_projections"])
    return model.transformer_blocks[0].norm1(hidden, emb=embedding)[0]


def lumina2_modulated_input(model: Any, inputs: Mapping[str, Any]) -> Tensor:
    """The first joint block's input after its adaptive norm, (batch, text and image tokens, width).

    The refiners before that block run for it. Padding is zero here as there, and weighs nothing in a relative change.
    """
    hidden, mask = inputs["hidden_states"], inputs["encoder_attention_mask"]
    embedding, text = model.time_caption_embed(hidden, inputs["timestep"], inputs["encoder_hidden_states"])
    patches, text_rope, image_rope, *_ = model.rope_embedder(hidden, mask)
    image = model.x_embedder(patches)
    for layer in model.context_refiner:
        text = layer(text, mask, text_rope)
    for layer in model.noise_refiner:
        image = layer(image, None, image_rope, embedding)
    joint = torch.cat([text * mask[..., None].to(text.dtype), image], dim=1)
    return model.layers[0].norm1(joint, embedding)[0]


def hidream_time_embedding(model: Any, inputs: Mapping[str, Any]) -> Tensor:
    """HiDream's embedding of the timestep, before the text's is added, (batch, width): TeaCache's signal."""
    return model.t_embedder(inputs["timesteps"], inputs["hidden_states"].dtype)


def hunyuan_modulated_input(model: Any, inputs: Mapping[str, Any]) -> Tensor:
    """The first HunyuanVideo block's input after its adaptive norm, (batch, video tokens, width)."""
    hidden, time = model.x_embedder(inputs["hidden_states"]), inputs["timestep"]
    if hasattr(model, "time_embed"):
        embedding = model.time_embed(time, timestep_r=inputs.get("timestep_r"))
    else:
        embedding = model.time_text_embed(time, inputs["pooled_projections"], inputs.get("guidance"))[0]
    return model.transformer_blocks[0].norm1(hidden, emb=embedding)[0]


def mochi_modulated_input(model: Any, inputs: Mapping[str, Any]) -> Tensor:
    """The first Mochi block's input after its modulated norm, (batch, video tokens, width)."""
    latents, text = inputs["hidden_states"], inputs["encoder_hidden_states"]
    mask = inputs["encoder_attention_mask"]
    embedding, _ = model.time_embed(inputs["timestep"], text, mask, hidden_dtype=latents.dtype)
    hidden = model.patch_embed(latents.transpose(1, 2).flatten(0, 1)).unflatten(0, (len(latents), -1)).flatten(1, 2)
    return model.transformer_blocks[0].norm1(hidden, embedding)[0]


def ltx_modulated_input(model: Any, inputs: Mapping[str, Any]) -> Tensor:
    """The first LTX-Video block's input after its adaptive norm, (batch, video tokens, width)."""
    hidden, block = model.proj_in(inputs["hidden_states"]), model.transformer_blocks[0]
    time = inputs["timestep"].flatten()
    embedding, _ = model.time_embed(time, batch_size=len(hidden), hidden_dtype=hidden.dtype)
    shift, scale = (block.scale_shift_table + embedding.view(len(hidden), -1, 6, hidden.shape[-1])).unbind(2)[:2]
    return block.norm1(hidden) * (1 + scale) + shift


def wan_time_embedding(model: Any, inputs: Mapping[str, Any]) -> Tensor:
    """Wan's time embedding before its projection, (batch, width): what TeaCache calls `e`."""
    embedder = model.condition_embedder
    time = embedder.timesteps_proj(inputs["timestep"].flatten())
    return embedder.time_embedder(time.to(embedder.time_embedder.linear_1.weight.dtype))


def cogvideox_time_embedding(model: Any, inputs: Mapping[str, Any]) -> Tensor:
    """CogVideoX's time embedding, (batch, time width)."""
    time = model.time_proj(inputs["timestep"]).to(inputs["hidden_states"].dtype)
    return model.time_embedding(time, inputs.get("timestep_cond"))


def token_grid(model: Any, inputs: Mapping[str, Any]) -> tuple[int, ...] | None:
    """How the image tokens lie, (height, width) or (frames, height, width); None where the inputs do not tell.

    Latents that come unpacked are divided by the config's patch size; FLUX's packed ones come with their coordinates,
    Qwen-Image's with their shape.
    """
    ids, shapes = inputs.get("img_ids"), inputs.get("img_shapes")
    if ids is not None:
        sides = [int(side) + 1 for side in ids.reshape(-1, ids.shape[-1]).amax(0).tolist()]
        return tuple(sides[-2:])
    if shapes is not None:
        first = shapes[0][0] if isinstance(shapes[0], list) else shapes[0]
        return tuple(int(side) for side in first[-2:])
    latents = inputs.get("hidden_states", inputs.get("sample"))
    if not isinstance(latents, Tensor) or latents.ndim not in (4, 5):
        return None
    patch = getattr(model.config, "patch_size", 1) or 1
    time = getattr(model.config, "patch_size_t", 1) or 1
    by = [time, patch, patch] if isinstance(patch, int) else [time, *patch][-3:]
    return tuple(side // part for side, part in zip(latents.shape[2:], by[5 - latents.ndim :], strict=True))
