"""The denoiser families: one entry each says where the block stacks are and which module they exit into."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from spectrum.context import block_stacks
from spectrum.errors import refuse

Signal = Callable[[Any, Mapping[str, Any]], Tensor]


@dataclass(frozen=True)
class Denoiser:
    """Layout of a denoiser family.

    Attributes:
        exit: the module that the last block's output enters; its first argument is the feature.
        stacks: names of the block lists (or single blocks), in the order they run. Left empty, they are the lists of
            blocks that diffusers' own caching hooks would find.
        signal: for data-dependent schedules, what TeaCache watches: `(model, forward's arguments by name) -> tensor`.
        condition: the forward argument that tells CFG branches apart when the pipeline does not name them; None where
            its pipelines denoise all branches in one call.
        refused: forward arguments that reach the blocks from outside, with why a skipped step cannot honour them.
    """

    exit: str
    stacks: tuple[str, ...] = ()
    signal: Signal | None = None
    condition: str | None = "encoder_hidden_states"
    refused: Mapping[str, str] = field(default_factory=dict)


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


_CONTROLNET = "ControlNet residuals are added inside the blocks, which a skipped step does not run"

FLUX = Denoiser(
    exit="norm_out",
    signal=flux_modulated_input,
    refused={"controlnet_block_samples": _CONTROLNET, "controlnet_single_block_samples": _CONTROLNET},
)

FLUX2 = Denoiser(
    exit="norm_out",
    refused={"kv_cache_mode": "the blocks store the keys and values of the given pictures, which a skipped step lacks"},
)

SD3 = Denoiser(
    exit="norm_out",
    refused={
        "block_controlnet_hidden_states": _CONTROLNET,
        "skip_layers": "skip-layer guidance chooses among the blocks, none of which a skipped step runs",
    },
)

UNET = Denoiser(
    exit="conv_norm_out",
    stacks=("down_blocks", "mid_block", "up_blocks"),
    refused={
        "down_block_additional_residuals": _CONTROLNET,
        "mid_block_additional_residual": _CONTROLNET,
        "down_intrablock_additional_residuals": "T2I-Adapter residuals are added inside the blocks, which a skipped "
        "step does not run",
    },
)

QWEN_IMAGE = Denoiser(exit="norm_out", refused={"controlnet_block_samples": _CONTROLNET})

CHROMA = Denoiser(
    exit="norm_out",
    refused={"controlnet_block_samples": _CONTROLNET, "controlnet_single_block_samples": _CONTROLNET},
)

HIDREAM = Denoiser(
    exit="final_layer",
    stacks=("double_stream_blocks", "single_stream_blocks"),
    signal=hidream_time_embedding,
    condition="encoder_hidden_states_t5",
)

# By the denoiser's class name.
DENOISERS: Mapping[str, Denoiser] = {
    "CogView4Transformer2DModel": Denoiser(exit="norm_out"),
    "DiTTransformer2DModel": Denoiser(exit="norm_out", condition=None),
    "HunyuanImageTransformer2DModel": Denoiser(exit="norm_out"),
    "Lumina2Transformer2DModel": Denoiser(exit="norm_out", signal=lumina2_modulated_input),
    "PixArtTransformer2DModel": Denoiser(exit="norm_out", condition=None),
    "SanaTransformer2DModel": Denoiser(
        exit="norm_out", condition=None, refused={"controlnet_block_samples": _CONTROLNET}
    ),
    "ZImageTransformer2DModel": Denoiser(
        exit="all_final_layer.2-1", condition="cap_feats", refused={"controlnet_block_samples": _CONTROLNET}
    ),
    "ChromaTransformer2DModel": CHROMA,
    "Flux2Transformer2DModel": FLUX2,
    "FluxTransformer2DModel": FLUX,
    "HiDreamImageTransformer2DModel": HIDREAM,
    "QwenImageTransformer2DModel": QWEN_IMAGE,
    "SD3Transformer2DModel": SD3,
    "UNet2DConditionModel": UNET,
}


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


def denoiser_of(model: nn.Module) -> Denoiser:
    """The entry of a model's family, its stacks named; refuses one that is not registered."""
    name = type(model).__name__
    if name not in DENOISERS:
        refuse(f"{name} is not a registered denoiser; registered: {', '.join(sorted(DENOISERS))}")
    entry = DENOISERS[name]
    return entry if entry.stacks else replace(entry, stacks=block_stacks(model))
