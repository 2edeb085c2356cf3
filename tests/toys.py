"""Toy pipelines: the real classes at toy width, called by `sample` with prompt embeddings instead of prompts."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AuraFlowPipeline,
    AuraFlowTransformer2DModel,
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
)
from PIL import Image
from tiny import vocabulary

from spectrum.hooks.block_stand_ins import blocks_named


@dataclass
class Toy:
    """A pipeline and how to call it; `sample` returns latents."""

    pipe: Any
    size: int
    text: int
    pooled: int
    tokens: int
    cfg: float = 1.0
    call: dict[str, Any] = field(default_factory=dict)

    @property
    def model(self):
        return self.pipe.transformer

    @classmethod
    def embedded(cls, pipe):
        return cls(pipe, size=48, text=128, pooled=128, tokens=8, cfg=3.0)

    def to(self, dtype):
        return replace(self, pipe=type(self.pipe)(**self.pipe.components).to(dtype))

    def with_pipe(self, pipe):
        return replace(self, pipe=pipe)

    def sample(self, steps=12, batch=2, size=None, seed=0, items=None, cfg=None, **kwargs):
        """Latents of `batch` samples; `items` picks some of them, with the noise and prompt they have in the batch."""
        size, cfg = size or self.size, self.cfg if cfg is None else cfg
        items = list(range(batch)) if items is None else items
        dtype = self.model.dtype

        def draw(kind, *shape):
            return torch.stack(
                [
                    torch.randn(shape, generator=torch.Generator().manual_seed(1000 * seed + 10 * i + kind))
                    for i in items
                ]
            ).to(dtype)

        call = {"prompt_embeds": draw(1, self.tokens, self.text), "pooled_prompt_embeds": draw(2, self.pooled)}
        if cfg > 1:
            call |= {"true_cfg_scale": cfg}
            call |= {"negative_prompt_embeds": draw(3, self.tokens, self.text)}
            call |= {"negative_pooled_prompt_embeds": draw(4, self.pooled)}
        return self.pipe(
            **call,
            height=size,
            width=size,
            num_inference_steps=steps,
            generator=[torch.Generator().manual_seed(1000 * seed + 10 * i) for i in items],
            output_type="latent",
            **{**self.call, **kwargs},
        ).images


def randomise(model, seed=0):
    """Random weights that no zero initialisation leaves idle."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=g) * (0.5 / max(p.shape[-1], 1) ** 0.5 if p.ndim > 1 else 0.1))
    return model.eval()


def flux_transformer(guidance=True, seed=0):
    return randomise(
        FluxTransformer2DModel(
            in_channels=16, num_layers=2, num_single_layers=3, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=24, pooled_projection_dim=20, guidance_embeds=guidance, axes_dims_rope=(4, 6, 6),
        ),
        seed,
    )  # fmt: skip


def toy_flux(guidance=True, seed=0) -> Toy:
    vae = AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, norm_num_groups=4,
    )  # fmt: skip
    pipe = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=vae, text_encoder=None, tokenizer=None, text_encoder_2=None, tokenizer_2=None,
        transformer=flux_transformer(guidance, seed),
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    return Toy(pipe, size=16, text=24, pooled=20, tokens=5)


class BlockCounter:
    """Counts block calls per denoiser call."""

    def __init__(self, model, stacks):
        self.calls: list[int] = []
        self.handles = [model.register_forward_pre_hook(lambda *a: self.calls.append(0))]
        for block in blocks_named(model, stacks).values():
            self.handles.append(block.register_forward_pre_hook(self._count))

    def _count(self, *args):
        self.calls[-1] += 1

    def close(self):
        for handle in self.handles:
            handle.remove()
        return self.calls


def emoji_folder(folder: Path) -> Path:
    """A folder with noise under the name of every picture that the scenes are painted with."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for code in vocabulary.FILES.values():
        Image.fromarray(rng.integers(0, 255, (64, 64, 4), dtype=np.uint8)).save(folder / f"{code}.png")
    return folder


def aura_flow():
    """AuraFlow at toy width, a family that is not registered."""
    widths = {"num_attention_heads": 2, "joint_attention_dim": 24, "caption_projection_dim": 32, "sample_size": 8}
    layers = {"num_mmdit_layers": 2, "num_single_dit_layers": 2, "attention_head_dim": 16, "pos_embed_max_size": 64}
    model = AuraFlowTransformer2DModel(**widths, **layers)
    parts = {"tokenizer": None, "text_encoder": None, "vae": None}
    pipe = AuraFlowPipeline(**parts, transformer=model, scheduler=FlowMatchEulerDiscreteScheduler())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def aura_flow_embeds():
    """What its pipeline is called with in the place of a prompt."""
    embeds, mask = torch.zeros(1, 5, 24), torch.ones(1, 5, dtype=torch.int64)
    given = {"prompt_embeds": embeds + 0.1, "prompt_attention_mask": mask}
    return given | {"negative_prompt_embeds": embeds, "negative_prompt_attention_mask": mask}


def traces(model):
    """What a hook could leave behind on a model's modules."""
    return [(set(vars(m)), len(m._forward_pre_hooks), len(m._forward_hooks)) for m in model.modules()]


def dtype_of(value):
    """The dtype of a denoiser's sample, which may be a list of tensors."""
    return value[0].dtype if isinstance(value, list) else value.dtype
