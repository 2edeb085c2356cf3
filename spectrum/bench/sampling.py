"""Calls a pipeline for one batch of samples, and encodes what it returns."""

import inspect
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from spectrum.bench.prompts import Sample
from spectrum.config.sampling import Sampling, takes_one
from spectrum.core.errors import SpectrumError, refuse
from spectrum.hooks.replaced import replaced
from spectrum.hooks.scheduler import steps_again
from spectrum.models.inputs import prompt_inputs
from spectrum.models.returned import over_grey, samples_in

FRAMES = ("num_frames", "frames", "layers")
"""What pipelines call the number of pictures in a sample; one that has several of these arguments gets the first."""


def sample_batch(
    pipe: Any, batch: list[Sample], sampling: Sampling, on_step: Callable[[], None] | None = None
) -> Tensor:
    """Sample one batch.

    Args:
        pipe: a diffusers pipeline.
        batch: the samples to make, each with a noise generator of its own.
        sampling: how the pipeline is called.
        on_step: called after each denoising step.

    Returns:
        (batch, 3, height, width) float32 in [0, 1] on the CPU; for videos (batch, frames, 3, height, width). The layers
        of a picture are its frames, and what is transparent lies over grey.

    Raises:
        SpectrumError: if the pipeline refuses its arguments, or returns NaN or infinite pixels.
    """
    check_memory(sampling, len(batch))
    call = call_arguments(pipe, batch, sampling)
    noise = [torch.Generator("cpu").manual_seed(sample.noise_seed) for sample in batch]
    try:
        with _after_each_step(pipe.scheduler, on_step):
            result = pipe(
                num_inference_steps=sampling.steps,
                generator=noise[0] if takes_one(sampling.embeds) else noise,
                output_type="pt",
                **call,
            )
    except (TypeError, ValueError) as error:
        if isinstance(error, SpectrumError) or not _refused_arguments(error):
            raise
        raise SpectrumError(f"{type(pipe).__name__} refuses its arguments: {' '.join(str(error).split())}") from None
    images = samples_in(result, len(batch))
    if not torch.isfinite(images).all():
        refuse("the pipeline returned NaN or infinite pixels: try another model.dtype")
    return over_grey(images.float().cpu())


def check_arguments(pipe: Any, sampling: Sampling) -> None:
    """Refuse what a pipeline's call does not take.

    Args:
        pipe: a diffusers pipeline.
        sampling: how it is to be called.

    Raises:
        SpectrumError: for an argument that it does not have, one that is no number where it has to be, and frames of a
            pipeline of pictures.
    """
    known = inspect.signature(type(pipe).__call__).parameters
    for name, value in sampling.call.items():
        if name not in known:
            refuse(f"model.call.{name} is no argument of {type(pipe).__name__}: take it out")
        default = known[name].default
        number = isinstance(default, (int, float)) and not isinstance(default, bool)
        if number and value is not None and not isinstance(value, (int, float)):
            refuse(f"model.call.{name} must be a number, got {value!r}")
    if sampling.frames is not None and not {*FRAMES, "segment_frame_length"} & set(known):
        refuse(f"model.frames={sampling.frames}: {type(pipe).__name__} makes pictures; take it out")


def call_arguments(pipe: Any, batch: list[Sample], sampling: Sampling) -> dict[str, Any]:
    """The keyword arguments of a pipeline's call for one batch, without its steps, noise and kind of output.

    Args:
        pipe: a diffusers pipeline.
        batch: the samples to make.
        sampling: how the pipeline is called.

    Returns:
        The arguments by name.

    Raises:
        SpectrumError: for arguments that the pipeline does not have.
    """
    check_arguments(pipe, sampling)
    call = dict(sampling.call)
    known = inspect.signature(type(pipe).__call__).parameters
    prompts = [sample.prompt for sample in batch]
    pictures = {"picture", "alone"}
    if any(not isinstance(spec, dict) or not pictures & spec.keys() for spec in (sampling.embeds or {}).values()):
        call.pop("negative_prompt", None)
        call |= {"negative_prompt": None} if "negative_prompt" in known else {}
    elif "prompt" in known:
        call["prompt"] = prompts[0] if takes_one(sampling.embeds) else prompts
    sizes = {"height": sampling.height, "width": sampling.width, "frames": sampling.frames}
    call |= prompt_inputs(pipe, sampling.embeds or {}, prompts, sizes)
    if isinstance(call.get("negative_prompt"), str) and not takes_one(sampling.embeds):
        call["negative_prompt"] = [call["negative_prompt"]] * len(batch)
    given = {"height": sampling.height, "width": sampling.width}
    given |= {name: sampling.frames for name in [name for name in FRAMES if name in known][:1]}
    return call | {key: value for key, value in given.items() if value is not None and key in known}


def _refused_arguments(error: BaseException) -> bool:
    """Whether an error comes from a pipeline's own check of its arguments, or from calling it with wrong ones."""
    frames = []
    trace = error.__traceback__
    while trace is not None:
        frames.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    return frames[-1] == "check_inputs" or (
        isinstance(error, TypeError) and frames[-1] in ("sample_batch", "decorate_context")
    )


def check_memory(sampling: Sampling, batch: int, more: int = 0) -> None:
    """Refuse a size that would not fit into this machine's memory.

    Args:
        sampling: height, width and frames.
        batch: samples per call.
        more: bytes that a call takes beside its pixels.

    Raises:
        SpectrumError: before any of that memory is touched.
    """
    needed = batch * (sampling.frames or 1) * 3 * sampling.height * sampling.width * 4 + more
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else needed
    if needed > installed:
        refuse(
            f"{batch} samples of {sampling.width}x{sampling.height} pixels take about {needed / 2**30:.0f} GiB, and "
            f"this machine has {installed / 2**30:.0f}: type a smaller model.height, model.width or batch"
        )


@contextmanager
def _after_each_step(scheduler: Any, on_step: Callable[[], None] | None) -> Iterator[None]:
    """Call `on_step` after each step of a scheduler; not every pipeline has a callback."""
    if on_step is None:
        yield
        return
    left_at: int | None = None

    def step(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        nonlocal left_at
        again = steps_again(scheduler, left_at)
        result = original(*args, **kwargs)
        left_at = getattr(scheduler, "step_index", None)
        if not again:
            on_step()
        return result

    with replaced(scheduler, "step", step):
        yield


def in_8_bits(images: Tensor) -> Tensor:
    """Pictures as their files hold them: float in [0, 1] as uint8 of the same shape."""
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)


def encoded(image: Tensor, fps: int | None = None) -> bytes:
    """A sample as a lossless file.

    Args:
        image: a picture (3, height, width) or a video (frames, 3, height, width), float in [0, 1].
        fps: frames per second of a video; 8 if None.

    Returns:
        The bytes of a PNG, for a video of an animated PNG.
    """
    frames = image if image.ndim == 4 else image[None]
    pixels = in_8_bits(frames).permute(0, 2, 3, 1).numpy()
    first, *rest = [Image.fromarray(frame) for frame in pixels]
    moving = {"save_all": True, "append_images": rest, "duration": 1000 / (fps or 8)} if rest else {}
    buffer = io.BytesIO()
    first.save(buffer, format="PNG", **moving)
    return buffer.getvalue()
