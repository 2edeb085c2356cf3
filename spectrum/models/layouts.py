"""The layout of each supported denoiser family, by the name of its class in diffusers."""

from collections.abc import Mapping

from torch import nn

from spectrum.core.errors import refuse
from spectrum.hooks.layout import Denoiser

FLUX2 = Denoiser(
    exit="norm_out",
    refused={"kv_cache_mode": "the blocks store the keys and values of the given pictures, which a skipped step lacks"},
)

HIDREAM = Denoiser(
    exit="final_layer",
    stacks=("double_stream_blocks", "single_stream_blocks"),
    signal="t_embedder",
    condition="encoder_hidden_states_t5",
)

HUNYUAN = Denoiser(exit="norm_out", feeders=("context_embedder.token_refiner.refiner_blocks",))

DENOISERS: Mapping[str, Denoiser] = {
    "ChromaTransformer2DModel": Denoiser(exit="norm_out"),
    "CogVideoXTransformer3DModel": Denoiser(exit="norm_final", signal="time_embedding"),
    "CogView4Transformer2DModel": Denoiser(exit="norm_out"),
    "DiTTransformer2DModel": Denoiser(exit="norm_out", condition=None),
    "Flux2Transformer2DModel": FLUX2,
    "FluxTransformer2DModel": Denoiser(exit="norm_out"),
    "HiDreamImageTransformer2DModel": HIDREAM,
    "HunyuanImageTransformer2DModel": HUNYUAN,
    "HunyuanVideo15Transformer3DModel": HUNYUAN,
    "HunyuanVideoTransformer3DModel": HUNYUAN,
    "LTXVideoTransformer3DModel": Denoiser(exit="norm_out"),
    "Lumina2Transformer2DModel": Denoiser(exit="norm_out"),
    "MochiTransformer3DModel": Denoiser(exit="norm_out"),
    "PixArtTransformer2DModel": Denoiser(exit="norm_out", condition=None),
    "QwenImageTransformer2DModel": Denoiser(exit="norm_out"),
    "SD3Transformer2DModel": Denoiser(exit="norm_out"),
    "SanaTransformer2DModel": Denoiser(exit="norm_out", condition=None),
    "UNet2DConditionModel": Denoiser(exit="conv_norm_out", stacks=("down_blocks", "mid_block", "up_blocks")),
    "WanTransformer3DModel": Denoiser(exit="norm_out", signal="condition_embedder.time_embedder"),
    "ZImageTransformer2DModel": Denoiser(exit="all_final_layer.2-1", condition="cap_feats"),
}


def registered_layout(model: nn.Module) -> Denoiser | None:
    """The layout of a model's family, None if it is not registered."""
    return DENOISERS.get(type(model).__name__)


def denoiser_of(model: nn.Module) -> Denoiser:
    """The layout of a model's family, with its stacks named.

    Args:
        model: a denoiser of diffusers, uncompiled.

    Raises:
        SpectrumError: if its family is not registered.
    """
    name = type(model).__name__
    if name not in DENOISERS:
        refuse(
            f"{name} is not a registered denoiser: give its layout, accelerate(pipe, method, denoiser=Denoiser("
            f"exit='norm_out')); registered are {', '.join(sorted(DENOISERS))}"
        )
    return DENOISERS[name].with_stacks(model)
