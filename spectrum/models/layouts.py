"""The layout of each registered denoiser family, by the name of its class in diffusers.

Stacks and exits are also found by tracing the first call, and a test compares the two. They are named here so that a
method which cannot serve a family is refused before anything is sampled. What cannot be found is `signal`, where
TeaCache's is an embedding of the timestep, `fills`, and `condition`, where it is not `encoder_hidden_states`.
"""

import functools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from spectrum.hooks.derive import layout_of_call
from spectrum.hooks.layout import Denoiser, Source
from spectrum.hooks.step import DenoiserCall

TOKEN_REFINER = ("context_embedder.token_refiner.refiner_blocks",)
"""The blocks of the HunyuanVideo and HunyuanImage denoisers that refine the text."""
REFINERS = ("context_refiner", "noise_refiner")
"""The lists of Lumina 2 and Z-Image that refine text and picture before their tokens meet."""

HIDREAM = Denoiser(
    exit="final_layer",
    stacks=("double_stream_blocks", "single_stream_blocks"),
    signal="t_embedder",
    condition="encoder_hidden_states_t5",
)

DENOISERS: Mapping[str, Denoiser] = {
    "AnyFlowFARTransformer3DModel": Denoiser(exit="norm_out", fills={"kv_cache_flag.is_cache_step": True}),
    "ChromaTransformer2DModel": Denoiser(exit="norm_out"),
    "CogVideoXTransformer3DModel": Denoiser(exit="norm_final", signal="time_embedding"),
    "CogView4Transformer2DModel": Denoiser(exit="norm_out"),
    "DiTTransformer2DModel": Denoiser(exit="norm_out", condition=None),
    "Flux2Transformer2DModel": Denoiser(exit="norm_out", fills={"kv_cache_mode": "extract"}),
    "FluxTransformer2DModel": Denoiser(exit="norm_out"),
    "GlmImageTransformer2DModel": Denoiser(exit="norm_out", fills={"kv_caches.caches.0.mode": "write"}),
    "HiDreamImageTransformer2DModel": HIDREAM,
    "HunyuanImageTransformer2DModel": Denoiser(exit="norm_out", feeders=TOKEN_REFINER),
    "HunyuanVideo15Transformer3DModel": Denoiser(exit="norm_out", feeders=TOKEN_REFINER),
    "HunyuanVideoTransformer3DModel": Denoiser(exit="norm_out", feeders=TOKEN_REFINER),
    "LTXVideoTransformer3DModel": Denoiser(exit="norm_out"),
    "Lumina2Transformer2DModel": Denoiser(exit="norm_out", refiners=REFINERS),
    "MochiTransformer3DModel": Denoiser(exit="norm_out"),
    "PixArtTransformer2DModel": Denoiser(exit="norm_out", condition=None),
    "QwenImage21Transformer2DModel": Denoiser(exit="norm_out", fills={"kv_cache_mode": "extract"}),
    "QwenImageTransformer2DModel": Denoiser(exit="norm_out"),
    "SD3Transformer2DModel": Denoiser(exit="norm_out"),
    "SanaTransformer2DModel": Denoiser(exit="norm_out", condition=None),
    "UNet2DConditionModel": Denoiser(exit="conv_norm_out", stacks=("down_blocks", "mid_block", "up_blocks")),
    "WanAnimate2Transformer3DModel": Denoiser(exit="head", fills={"kv_cache_mode": "extract"}),
    "WanTransformer3DModel": Denoiser(exit="norm_out", signal="condition_embedder.time_embedder"),
    "ZImageTransformer2DModel": Denoiser(exit="all_final_layer.2-1", condition="cap_feats", refiners=REFINERS),
}


def registered_layout(model: nn.Module) -> Denoiser | None:
    """The layout of a model's family; None if it is not registered, or the model lacks a part that others have."""
    found = DENOISERS.get(type(model).__name__)
    if found is None or not found.fits(model):
        return None
    return replace(found, source=Source.registered)


def denoiser_of(model: nn.Module, inputs: Mapping[str, Any]) -> Denoiser:
    """The layout of a model, with its stacks named: that of its family, or else what a call of it shows.

    Args:
        model: a denoiser of diffusers, uncompiled.
        inputs: the arguments of a call of its forward, by name.

    Raises:
        SpectrumError: if its family is not registered, and no layout can be found.
    """
    known = registered_layout(model)
    if known is not None:
        return known.with_stacks(model)
    given = {name: value for name, value in inputs.items() if name != "self"}
    forward = functools.partial(type(model).forward, model)
    with torch.no_grad():
        return layout_of_call(model, DenoiserCall(forward, forward, (), given, given))
