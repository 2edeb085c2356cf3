"""Assemble the trained parts into a FluxPipeline folder that diffusers loads with nothing of ours."""

import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline
from transformers import T5EncoderModel

from spectrum.pipeline import digest

from .denoiser import Denoiser


def assemble(vae: AutoencoderKL, parts: Denoiser, shift: float, scale: float) -> FluxPipeline:
    """The pipeline; the latents' mean and scale go into the autoencoder's config, where FLUX has them."""
    vae.register_to_config(shift_factor=shift, scaling_factor=scale)
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15, base_image_seq_len=256, max_image_seq_len=4096
    )
    return FluxPipeline(
        scheduler=scheduler,
        vae=vae,
        text_encoder=parts.clip,
        tokenizer=parts.clip_tokenizer,
        text_encoder_2=parts.t5,
        tokenizer_2=parts.t5_tokenizer,
        transformer=parts.transformer,
    )


def export(pipe: FluxPipeline, folder: Path) -> int:
    """Write `pipe` in float16 under `folder`, with its digest; what lay there before is replaced. Returns bytes."""
    if folder.exists():
        shutil.rmtree(folder)
    pipe.to(dtype=torch.float16)
    encoder = pipe.text_encoder_2
    assert isinstance(encoder, T5EncoderModel)
    pipe.save_pretrained(folder, safe_serialization=True)
    for path in folder.rglob("*.json"):
        if path.name in ("config.json", "tokenizer.json"):
            content = json.loads(path.read_text())
            content.pop("_name_or_path", None)
            path.write_text(
                json.dumps(
                    content,
                    separators=(",", ":") if path.name == "tokenizer.json" else None,
                    indent=None if path.name == "tokenizer.json" else 2,
                )
                + "\n"
            )
    (folder / "digest.json").write_text(json.dumps({"sha256": digest(folder)}) + "\n")
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
