"""What a pipeline without text encoders is called with instead of prompts, and the pictures and videos that it moves.

Each prompt becomes embeddings of the right shape, drawn by a generator that its text seeds, so the same prompt is the
same call everywhere.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from spectrum.config.sampling import takes_one
from spectrum.core.errors import refuse
from spectrum.hooks.private_api import execution_device
from spectrum.models.attached import named_denoisers
from spectrum.models.toys import value_of


def prompt_inputs(
    pipe: Any, embeds: Mapping[str, Any], prompts: Sequence[str], sizes: Mapping[str, int | None] | None = None
) -> dict[str, Any]:
    """What a pipeline without text encoders is called with instead of prompts.

    The numbers of a prompt are drawn by a generator that its text seeds. Arguments named `negative...` are those of an
    empty prompt.

    Args:
        pipe: the pipeline.
        embeds: for each argument what it is for one prompt: `[tokens, width]` for normal numbers in the denoiser's
            dtype; `{shape: [layers, tokens, width], batch: 1}` where prompts are not the first dimension; `{ones:
            [tokens], dtype: bool}` or `{zeros: [tokens]}` for a mask; `{each: [tokens, width]}` for a list with one
            tensor for each prompt; `{labels: 1000}` for class numbers (a prompt that is a number or a class's name is
            that class; where the classes have no names, any other draws one); `{picture: [3, height, width]}` for a
            picture in [0, 1], with `pil: true` as a PIL picture; `{lengths: tokens}` for where each prompt's tokens
            begin and the last one's end; `{alone: {video: [height, width], frames: frames}}` for what
            `spectrum.models.toys.value_of` makes of it, for pipelines that take one sample a call. In these `height`,
            `width` and `frames` may stand for those of the sample.
        prompts: the prompts of one batch.
        sizes: `height`, `width` and `frames` of a sample.

    Returns:
        The arguments by name.

    Raises:
        SpectrumError: for a prompt that is no class, where the classes have names, and for several prompts of a
            pipeline that takes one sample a call.
    """
    if len(prompts) > 1 and takes_one(embeds):
        refuse(f"{type(pipe).__name__} takes one sample a call: type batch=1")
    model = next(iter(named_denoisers(pipe).values()))
    found: dict[str, Any] = {}
    for name, spec in embeds.items():
        texts = [""] * len(prompts) if name.startswith("negative") else list(prompts)
        if isinstance(spec, Mapping) and "labels" in spec:
            found[name] = [_label(getattr(pipe, "labels", {}), text, spec["labels"]) for text in texts]
        elif isinstance(spec, Mapping) and "alone" in spec:
            draw = torch.Generator().manual_seed(_seed(name, texts[0]))
            found[name] = value_of(_sized(spec["alone"], sizes or {}), 0, draw)
        else:
            found[name] = _values(name.removeprefix("negative_"), spec, texts, execution_device(pipe), model.dtype)
    return found


def _sized(spec: Any, sizes: Mapping[str, int | None]) -> Any:
    """What a config says of an input, with the sizes of the sample where it names them."""
    if isinstance(spec, Mapping):
        return {key: _sized(part, sizes) for key, part in spec.items()}
    if isinstance(spec, list):
        return [_sized(part, sizes) for part in spec]
    if not isinstance(spec, str) or spec not in sizes:
        return spec
    return sizes[spec] or refuse(f"model.{spec} is not set, and this pipeline is given as many: type model.{spec}=")


def _values(name: str, spec: Any, texts: Sequence[str], device: torch.device, dtype: torch.dtype) -> Any:
    kind = spec if isinstance(spec, Mapping) else {"shape": spec}
    for value, fill in enumerate(("zeros", "ones")):
        if fill in kind:
            mask = torch.full((len(texts), *kind[fill]), value, device=device)
            return mask.to(getattr(torch, kind.get("dtype", "bool")))
    if "lengths" in kind:
        return torch.arange(len(texts) + 1, dtype=torch.int32, device=device) * kind["lengths"]
    if "picture" in kind and kind.get("pil"):
        from diffusers.utils.pil_utils import numpy_to_pil

        drawn = [_drawn(name, text, kind["picture"], torch.rand) for text in texts]
        return numpy_to_pil(torch.stack(drawn).permute(0, 2, 3, 1).numpy())
    if "picture" in kind:
        return torch.stack([_drawn(name, text, kind["picture"], torch.rand) for text in texts]).to(device, dtype)
    drawn = [_drawn(name, text, kind.get("each") or kind["shape"]).to(device, dtype) for text in texts]
    return drawn if "each" in kind else torch.stack(drawn, kind.get("batch", 0))


def _label(known: Mapping[str, int], text: str, count: int) -> int:
    number = int(text) if text.isdecimal() else known.get(text, -1)
    if known and not 0 <= number < count:
        refuse(
            f'{text!r} is no class of this model: type prompts=inline "prompts.text={[*known][:2]}" with names of its '
            "classes; for model=tiny_dit prompts=classes, or prompts=classes_calibration to fit on"
        )
    return number if 0 <= number < count else _seed("label", text) % count


def _seed(name: str, text: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{name} {text}".encode()).digest()[:6])


def _drawn(name: str, text: str, shape: Sequence[int], draw: Callable[..., Tensor] = torch.randn) -> Tensor:
    return draw(*shape, generator=torch.Generator("cpu").manual_seed(_seed(name, text)))
