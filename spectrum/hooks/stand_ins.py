"""Stand-ins for the block stacks: lists that yield only some of their blocks, or none, when they are iterated."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from spectrum.core.errors import refuse
from spectrum.hooks.private_api import share_submodules, submodules


@dataclass(frozen=True)
class StandIn:
    """What takes the place of a stack, or of one block.

    Attributes:
        table: the table of submodules that it stands in.
        key: its name there.
        module: what takes its place; None for a single block, which denoisers check for.
    """

    table: dict[str, nn.Module | None]
    key: str
    module: nn.Module | None


class _FirstBlocks(nn.ModuleList):
    """Yields only the first `count` blocks of a stack when it is iterated.

    All blocks can still be counted and looked up by index: Chroma splits its modulation by their number, DiT reads an
    embedding of its first block.
    """

    def __init__(self, stack: nn.ModuleList, count: int = 0) -> None:
        super().__init__()
        share_submodules(self, stack)
        self._count = count

    def __iter__(self) -> Iterator[nn.Module]:
        yield from list(submodules(self).values())[: self._count]  # pyright: ignore[reportReturnType]

    def __len__(self) -> int:
        return len(submodules(self))

    def __getitem__(self, index: Any) -> Any:
        return list(submodules(self).values())[index]


class _FirstThenRest(_FirstBlocks):
    """Also yields the remaining blocks if `rest_runs()` returns True after the first ones."""

    def __init__(self, stack: nn.ModuleList, count: int, rest_runs: Callable[[], bool]) -> None:
        super().__init__(stack, count)
        self._rest_runs = rest_runs

    def __iter__(self) -> Iterator[nn.Module]:
        yield from super().__iter__()
        if self._rest_runs():
            yield from list(submodules(self).values())[self._count :]  # pyright: ignore[reportReturnType]


class _Bare:
    """A block whose call is its forward alone; its attributes can be read."""

    def __init__(self, block: nn.Module) -> None:
        self._block = block

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._block.forward(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._block, name)


class _EnteredFirstBlock(nn.ModuleList):
    """Yields the first block's forward alone, without the hooks that its call would run."""

    def __init__(self, stack: nn.ModuleList) -> None:
        super().__init__()
        share_submodules(self, stack)

    def __iter__(self) -> Iterator[nn.Module]:
        first = next(iter(submodules(self).values()))
        assert first is not None
        yield _Bare(first)  # pyright: ignore[reportReturnType]


def place_of(model: nn.Module, name: str) -> tuple[dict[str, nn.Module | None], str]:
    """The table of submodules that a module is in, and its name there."""
    owner, _, key = name.rpartition(".")
    return submodules(model.get_submodule(owner)), key


def no_blocks(model: nn.Module, stacks: Sequence[str]) -> list[StandIn]:
    """Stand-ins with which no block of the stacks runs, if the denoiser iterates its lists, and checks for None."""
    found = [(place_of(model, name), model.get_submodule(name)) for name in stacks]
    return [
        StandIn(*place, _FirstBlocks(stack) if isinstance(stack, nn.ModuleList) else None) for place, stack in found
    ]


def front_blocks(model: nn.Module, stacks: Sequence[str], count: int, rest_runs: Callable[[], bool]) -> list[StandIn]:
    """Stand-ins with which the first `count` blocks run, and the others if `rest_runs()` says so after them.

    Args:
        model: the denoiser.
        stacks: names of its block lists, in the order they run.
        count: how many blocks of the first list run in any case.
        rest_runs: asked each time that the first ones of a list have run.

    Raises:
        SpectrumError: if one of the stacks is a single block.
    """
    found: list[StandIn] = []
    for number, name in enumerate(stacks):
        stack = model.get_submodule(name)
        if not isinstance(stack, nn.ModuleList):
            refuse(
                f"{type(model).__name__}.{name} is a single block, so no front of it can run: leave "
                "method.front_blocks=0"
            )
        found.append(StandIn(*place_of(model, name), _FirstThenRest(stack, 0 if number else count, rest_runs)))
    return found


def entered_first_block(model: nn.Module, stacks: Sequence[str]) -> list[StandIn]:
    """Stand-ins with which the forward goes into the first block and no further block."""
    stack = model.get_submodule(stacks[0])
    assert isinstance(stack, nn.ModuleList)
    return [StandIn(*place_of(model, stacks[0]), _EnteredFirstBlock(stack))]


@contextmanager
def in_place_of_stacks(stand_ins: Sequence[StandIn]) -> Iterator[None]:
    """Put stand-ins in the place of the stacks until the context ends, also when it ends with an error."""
    stacks = [own.table[own.key] for own in stand_ins]
    for own in stand_ins:
        own.table[own.key] = own.module
    try:
        yield
    finally:
        for own, stack in zip(stand_ins, stacks, strict=True):
            own.table[own.key] = stack
