"""What a config needs of memory, worked out from a rehearsal of its pipeline. Without torch."""

import math
from collections.abc import Callable, Mapping
from fractions import Fraction

from spectrum.config.schema import BUILT, BYTES, RunConfig
from spectrum.core.choices import Keep
from spectrum.core.errors import SpectrumError
from spectrum.core.memory import packed_bytes
from spectrum.core.method import Plan, Site
from spectrum.models.identity import model_kind
from spectrum.models.kept_rehearsals import kept_outputs
from spectrum.models.need import Need, Part, Rehearsed, Task
from spectrum.models.plans import cache_bytes, feature_bytes, feature_bytes_grown

BLOCK = 8
"""How many features a block of a denoiser is taken to hold that cannot be rehearsed."""
DECODER = 768
"""How many numbers for each pixel a decoder is taken to hold that cannot be rehearsed, as Stable Diffusion's does."""
AT_ONCE = 4
"""The same: of how many frames at most."""
TOYS = 0.01
"""The share of a download's size under which its text encoders are toys of the architecture."""
ROUNDED = 1.05
"""How much more than the size that a model's file names its weights may be: that number is rounded."""


def need_of(config: RunConfig, plan: Plan, rehearsal: Callable[[RunConfig], Rehearsed]) -> Need:
    """What a config needs of memory while it is sampled.

    Args:
        config: the config, with what was fitted filled in.
        plan: its method's plan. Features that `method.keep=host` keeps are not counted: they are not on the device.
        rehearsal: gives the rehearsal of a config.
    """
    found = rehearsal(config)
    parts, tasks, guessed = dict(found.parts), list(found.tasks), []
    denoisers = [name for name, part in parts.items() if part.denoises]
    size = config.batch or 1
    if not {task.part for task in tasks} & set(denoisers):
        tasks.append(Task(denoisers[0], denoisers[0], BLOCK * size * config.model.branches * feature_bytes(config)))
        guessed.append(f"what {denoisers[0]} holds")
    if "vae" in parts and not any(task.name == "vae decode" for task in tasks):
        pixels = config.model.height * config.model.width * min(config.model.frames or 1, AT_ONCE)
        tasks.append(Task("vae decode", "vae", size * pixels * DECODER * BYTES[config.model.dtype]))
        guessed.append("what vae decode holds")
    encoders = _encoders(config, parts)
    if encoders:
        parts["text encoders"] = encoders
        tasks.append(Task("text encoders", "text encoders", 0))
        guessed.append("text encoders, by the size of the download")
        guessed += ["the VAE's tiles"] if "tiling" in config.model.vae else []
    elif _takes_text(config) and not any("text_encoder" in name for name in parts):
        guessed.append("text encoders, which are not counted")
    features = 0 if config.method.keep is Keep.host else stored_bytes(config, plan, found)
    if features is None:
        guessed.append(f"what is stored at {config.method.site}, which is not counted")
    return Need(parts, tuple(tasks), features or 0, tuple(guessed))


def why(error: Exception) -> str:
    """Why an estimate failed, as one line for people."""
    line = (str(error).splitlines() or [""])[0]
    return line if isinstance(error, SpectrumError) else f"{type(error).__name__}: {line}"


def stored_bytes(config: RunConfig, plan: Plan, found: Rehearsed | None = None) -> int | None:
    """Bytes that a method stores at most, at any site, for a whole batch; None where it is not known.

    Args:
        config: the config.
        plan: its plan.
        found: a rehearsal of this very config; without it what a rehearsal has to tell is not known.
    """
    size = config.batch or 1
    known = cache_bytes(config, plan, size)
    if known is not None or found is None:
        return known
    each = _stored_each(config, found)
    return plan.features_held * config.model.branches * size * each if each else None


def _stored_each(config: RunConfig, found: Rehearsed) -> int | None:
    """Bytes of what a method stores of one sample, CFG branch and run step, as it is kept; None if nothing tells."""
    keep, width = config.method.keep, BYTES[config.model.dtype]
    if config.method.site == Site.modules:
        return packed_bytes(keep, (found.modules // width, 1), width) if found.modules else None
    if not found.outputs:
        return None
    if config.method.site == Site.output:
        return sum(packed_bytes(keep, shape, width) for shape in found.outputs)
    own = kept_outputs(config)
    if own is None:
        return None
    return feature_bytes_grown(config, Fraction(math.prod(found.outputs[0]), math.prod(own[0])), keep)


def _encoders(config: RunConfig, parts: Mapping[str, Part]) -> Part | None:
    """The text encoders that a config's architecture leaves out or has as toys: what is left of the download's size.

    A download is in float32 if the denoiser and the VAE in float32 would still go into it; with toys it is taken to be
    in the dtype that is loaded.
    """
    model = config.model
    if model.weights in BUILT or model_kind(model) != "real weights":
        return None
    loaded, size = BYTES[model.dtype], model.size_gb * 1e9
    named = [part.weights for name, part in parts.items() if "text_encoder" in name]
    if sum(named) > TOYS * size:
        return None
    numbers = sum(part.weights for part in parts.values()) / loaded
    widths = (loaded,) if named else (4, 2)
    stored = next((width for width in widths if numbers * width <= ROUNDED * size), widths[-1])
    left = int(max(0.0, size - numbers * stored) * loaded / stored)
    return Part(left, 0, left // 16, False) if left else None


def _takes_text(config: RunConfig) -> bool:
    """Whether a pipeline that is drawn at random gets embeddings in the place of its text encoders."""
    embeds = (config.model.architecture or {}).get("embeds") or {}
    return model_kind(config.model) == "real weights" and any("prompt_embeds" in name for name in embeds)
