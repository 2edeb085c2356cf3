"""One call of a denoiser as the sites see it: what it is given, what it returns, what is stored of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

Decide = Callable[[Tensor | None], bool]
Recall = Callable[[str], Tensor]
Forward = Callable[..., Any]
EXIT, OUTPUT = "exit", "output"


@dataclass
class Call:
    """One call of the denoiser.

    Attributes:
        ran: whether the blocks ran.
        output: what the denoiser returned.
        entry: what a residual is relative to; None where the site has no single one.
        features: by place what the blocks gave, or the forecast in its stead.
        values: by place what is to be stored: the features, or their difference to the entry. Empty if skipped.
    """

    ran: bool
    output: Any
    entry: Tensor | None
    features: dict[str, Tensor]
    values: dict[str, Tensor] = field(default_factory=dict)


class Place(Protocol):
    """What the hook needs of a site."""

    def call(self, forward: Forward, args: Any, kwargs: Any, decide: Decide, recall: Recall) -> Call:
        """Run or skip, as `decide` says; it is given the front blocks' residual where the method watches that."""
        ...

    def full(self, forward: Forward, args: Any, kwargs: Any) -> Call:
        """Run."""
        ...

    def remove(self) -> None:
        """Take the site's own hooks off."""
        ...


def tensor(output: Any) -> Tensor:
    """The sample in a denoiser's output, a tuple or a diffusers output object; Z-Image's is a list."""
    return torch.stack(output[0]) if isinstance(output[0], list) else output[0]


def with_tensor(output: Any, sample: Tensor) -> Any:
    """A denoiser's output like `output` with another sample."""
    value = list(sample.unbind()) if isinstance(output[0], list) else sample
    if isinstance(output, tuple):
        return (value, *output[1:])
    return type(output)(**{**output, next(iter(output)): value})


def latents_of(inputs: Mapping[str, Any]) -> Tensor:
    """The latents among a denoiser's forward arguments, which are its first; Z-Image's come as a list."""
    found = next(value for name, value in inputs.items() if name != "self")
    return torch.stack(found) if isinstance(found, list) else found


def hidden_of(args: Any, kwargs: Any) -> Tensor:
    """The hidden states among a module's arguments."""
    if "hidden_states" in kwargs:
        return kwargs["hidden_states"]
    return args[0] if args else next(iter(kwargs.values()))
