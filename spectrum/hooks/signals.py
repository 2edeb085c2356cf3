"""Reads the signals that data-dependent methods decide by, and the layout of the image tokens."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from spectrum.core.errors import refuse
from spectrum.core.method import Signal
from spectrum.hooks.discovery import first_block_parts
from spectrum.hooks.layout import Denoiser
from spectrum.hooks.stand_ins import entered_first_block, in_place_of_stacks
from spectrum.hooks.tensors import hidden_states_of, latents_of

SignalReader = Callable[[Mapping[str, Any], Callable[[], Any]], Tensor]
"""`reader(forward arguments by name, call of the forward) -> signal`, batch first."""


class _SignalFound(Exception):  # noqa: N818
    """Carries the signal out of a forward, which goes no further."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = value


def signal_reader(signal: Signal, model: nn.Module, layout: Denoiser) -> SignalReader:
    """How to read a method's signal before any block has run.

    The modulated input is read by calling the denoiser's own forward, which stops at the first block's first attention.
    So no family needs code of its own. The modules are looked up once, here.

    Args:
        signal: which signal.
        model: the denoiser, uncompiled.
        layout: its layout.

    Returns:
        A function of the forward's arguments by name and of a call of the forward. A modulated input is
        (batch, tokens, width).

    Raises:
        SpectrumError: if the first block has no attention to read from, as in a UNet.
    """
    if signal in (Signal.latents, Signal.front_residual):
        return lambda inputs, run: latents_of(inputs)
    if signal is Signal.teacache and layout.signal is not None:
        part = model.get_submodule(layout.signal)
        return lambda inputs, run: _run_until_found(run, [part.register_forward_hook(_stop_at_output)], model)
    parts = first_block_parts(model, layout.stacks) or refuse(
        f"the first block of {type(model).__name__} has no attention whose input could be read: type a method of "
        "time alone, for example method=spectrum"
    )

    def modulated_input(inputs: Mapping[str, Any], run: Callable[[], Any]) -> Tensor:
        with in_place_of_stacks(entered_first_block(model, layout.stacks)):
            handles = [part.register_forward_pre_hook(_stop_at_input, with_kwargs=True) for part in parts]
            return _run_until_found(run, handles, model)

    return modulated_input


def _run_until_found(run: Callable[[], Any], handles: list[Any], model: nn.Module) -> Tensor:
    try:
        run()
    except _SignalFound as found:
        return found.value
    finally:
        for handle in handles:
            handle.remove()
    return refuse(
        f"{type(model).__name__} did not pass through the module that the method's signal is read from (a guider skips "
        "its first layer, or a forward of one's own): type a method of time alone, for example method=spectrum"
    )


def _stop_at_input(module: nn.Module, args: Any, kwargs: Any) -> None:
    raise _SignalFound(hidden_states_of(args, kwargs))


def _stop_at_output(module: nn.Module, args: Any, output: Any) -> None:
    raise _SignalFound(output if isinstance(output, Tensor) else output[0])


def token_grid(model: Any, inputs: Mapping[str, Any]) -> tuple[int, ...] | None:
    """The layout of the image tokens: (height, width) or (frames, height, width).

    FLUX's packed latents come with their coordinates, Qwen-Image's and LTX-Video's with their shape; other latents are
    divided by the patch size in the model's config.

    Args:
        model: the denoiser.
        inputs: its forward arguments by name.

    Returns:
        The grid in tokens; None where the inputs do not tell.
    """
    ids, shapes = inputs.get("img_ids"), inputs.get("img_shapes")
    if ids is not None:
        places = ids.reshape(-1, ids.shape[-1])[:, 1:3]  # LongCat's begin behind its text
        return tuple(int(side) + 1 for side in (places.amax(0) - places.amin(0)).tolist())
    if shapes is not None:
        first = shapes[0][0] if isinstance(shapes[0], list) else shapes[0]
        return tuple(int(side) for side in first[-2:])
    named = [inputs.get(name) for name in ("num_frames", "height", "width")]
    if all(isinstance(side, int) for side in named):
        return tuple(int(side) for side in named if side is not None)
    latents = inputs.get("hidden_states", inputs.get("sample"))
    if not isinstance(latents, Tensor) or latents.ndim not in (4, 5):
        return None
    count = getattr(model.config, "in_channels", None)
    channels = latents.shape.index(count, 1) if count in latents.shape[1:] else 1
    sides = [side for axis, side in enumerate(latents.shape) if axis not in (0, channels)]
    patch = getattr(model.config, "patch_size", 1) or 1
    time = getattr(model.config, "patch_size_t", 1) or 1
    by = [time, patch, patch] if isinstance(patch, int) else [time, *patch][-3:]
    return tuple(side // part for side, part in zip(sides, by[-len(sides) :], strict=True))
