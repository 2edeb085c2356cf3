"""Measures what a network's call takes of memory without doing it: on torch's meta device, which holds no numbers."""

import copy
import functools
import weakref
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from spectrum.hooks.private_api import DispatchMode
from spectrum.hooks.replaced import replaced
from spectrum.hooks.tensors import like_parts

META = torch.device("meta")
_PIECE = 512
"""Bytes of which torch's allocator on a GPU gives whole multiples."""


class Meter(DispatchMode):
    """Within this mode the bytes of all tensors on the meta device that are alive are counted, and their peak kept.

    Tensors with numbers that meet one without become such a one, and what is brought back from the meta device is
    zero. Whatever is asked for being not zero is taken to be so everywhere.

    Args:
        known: modules whose weights are not counted.

    Attributes:
        peak: the most bytes that were alive at once.
    """

    def __init__(self, known: Iterable[nn.Module] = ()) -> None:
        super().__init__()
        self.peak = self._now = 0
        self._calls: dict[Any, tuple[torch.Size, torch.dtype, int]] = {}
        self._seen: weakref.WeakKeyDictionary[Any, bool] = weakref.WeakKeyDictionary()
        for module in known:
            for tensor in (*module.parameters(), *module.buffers()):
                self._seen[tensor.untyped_storage()] = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do an operation, and count what it made."""
        kwargs = kwargs or {}
        met: list[bool] = []
        mapped(lambda tensor: met.append(tensor.is_meta), (args, kwargs))
        if any(met):
            to = torch.device(kwargs.get("device") or META)
            if str(func) == "aten._to_copy.default" and to != META:
                return torch.zeros_like(args[0], dtype=kwargs.get("dtype"), device=to)
            if func is torch.ops.aten.nonzero.default:
                return torch.empty(args[0].numel(), args[0].ndim, dtype=torch.long, device=META)
            args, kwargs = mapped(on_meta, (args, kwargs))
        made = func(*args, **kwargs)
        mapped(self._count, made)
        return made

    def once(self, network: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Make a network's call, or count for it what a call with the same shapes took, as the calls for tiles have.

        Args:
            network: the network. Where it keeps tensors from one call to the next, every call is made.
            forward: its forward.
            args: its arguments. Where one is neither a tensor nor a number, a text or None, the call is made: the
                network may write to it.
            kwargs: the same by name.

        Returns:
            What the call returned, or an empty tensor like it.
        """
        given = *args, *kwargs.values()
        if not all(one is None or isinstance(one, (Tensor, int, float, str)) for one in given):
            return forward(*args, **kwargs)
        key = network, (*kwargs,), shapes(given), tuple(one for one in given if not isinstance(one, Tensor))
        if key in self._calls:
            shape, dtype, work = self._calls[key]
            self.peak = max(self.peak, self._now + work)
            return torch.empty(shape, dtype=dtype, device=META)
        before, began = self.peak, self._now
        self.peak = began
        made = forward(*args, **kwargs)
        if isinstance(made, Tensor) and not _keeps_tensors(network):
            self._calls[key] = made.shape, made.dtype, self.peak - began
        self.peak = max(self.peak, before)
        return made

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if not tensor.is_meta or storage in self._seen:
            return
        size = -(-storage.nbytes() // _PIECE) * _PIECE
        self._seen[storage] = True
        self._now += size
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._gone, size)

    def _gone(self, size: int) -> None:
        self._now -= size


class _Attention(TorchFunctionMode):
    """Attention that holds no scores, as the kernels on a GPU and a CPU do it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            named = dict(zip(("query", "key", "value"), args, strict=False)) | kwargs
            query, value = named["query"], named["value"]
            if query.is_meta and query.ndim == 4:
                batch, heads, tokens, _ = query.shape
                return query.new_empty(batch, tokens, heads, value.shape[-1]).transpose(1, 2)
        return func(*args, **kwargs)


def metered(
    call: Callable[..., Any], args: Any, kwargs: Any, known: Iterable[nn.Module], tiled: Iterable[nn.Module] = ()
) -> tuple[Any, int]:
    """Make a call on the meta device.

    Args:
        call: a network, or a method of one, whose weights are on the meta device.
        args: its arguments; those of whole numbers and truths keep their numbers, for code may ask for them.
        kwargs: the same by name.
        known: modules whose weights are not counted.
        tiled: modules of which calls of the same shapes are made once, see `Meter.once`.

    Returns:
        (what it returned, on the meta device; the most bytes that were alive at once, with its arguments and
        without weights).

    Raises:
        RuntimeError, NotImplementedError, and others: where the code asks for numbers that are not there.
    """
    args, kwargs = mapped(lambda tensor: on_meta(tensor) if tensor.is_floating_point() else tensor, (args, kwargs))
    meter = Meter(known)
    with torch.no_grad(), ExitStack() as stack, meter, _Attention():
        for module in tiled:
            stack.enter_context(replaced(module, "forward", functools.partial(meter.once, module)))
        made = call(*args, **kwargs)
    return made, meter.peak


def _keeps_tensors(network: nn.Module) -> bool:
    """Whether a network has tensors beside weights and buffers, as a decoder of videos has of the frames before."""

    def holds(value: Any) -> bool:
        values = list(value.values()) if isinstance(value, dict) else value
        return isinstance(value, Tensor) or (isinstance(values, (list, tuple)) and any(map(holds, values)))

    own = ("_parameters", "_buffers")
    return any(holds(value) for part in network.modules() for name, value in vars(part).items() if name not in own)


def on_meta(tensor: Tensor) -> Tensor:
    """A tensor of the same shape and dtype on the meta device; one that is there, itself."""
    return tensor if tensor.is_meta else torch.empty_like(tensor, device=META)


def zeros(value: Any) -> Any:
    """What a network returned, with zeros on the CPU in the place of its tensors."""
    return mapped(lambda tensor: torch.zeros(tensor.shape, dtype=tensor.dtype), value)


def mapped(change: Callable[[Tensor], Any], value: Any) -> Any:
    """A value with each tensor in it changed: in lists, tuples, mappings, outputs, and the distributions of VAEs."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, (list, tuple)):
        return like_parts(value, [mapped(change, part) for part in value])
    if isinstance(value, dict):
        parts = {key: mapped(change, part) for key, part in value.items()}
        return type(value)(**parts) if hasattr(value, "to_tuple") else parts
    if type(value).__module__.startswith(("diffusers.", "transformers.")) and not isinstance(value, nn.Module):
        changed = copy.copy(value)
        vars(changed).update({key: mapped(change, part) for key, part in vars(value).items()})
        return changed
    return value


def shapes(value: Any) -> str:
    """What tells calls apart that may need different memory: the shapes of all tensors in it."""
    found: list[Any] = []

    def note(tensor: Tensor) -> Tensor:
        found.append((tuple(tensor.shape), tensor.dtype))
        return tensor

    mapped(note, value)
    return repr(found)
