"""Notices where a pipeline begins and ends its work, so that nothing runs uncached and nothing stays in memory."""

import copy
from collections.abc import Callable
from typing import Any

from spectrum.hooks.private_api import BLOCKS

_BAR, _PARTS = "progress_bar", "register_components"


class Watch:
    """Takes the place of a method of one pipeline: of `progress_bar`, which diffusers calls where a loop begins.

    Args:
        pipe: the pipeline.
        name: of the method.
        before: called before it; raises an error if the pipeline runs without the method that was put on it.
        after: called after it.
    """

    def __init__(self, pipe: Any, name: str, before: Callable[[], None], after: Callable[[], None]) -> None:
        self._pipe, self._name, self._before, self._after = pipe, name, before, after

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Do what the method does, between the two calls."""
        self._before()
        found = getattr(type(self._pipe), self._name)(self._pipe, *args, **kwargs)
        self._after()
        return found

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """A copy of the pipeline, which has no method on it, gets the method of its class."""
        return _plain(memo.get(id(self._pipe), self._pipe), self._name)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, str]]:
        """So does a pickled one."""
        return _plain, (self._pipe, self._name)


def _plain(pipe: Any, name: str) -> Any:
    return getattr(type(pipe), name).__get__(pipe)


class WatchedBlocks:
    """Takes the place of the blocks of one modular pipeline, whose loops other pipelines may share.

    Args:
        blocks: the blocks.
        begins: called before they run.
        ends: called when they have run, also after an error.
    """

    def __init__(self, blocks: Any, begins: Callable[[], None], ends: Callable[[], None]) -> None:
        vars(self).update(watched=blocks, begins=begins, ends=ends)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the blocks, between the two calls."""
        self.begins()
        try:
            return self.watched(*args, **kwargs)
        finally:
            self.ends()

    def __getattr__(self, name: str) -> Any:
        if name == "watched":
            raise AttributeError(name)
        return getattr(self.watched, name)

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


def watch(pipe: Any, begins: Callable[[], None], ends: Callable[[], None], swapped: Callable[[], None]) -> None:
    """Notice where a pipeline works, as far as it tells.

    Args:
        pipe: the pipeline.
        begins: called where a loop begins, or a call of a modular pipeline.
        ends: called where a call of a modular pipeline ends; diffusers itself ends what belongs to that of another.
        swapped: called when parts of a modular pipeline were replaced.
    """
    _put(pipe, _BAR, begins, _nothing)
    _put(pipe, _PARTS, _nothing, swapped)
    blocks = vars(pipe).get(BLOCKS)
    if blocks is not None:
        vars(pipe)[BLOCKS] = WatchedBlocks(blocks, begins, ends)


def _nothing() -> None:
    """What is called where nothing is to be done."""


def _put(pipe: Any, name: str, before: Callable[[], None], after: Callable[[], None]) -> None:
    usual = getattr(type(pipe), name, None)
    own = vars(pipe).get(name)
    if usual is not None and (own is None or getattr(own, "__func__", None) is usual):
        vars(pipe)[name] = Watch(pipe, name, before, after)


def unwatch(pipe: Any) -> None:
    """Undo `watch`."""
    own = getattr(pipe, "__dict__", {})
    for name in (_BAR, _PARTS):
        if isinstance(own.get(name), Watch):
            del own[name]
    if type(own.get(BLOCKS)) is WatchedBlocks:
        own[BLOCKS] = own[BLOCKS].watched
