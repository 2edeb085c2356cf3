"""The layout of each supported denoiser family, by the name of its class in diffusers."""

from collections.abc import Mapping

from torch import nn

from spectrum.core.errors import refuse
from spectrum.hooks.layout import Denoiser

_CONTROLNET = "ControlNet residuals are added inside the blocks, which a skipped step does not run"

FLUX = Denoiser(
    exit="norm_out",
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
    signal="t_embedder",
    condition="encoder_hidden_states_t5",
)

DENOISERS: Mapping[str, Denoiser] = {
    "ChromaTransformer2DModel": CHROMA,
    "CogVideoXTransformer3DModel": Denoiser(exit="norm_final", signal="time_embedding"),
    "CogView4Transformer2DModel": Denoiser(exit="norm_out"),
    "DiTTransformer2DModel": Denoiser(exit="norm_out", condition=None),
    "Flux2Transformer2DModel": FLUX2,
    "FluxTransformer2DModel": FLUX,
    "HiDreamImageTransformer2DModel": HIDREAM,
    "HunyuanImageTransformer2DModel": Denoiser(exit="norm_out"),
    "HunyuanVideo15Transformer3DModel": Denoiser(exit="norm_out"),
    "HunyuanVideoTransformer3DModel": Denoiser(exit="norm_out"),
    "LTXVideoTransformer3DModel": Denoiser(exit="norm_out"),
    "Lumina2Transformer2DModel": Denoiser(exit="norm_out"),
    "MochiTransformer3DModel": Denoiser(exit="norm_out"),
    "PixArtTransformer2DModel": Denoiser(exit="norm_out", condition=None),
    "QwenImageTransformer2DModel": QWEN_IMAGE,
    "SD3Transformer2DModel": SD3,
    "SanaTransformer2DModel": Denoiser(
        exit="norm_out", condition=None, refused={"controlnet_block_samples": _CONTROLNET}
    ),
    "UNet2DConditionModel": UNET,
    "WanTransformer3DModel": Denoiser(exit="norm_out", signal="condition_embedder.time_embedder"),
    "ZImageTransformer2DModel": Denoiser(
        exit="all_final_layer.2-1", condition="cap_feats", refused={"controlnet_block_samples": _CONTROLNET}
    ),
}


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
