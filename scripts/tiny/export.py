"""Assemble the trained parts into a FluxPipeline folder that diffusers loads with nothing of ours."""

import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DiffusionPipeline, FlowMatchEulerDiscreteScheduler, FluxPipeline

from spectrum.models.identity import digest

from . import vocabulary as v
from .denoiser import Denoiser


def assemble(vae: AutoencoderKL, parts: Denoiser, shift: float, scale: float) -> FluxPipeline:
    """The pipeline; the latents' mean and scale go into the autoencoder's config, where FLUX has them."""
    vae.register_to_config(shift_factor=shift, scaling_factor=scale)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=False)
    return FluxPipeline(
        scheduler=scheduler,
        vae=vae,
        text_encoder=parts.clip,
        tokenizer=parts.clip_tokenizer,
        text_encoder_2=parts.t5,
        tokenizer_2=parts.t5_tokenizer,
        transformer=parts.transformer,
    )


def export(pipe: DiffusionPipeline, folder: Path) -> None:
    """Write `pipe` in float16 under `folder` with its digest; what lay there is replaced."""
    if folder.exists():
        shutil.rmtree(folder)
    pipe.to(dtype=torch.float16)
    pipe.save_pretrained(folder, safe_serialization=True)
    for path in folder.rglob("*.json"):
        content = json.loads(path.read_text())
        content.pop("_name_or_path", None)
        if "dtype" in content:  # the text encoders would else stay in float16 beside a float32 denoiser
            content["dtype"] = "float32"
        compact = path.name == "tokenizer.json"
        path.write_text(
            json.dumps(content, indent=None if compact else 2, separators=(",", ":") if compact else None) + "\n"
        )
    digest.cache_clear()
    (folder / "digest.json").write_text(json.dumps({"sha256": digest(folder)}) + "\n")


def write_card(folder: Path, facts: dict[str, float], card: str = "card.md") -> int:
    """Write the model card, from the template `card`; returns the folder's bytes.

    `facts` are the numbers of steps and scenes that the recipe was run with, and what was measured on the model.
    """
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    template = (Path(__file__).resolve().parent / card).read_text()
    known = {"objects": len(v.FILES), "colours": len(v.COLOURS), "patterns": len(v.PATTERNS), **facts}
    sha256 = json.loads((folder / "digest.json").read_text())["sha256"]
    (folder / "README.md").write_text(template.format(digest=sha256, size=f"{size / 1e6:.1f}", **known))
    return size
