"""Stand-ins for single blocks, where those for whole lists do not do: lists that are sliced, indexed, or in a dict."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from spectrum.hooks.layout import Place
from spectrum.hooks.private_api import submodules
from spectrum.hooks.stand_ins import StandIn, place_of
from spectrum.hooks.tensors import argument_at, like_parts, tensors_in

Entered = Callable[[Any, Any], None]


class BlockStandIn(nn.Module):
    """Returns what looks like the output of a block: an argument of the same shape, else zeros.

    Attributes of the block can be read through it, since forwards ask a block for them (`has_cross_attention`).

    Args:
        block: the block that it stands for.
        entered: told of the arguments of each call.
    """

    def __init__(self, block: nn.Module, entered: Entered | None = None) -> None:
        super().__init__()
        self.__dict__.update(_block=block, _entered=entered, _seen={}, _number=0)

    @property
    def __class__(self) -> type:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The block's, for forwards that tell their blocks apart by it."""
        return type(self.__dict__["_block"])

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_block"], name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The stand-in for the output of the block's call that this is in the current forward."""
        if self._entered is not None:
            self._entered(args, kwargs)
        key = self._number, _shapes(args, kwargs)
        self.__dict__["_number"] += 1
        like = self._seen[key] if key in self._seen else next(reversed(self._seen.values()))
        return _made(like, args, kwargs)

    def begin(self) -> None:
        """A forward begins."""
        self.__dict__["_number"] = 0

    def watch(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        """A hook on the block: remember what its output looks like, at this call of a forward and for these shapes."""
        given = [(path, tensor) for path, tensor in tensors_in({**kwargs, **dict(enumerate(args))})]
        key = self._number, _shapes(args, kwargs)
        self._seen.pop(key, None)
        self._seen[key] = _likeness(output, given)
        self.__dict__["_number"] += 1


def _shapes(args: Any, kwargs: Any) -> tuple[Any, ...]:
    """The shapes of the tensors that a block is given: branches with other batches have other ones."""
    return tuple(tensor.shape for _, tensor in tensors_in([args, kwargs]))


def _likeness(output: Any, given: list[tuple[Place, Tensor]]) -> Any:
    """An output with each tensor replaced by the place of an argument like it, or by an empty tensor and the shape."""
    if isinstance(output, Tensor):
        for path, tensor in given:
            if tensor.shape == output.shape and tensor.dtype == output.dtype:
                return _Like(path, output.new_empty(0), output.shape)
        return _Like(None, output.new_empty(0), output.shape)
    if isinstance(output, dict):
        return type(output)(**{key: _likeness(part, given) for key, part in output.items()})
    if isinstance(output, (list, tuple)):
        return like_parts(output, [_likeness(part, given) for part in output])
    return output


class _Like:
    """A tensor that is to be made: by the place of the argument that takes its place, else by its shape."""

    def __init__(self, place: Place | None, empty: Tensor, shape: torch.Size) -> None:
        self.place, self.empty, self.shape = place, empty, shape


def _made(like: Any, args: Any, kwargs: Any) -> Any:
    if isinstance(like, _Like):
        return like.empty.new_zeros(like.shape) if like.place is None else argument_at(args, kwargs, like.place)
    if isinstance(like, dict):
        return type(like)(**{key: _made(part, args, kwargs) for key, part in like.items()})
    if isinstance(like, (list, tuple)):
        return like_parts(like, [_made(part, args, kwargs) for part in like])
    return like


def blocks_named(model: nn.Module, stacks: Sequence[str]) -> dict[str, nn.Module]:
    """Every block of the stacks by name: the items of lists and dicts, and single blocks."""
    found: dict[str, nn.Module] = {}
    for name in stacks:
        stack = model.get_submodule(name)
        if isinstance(stack, (nn.ModuleList, nn.ModuleDict)):
            found |= {f"{name}.{key}": block for key, block in submodules(stack).items() if block is not None}
        else:
            found[name] = stack
    return found


def block_stand_ins(model: nn.Module, stacks: Sequence[str], entered: Entered | None = None) -> list[StandIn]:
    """A stand-in for each block of some stacks.

    Args:
        model: the denoiser.
        stacks: names of lists and of single blocks.
        entered: told of the arguments that the first of them is called with.
    """
    blocks = blocks_named(model, stacks)
    return [
        StandIn(*place_of(model, name), BlockStandIn(block, None if number else entered))
        for number, (name, block) in enumerate(blocks.items())
    ]
