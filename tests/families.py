"""The six families the hook's shape has to fit: the real classes at toy width, their layouts, and one call each."""

from dataclasses import replace

import diffusers
import torch
from toys import flux_transformer, randomise

from spectrum.denoisers import FLUX, Denoiser

TEXT, POOLED, WIDTH = 24, 20, 32


def _noise(*shape, seed=7):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _ids(side):
    ids = torch.zeros(side * side, 3)
    ids[:, 1], ids[:, 2] = torch.arange(side * side) // side, torch.arange(side * side) % side
    return ids


def flux():
    inputs = {
        "encoder_hidden_states": _noise(1, 5, TEXT), "pooled_projections": _noise(1, POOLED), "guidance": torch.ones(1),
        "img_ids": _ids(4), "txt_ids": torch.zeros(5, 3),
    }  # fmt: skip
    return (
        flux_transformer(),
        replace(FLUX, stacks=("transformer_blocks", "single_transformer_blocks")),
        (1, 16, 16),
        inputs,
        1000,
    )


def sd3():
    model = diffusers.SD3Transformer2DModel(
        sample_size=8, in_channels=4, out_channels=4, num_layers=3, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=TEXT, caption_projection_dim=WIDTH, pooled_projection_dim=POOLED, pos_embed_max_size=8,
        dual_attention_layers=(0,), qk_norm="rms_norm",
    )  # fmt: skip
    inputs = {"encoder_hidden_states": _noise(1, 5, TEXT), "pooled_projections": _noise(1, POOLED)}
    return model, Denoiser("norm_out", ("transformer_blocks",)), (1, 4, 8, 8), inputs, 1


def wan():
    model = diffusers.WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4, text_dim=TEXT, freq_dim=16,
        ffn_dim=48, num_layers=3, rope_max_seq_len=32,
    )  # fmt: skip
    return model, Denoiser("norm_out", ("blocks",)), (1, 4, 2, 8, 8), {"encoder_hidden_states": _noise(1, 5, TEXT)}, 1


def hunyuan():
    model = diffusers.HunyuanVideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=16, num_layers=2, num_single_layers=2,
        num_refiner_layers=1, text_embed_dim=TEXT, pooled_projection_dim=POOLED, rope_axes_dim=(4, 6, 6),
    )  # fmt: skip
    inputs = {
        "encoder_hidden_states": _noise(1, 5, TEXT), "encoder_attention_mask": torch.ones(1, 5),
        "pooled_projections": _noise(1, POOLED), "guidance": torch.full((1,), 6000.0),
    }  # fmt: skip
    return model, Denoiser("norm_out", ("transformer_blocks", "single_transformer_blocks")), (1, 4, 2, 8, 8), inputs, 1


def qwen():
    model = diffusers.QwenImageTransformer2DModel(
        in_channels=16, out_channels=4, num_layers=3, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=TEXT, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    inputs = {
        "encoder_hidden_states": _noise(1, 5, TEXT), "encoder_hidden_states_mask": torch.ones(1, 5, dtype=torch.bool),
        "img_shapes": [[(1, 4, 4)]],
    }  # fmt: skip
    return model, Denoiser("norm_out", ("transformer_blocks",)), (1, 16, 16), inputs, 1000


def sdxl():
    model = diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(32, 64), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=TEXT, attention_head_dim=4, norm_num_groups=8, addition_embed_type="text_time",
        addition_time_embed_dim=8, projection_class_embeddings_input_dim=8 * 6 + POOLED,
    )  # fmt: skip
    added = {"text_embeds": _noise(1, POOLED), "time_ids": torch.ones(1, 6)}
    inputs = {"encoder_hidden_states": _noise(1, 5, TEXT), "added_cond_kwargs": added}
    return model, Denoiser("conv_norm_out", ("down_blocks", "mid_block", "up_blocks")), (1, 4, 8, 8), inputs, 1


FAMILIES = {"flux": flux, "sd3": sd3, "wan": wan, "hunyuan": hunyuan, "qwen": qwen, "sdxl": sdxl}


def build(name):
    """(model with random weights, layout, latents, inputs, what its timestep is divided by)."""
    model, layout, shape, inputs, scale = FAMILIES[name]()
    return randomise(model), layout, _noise(*shape, seed=3), inputs, scale


def sample(name, model, x, inputs, scale, steps=12):
    """A plain loop with an Euler solver, the denoiser's outputs and the last latents."""
    flow = diffusers.FlowMatchEulerDiscreteScheduler()
    scheduler = diffusers.EulerDiscreteScheduler() if name == "sdxl" else flow
    scheduler.set_timesteps(steps)
    model.__dict__["_test_scheduler"] = scheduler
    first = "sample" if name == "sdxl" else "hidden_states"
    outputs = []
    for t in scheduler.timesteps:
        scheduler.scale_model_input(x, t) if name == "sdxl" else None
        with torch.no_grad():
            out = model(**{first: x}, timestep=t.expand(1).float() / scale, **inputs, return_dict=False)[0]
        outputs.append(out)
        x = scheduler.step(out * 0.1, t, x).prev_sample
    return outputs, x
