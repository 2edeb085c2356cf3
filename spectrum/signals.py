"""What methods that decide by data watch, got from the denoiser's own forward, and how its tokens lie."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from spectrum.call import hidden_of, latents_of
from spectrum.context import first_parts, peeking
from spectrum.denoisers import Denoiser
from spectrum.errors import refuse
from spectrum.method import Watch


class _Caught(Exception):  # noqa: N818
    """Carries a tensor out of a forward that goes no further."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = value


Watcher = Callable[[Mapping[str, Any], Callable[[], Any]], Tensor]


def watcher(watch: Watch, model: nn.Module, layout: Denoiser) -> Watcher:
    """What a method watches before any block runs, as a function of the forward's arguments by name and of a call.

    The call runs the denoiser's own forward, which is broken off as soon as the tensor is there; a modulated input is
    (batch, tokens, width). Modules are looked up once, here. Refuses a denoiser without an attention in its first block
    (a UNet) where that would be watched.
    """
    if watch in (Watch.latents, Watch.front):
        return lambda inputs, run: latents_of(inputs)
    if watch is Watch.signal and layout.signal is not None:
        part = model.get_submodule(layout.signal)
        return lambda inputs, run: _broken_off(run, [part.register_forward_hook(_catch_output)], model)
    parts = first_parts(model, layout.stacks) or refuse(
        f"the first block of {type(model).__name__} has no attention whose input could be watched: type a method of "
        "time alone, for example method=spectrum"
    )

    def modulated(inputs: Mapping[str, Any], run: Callable[[], Any]) -> Tensor:
        with peeking(model, layout.stacks):
            return _broken_off(run, [part.register_forward_pre_hook(_catch, with_kwargs=True) for part in parts], model)

    return modulated


def _broken_off(run: Callable[[], Any], handles: list[Any], model: nn.Module) -> Tensor:
    try:
        run()
    except _Caught as caught:
        return caught.value
    finally:
        for handle in handles:
            handle.remove()
    return refuse(f"{type(model).__name__} did not pass through what is watched")


def _catch(module: nn.Module, args: Any, kwargs: Any) -> None:
    raise _Caught(hidden_of(args, kwargs))


def _catch_output(module: nn.Module, args: Any, output: Any) -> None:
    raise _Caught(output if isinstance(output, Tensor) else output[0])


def token_grid(model: Any, inputs: Mapping[str, Any]) -> tuple[int, ...] | None:
    """How the image tokens lie, (height, width) or (frames, height, width); None where the inputs do not tell.

    Latents that come unpacked are divided by the config's patch size; FLUX's packed ones come with their coordinates,
    Qwen-Image's and LTX-Video's with their shape.
    """
    ids, shapes = inputs.get("img_ids"), inputs.get("img_shapes")
    if ids is not None:
        sides = [int(side) + 1 for side in ids.reshape(-1, ids.shape[-1]).amax(0).tolist()]
        return tuple(sides[1:3])
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


def check_grid(tokens: int, grid: tuple[int, ...] | None, name: str) -> tuple[int, ...]:
    """`grid`, if it is that of all the tokens that a method looks at; refuses otherwise."""
    if grid is None:
        refuse(f"{name} has to know how the tokens lie, and this denoiser does not tell: type another method")
    if math.prod(grid) != tokens:
        sides = "x".join(map(str, grid))
        refuse(
            f"{name} takes frequencies over a picture, and the {tokens} tokens here are not those of {sides} alone "
            "(text or a given picture is among them): type another method"
        )
    return grid
