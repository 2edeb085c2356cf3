"""The layout of a denoiser family: what the hook has to know of it."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from torch import nn

from spectrum.core.errors import refuse
from spectrum.core.method import Method, Space
from spectrum.hooks.discovery import block_stacks

Place = tuple[int | str, ...]
"""Where a tensor is among a module's arguments: `("hidden_states",)`, `(0,)`, or inside of one, `(0, 1)`."""


class Source(StrEnum):
    """Where a layout comes from: the user, this project's list of families, or a traced forward."""

    given = "given"
    registered = "registered"
    traced = "traced"


@dataclass(frozen=True)
class Exit:
    """Where a feature leaves the blocks: an argument of a module that is called behind them.

    Attributes:
        module: the module's name.
        place: which of its arguments; None for the first.
        call: which of its calls within one forward, from 0; None for all.
        same_as: number of an earlier exit that is given the very same tensor, which is stored once.
    """

    module: str
    place: Place | None = None
    call: int | None = None
    same_as: int | None = None

    def __str__(self) -> str:
        where = "" if self.place in (None, (0,)) else f"({'.'.join(map(str, self.place or ()))})"
        return self.module + where + (f", call {self.call + 1}" if self.call else "")


@dataclass(frozen=True)
class Denoiser:
    """Layout of a denoiser family.

    Attributes:
        exit: name of the module that the last block's output enters; its first argument is the feature. An `Exit` for
            another argument, several in a tuple for a denoiser with several outputs.
        stacks: names of the block lists (or single blocks) in the order they run. If empty, they are the lists of
            blocks that diffusers' own caching hooks find.
        signal: name of the module whose output TeaCache looks at, where that is an embedding of the timestep. None
            where it is the modulated input: what the first block's first attention is given.
        condition: the forward argument that tells CFG branches apart where the pipeline does not name them. None where
            all branches are denoised in one call.
        fills: by path of an argument the value at which a call fills a cache for later calls. Such a call is made as it
            is and counts as no step: its blocks write what later ones read.
        entry: which argument of the first block is the blocks' input; None for its hidden states.
        feeders: names of further lists and modules that only feed the stacks, so need not run at a skipped step either.
        refiners: lists whose output enters the stacks. They need not run at a skipped step either, unless the forecast
            is a residual: that is added to what enters the stacks.
        source: where it comes from.

    Example:
        >>> Denoiser(exit="norm_out").condition
        'encoder_hidden_states'
    """

    exit: str | Exit | tuple[Exit, ...]
    stacks: tuple[str, ...] = ()
    signal: str | None = None
    condition: str | None = "encoder_hidden_states"
    fills: Mapping[str, Any] = field(default_factory=dict)
    entry: Place | None = None
    feeders: tuple[str, ...] = ()
    refiners: tuple[str, ...] = ()
    source: Source = Source.given

    @property
    def exits(self) -> tuple[Exit, ...]:
        """The exits, in the order of `exit`."""
        if isinstance(self.exit, tuple):
            return self.exit
        return (Exit(self.exit) if isinstance(self.exit, str) else self.exit,)

    def only_fills(self, inputs: Mapping[str, Any]) -> bool:
        """Whether a call with these arguments, by name, fills a cache for later calls.

        Example:
            >>> Denoiser(exit="norm_out", fills={"cache.mode": "write"}).only_fills({"cache": {"mode": "write"}})
            True
        """
        return any(functools.reduce(_part, path.split("."), inputs) == value for path, value in self.fills.items())

    def with_stacks(self, model: nn.Module) -> "Denoiser":
        """The layout with its stacks named, found in `model` where they are left empty.

        Raises:
            SpectrumError: if the model has no list of blocks that diffusers knows.
        """
        return self if self.stacks else replace(self, stacks=block_stacks(model))

    def serving(self, method: Method) -> "Denoiser":
        """The layout for a method: refiners are feeders where it stores features behind all blocks."""
        if method.space is not Space.feature or method.front_blocks:
            return self
        return replace(self, feeders=(*self.feeders, *self.refiners), refiners=())

    def fits(self, model: nn.Module) -> bool:
        """Whether a model has the exits and stacks that this layout names."""
        modules = dict(model.named_modules())
        return all(name in modules for name in (*(e.module for e in self.exits), *self.stacks))

    def check(self, model: nn.Module) -> None:
        """Check that a model has the modules that this layout names.

        Raises:
            SpectrumError: if it lacks one.
        """
        modules = dict(model.named_modules())
        named = [*(e.module for e in self.exits), *self.stacks, *self.feeders, *self.refiners]
        for name in named if self.signal is None else [*named, self.signal]:
            if name not in modules:
                children = ", ".join(child for child, _ in model.named_children())
                refuse(f"{type(model).__name__} has no module {name}, which its layout names; it has {children}")


def _part(value: Any, name: str) -> Any:
    """An entry or an attribute of an argument; None where there is none."""
    if isinstance(value, Mapping):
        return value.get(name)
    if isinstance(value, (list, tuple)):
        return value[int(name)] if int(name) < len(value) else None
    return getattr(value, name, None)
