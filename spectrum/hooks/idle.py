"""Modules that nothing depends on at a skipped step: embedders of the text and of the latents, rotary tables."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from spectrum.hooks.block_stand_ins import BlockStandIn
from spectrum.hooks.layout import Denoiser
from spectrum.hooks.private_api import context_parallel_config, count_of_hooks, hook_names
from spectrum.hooks.stand_ins import StandIn, in_place_of_stacks, place_of

FILLS = math.nan, 1.0, -1.0
"""What replaces the outputs of modules, one after the other, to see whether anything depends on them or their sign."""


class IdleStandIn(BlockStandIn):
    """Returns a tensor of one number in the place of a module's output, in no memory.

    Args:
        module: the module that it stands for.
        output: what the module returned: a tensor or a tuple of tensors.
        fill: the number.
    """

    def __init__(self, module: nn.Module, output: Any, fill: float) -> None:
        super().__init__(module)
        self.__dict__["_output"] = _filled(output, fill)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The tensor, or the tuple of them."""
        return self._output


def idle_stand_ins(
    model: nn.Module, layout: Denoiser, replay: Callable[[], bool], known: Sequence[str] = ()
) -> dict[str, StandIn]:
    """Stand-ins, by name, for the modules of a denoiser that need not run at a skipped step.

    Each module outside of the stacks and the exits is tried: where the output stays as it was, bit for bit, with NaN
    and with ones of both signs in the place of what the module returns, nothing depends on it. From then on NaN stands
    in for it, so that a step at which something does depend on it usually ends with an error. A module with a hook on
    it or in it is left to run, and so is every module of a denoiser whose tokens are split over ranks: all ranks have
    to run the same ones.

    Args:
        model: the denoiser.
        layout: its layout, which was proved for a call.
        replay: makes that call as at a skipped step, with the true features put back, and says whether all that came of
            it is as it was. It may fail.
        known: those that were idle in calls of another kind, which are tried first, all together.
    """
    if context_parallel_config(model) is not None:
        return {}
    named = (*layout.stacks, *layout.feeders, *(e.module for e in layout.exits))
    outputs = _outputs({name: part for name, part in _outside(model, named) if not _is_hooked(part)}, replay)

    def stands(names: Sequence[str], fill: float) -> dict[str, StandIn]:
        made = {name: IdleStandIn(model.get_submodule(name), outputs[name], fill) for name in names}
        return {name: StandIn(*place_of(model, name), module) for name, module in made.items()}

    def as_it_was(names: Sequence[str], fill: float) -> bool:
        try:
            with in_place_of_stacks([*stands(names, fill).values()]):
                return replay()
        except Exception:  # what a forward does with such a tensor is not known
            return False

    again = [name for name in known if name in outputs]
    for search in (lambda: again, lambda: [name for name in outputs if as_it_was([name], FILLS[0])]):
        idle = search()
        if idle and all(as_it_was(idle, fill) for fill in FILLS):
            return stands(idle, FILLS[0])
    return {}


def _is_hooked(module: nn.Module) -> bool:
    return any(count_of_hooks(part) or hook_names(part) for part in module.modules())


def _outside(module: nn.Module, named: Sequence[str], owner: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The outermost modules, by name, that are none of those named, do not hold one, and are no list."""
    for key, child in module.named_children():
        name = owner + key
        if name in named:
            continue
        holds = any(other.startswith(f"{name}.") for other in named)
        if holds or isinstance(child, (nn.ModuleList, nn.ModuleDict)):
            yield from _outside(child, named, f"{name}.")
        else:
            yield name, child


def _outputs(modules: dict[str, nn.Module], replay: Callable[[], bool]) -> dict[str, Any]:
    """What the modules return that are called, as far as it can be replaced: the same kind of tensors at each call."""
    found: dict[str, list[Any]] = {}
    handles = [
        module.register_forward_hook(lambda module, args, output, name=name: found.setdefault(name, []).append(output))
        for name, module in modules.items()
    ]
    try:
        fine = replay()
    except Exception:  # without the outputs nothing is tried
        fine = False
    finally:
        for handle in handles:
            handle.remove()
    kinds = {name: {_kind(output) for output in outputs} for name, outputs in found.items()}
    return {name: found[name][0] for name in found if fine and len(kinds[name]) == 1 and None not in kinds[name]}


def _kind(output: Any) -> Any:
    """The shapes and dtypes of a tensor or a tuple of tensors of real or complex numbers; None for all else."""
    if type(output) is Tensor and (output.is_floating_point() or output.is_complex()):
        return output.shape, output.dtype
    kinds = tuple(_kind(part) for part in output) if type(output) is tuple else (None,)
    return None if None in kinds else kinds


def _filled(output: Any, fill: float) -> Any:
    if isinstance(output, tuple):
        return tuple(_filled(part, fill) for part in output)
    with torch.inference_mode(False):  # later calls may be made with gradients
        return torch.full((), fill, dtype=output.dtype, device=output.device).expand(output.shape)
