"""Notices where a pipeline's loops begin and end, so that nothing runs uncached and nothing stays in memory."""

from collections.abc import Callable, Iterator
from typing import Any

from spectrum.hooks.private_api import loops_of

_BAR, _PARTS = "progress_bar", "register_components"


class Watch:
    """Takes the place of a method of one pipeline, or of one block of a modular pipeline.

    Args:
        owner: the pipeline or block.
        name: of the method.
        before: called before the method.
        after: called with what the method returns.
    """

    def __init__(self, owner: Any, name: str, before: Callable[[], None], after: Callable[[Any], None]) -> None:
        self._owner, self._name, self._before, self._after = owner, name, before, after

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Do what the method does, with the calls before and after."""
        self._before()
        found = getattr(type(self._owner), self._name)(self._owner, *args, **kwargs)
        self._after(found)
        return found

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """A copy of the owner, which has no method on it, gets the method of its class."""
        return _plain(memo.get(id(self._owner), self._owner), self._name)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, str]]:
        """So does a pickled one."""
        return _plain, (self._owner, self._name)


def _plain(owner: Any, name: str) -> Any:
    return getattr(type(owner), name).__get__(owner)


def watch(pipe: Any, begins: Callable[[], None], ends: Callable[[], None], swapped: Callable[[], None]) -> None:
    """Notice the loops of a pipeline, if it tells where they are by a progress bar.

    Diffusers itself ends what belongs to a call of a pipeline, but not of a modular pipeline.

    Args:
        pipe: the pipeline.
        begins: called where a denoising loop begins.
        ends: called where a loop of a modular pipeline ends.
        swapped: called when parts of a modular pipeline were replaced.
    """
    loops = loops_of(pipe)
    for owner in (pipe, *loops):
        _put(owner, _BAR, begins, (lambda bar: _tell_end(bar, ends)) if loops else lambda bar: None)
    _put(pipe, _PARTS, lambda: None, lambda nothing: swapped())


def _put(owner: Any, name: str, before: Callable[[], None], after: Callable[[Any], None]) -> None:
    usual = getattr(type(owner), name, None)
    own = vars(owner).get(name)
    if usual is not None and (own is None or getattr(own, "__func__", None) is usual):
        vars(owner)[name] = Watch(owner, name, before, after)


def _tell_end(bar: Any, ends: Callable[[], None]) -> None:
    """Let a progress bar tell when it is closed for the first time."""
    close = bar.close

    def told() -> None:
        if vars(bar).pop("close", None) is not None:
            ends()
        close()

    bar.close = told


def unwatch(pipe: Any) -> None:
    """Undo `watch`."""
    for owner, name in _watched(pipe):
        del vars(owner)[name]


def _watched(pipe: Any) -> Iterator[tuple[Any, str]]:
    for owner in (pipe, *loops_of(pipe)):
        for name in (_BAR, _PARTS):
            if isinstance(getattr(owner, "__dict__", {}).get(name), Watch):
                yield owner, name
