"""Notices where a pipeline begins and ends its work, so that nothing runs uncached and nothing stays in memory."""

import copy
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from spectrum.hooks.private_api import BLOCKS

CALL, LOOP, PARTS = "check_inputs", "progress_bar", "register_components"
"""What diffusers calls once where a pipeline's call begins, where each of its denoising loops begins, and with other
parts for a modular pipeline."""


@dataclass(frozen=True)
class Told:
    """What is called when, as far as a pipeline tells.

    Attributes:
        call_begins: where a call of the pipeline begins; with True if `call_ends` will be called, and nothing before
            that means its end.
        loop_begins: where a loop begins, or a call of a modular pipeline. It may raise an error.
        loop_ends: where a loop's progress bar is closed, also after an error.
        call_ends: where a call of a modular pipeline ends. At the end of other pipelines' calls diffusers resets the
            hooks itself.
        swapped: when parts of a modular pipeline were replaced. It may raise an error.
    """

    call_begins: Callable[[bool], None]
    loop_begins: Callable[[], None]
    loop_ends: Callable[[], None]
    call_ends: Callable[[], None]
    swapped: Callable[[], None]


class Watch:
    """Takes the place of a method of one pipeline.

    Args:
        pipe: the pipeline.
        name: of the method.
        before: called before it.
        after: given what the method returns; returns what is returned instead.
    """

    def __init__(
        self,
        pipe: Any,
        name: str,
        before: Callable[[], None] = lambda: None,
        after: Callable[[Any], Any] = lambda found: found,
    ) -> None:
        self._pipe, self.name, self._before, self._after = pipe, name, before, after

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Do what the method does, between the two calls."""
        self._before()
        return self._after(_plain(self._pipe, self.name)(*args, **kwargs))

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """A copy of the pipeline, which has no method on it, gets its own."""
        return _plain(memo.get(id(self._pipe), self._pipe), self.name)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, str]]:
        """So does a pickled one."""
        return _plain, (self._pipe, self.name)


def _plain(pipe: Any, name: str) -> Any:
    """The pipeline's own method; some are static."""
    return inspect.getattr_static(type(pipe), name).__get__(pipe, type(pipe))


class _StandIn:
    """Takes the place of an object, whose attributes are read and set through it.

    Args:
        watched: the object.
    """

    def __init__(self, watched: Any, **own: Any) -> None:
        vars(self).update(watched=watched, **own)

    def __getattr__(self, name: str) -> Any:
        if name == "watched":
            raise AttributeError(name)
        return getattr(self.watched, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.watched, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self.watched, name)

    def __repr__(self) -> str:
        return repr(self.watched)


class Bars:
    """The progress bars of a pipeline's call that are open: the outermost one is that of its loop.

    Args:
        told: `loop_ends` is called where that one is closed.
    """

    def __init__(self, told: Told) -> None:
        self._told, self._open = told, list[object]()

    def call_begins(self) -> None:
        """A call of the pipeline begins: what is open was left open by an earlier one."""
        self._open.clear()
        self._told.call_begins(False)

    def opened(self, bar: Any) -> Any:
        """A progress bar was made; what takes its place."""
        if not hasattr(bar, "close"):
            return bar
        own = object()
        self._open.append(own)
        return WatchedBar(bar, lambda: self._closed(own))

    def _closed(self, own: object) -> None:
        if own in self._open[1:]:
            self._open.remove(own)
        elif own in self._open:
            self._open.clear()
            self._told.loop_ends()


class WatchedBar(_StandIn):
    """Takes the place of a loop's progress bar.

    Args:
        bar: the progress bar.
        ended: called when it has been closed, or all that it counts has been taken.
    """

    def __init__(self, bar: Any, ended: Callable[[], None]) -> None:
        super().__init__(bar, _ended=ended)

    def __enter__(self) -> Any:
        return self.watched.__enter__()

    def __exit__(self, *error: Any) -> Any:
        try:
            return self.watched.__exit__(*error)
        finally:
            self._ended()

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self.watched
        finally:
            self._ended()

    def __len__(self) -> int:
        return len(self.watched)

    def close(self) -> None:
        """Close the bar."""
        self.watched.close()
        self._ended()


class WatchedBlocks(_StandIn):
    """Takes the place of the blocks of one modular pipeline, whose loops other pipelines may share.

    Args:
        blocks: the blocks.
        told: `call_begins` and `loop_begins` are called before they run, `call_ends` when they have run, also after an
            error.
    """

    def __init__(self, blocks: Any, told: Told) -> None:
        super().__init__(blocks, told=told)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the blocks, between the calls."""
        self.told.call_begins(True)
        self.told.loop_begins()
        try:
            return self.watched(*args, **kwargs)
        finally:
            self.told.call_ends()

    @property
    def __class__(self) -> type:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The blocks' own, by which diffusers names them."""
        return type(self.watched)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """A copy has no method on it."""
        return copy.deepcopy(self.watched, memo)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Nor has what was pickled."""
        return self.watched.__reduce_ex__(protocol)


def watch(pipe: Any, told: Told) -> None:
    """Notice where a pipeline works, as far as it tells.

    Args:
        pipe: the pipeline.
        told: what is called when.
    """
    bars = Bars(told)
    for watched in (
        Watch(pipe, CALL, bars.call_begins),
        Watch(pipe, LOOP, told.loop_begins, bars.opened),
        Watch(pipe, PARTS, after=lambda found: told.swapped()),
    ):
        _put(pipe, watched)
    blocks = vars(pipe).get(BLOCKS)
    if blocks is not None:
        vars(pipe)[BLOCKS] = WatchedBlocks(blocks, told)


def _put(pipe: Any, watched: Watch) -> None:
    name = watched.name
    usual, own = getattr(type(pipe), name, None), vars(pipe).get(name)
    if usual is not None and (own is None or getattr(own, "__func__", None) is usual):
        vars(pipe)[name] = watched


def unwatch(pipe: Any) -> None:
    """Undo `watch`."""
    own = getattr(pipe, "__dict__", {})
    for name in (CALL, LOOP, PARTS):
        if isinstance(own.get(name), Watch):
            del own[name]
    if type(own.get(BLOCKS)) is WatchedBlocks:
        own[BLOCKS] = own[BLOCKS].watched
