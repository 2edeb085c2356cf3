"""Notices at the beginning of a pipeline's loop that its denoiser was swapped, so that nothing runs uncached."""

from collections.abc import Callable
from typing import Any

_BAR = "progress_bar"


class Watch:
    """Takes the place of one pipeline's `progress_bar`, which diffusers calls where the denoising loop begins.

    Args:
        pipe: the pipeline.
        check: raises an error if the pipeline runs without the method that was put on it.
    """

    def __init__(self, pipe: Any, check: Callable[[], None]) -> None:
        self._pipe, self._check = pipe, check

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Check, then do what `progress_bar` does."""
        self._check()
        return getattr(type(self._pipe), _BAR)(self._pipe, *args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """A copy of the pipeline, which has no method on it, gets its own progress bar."""
        return _plain(memo.get(id(self._pipe), self._pipe))

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any]]:
        """So does a pickled one."""
        return _plain, (self._pipe,)


def _plain(pipe: Any) -> Any:
    return getattr(type(pipe), _BAR).__get__(pipe)


def watch(pipe: Any, check: Callable[[], None]) -> None:
    """Let `check` be called at the beginning of each loop of a pipeline, if it tells where its loops begin."""
    usual = getattr(type(pipe), _BAR, None)
    own = vars(pipe).get(_BAR)
    if usual is not None and (own is None or getattr(own, "__func__", None) is usual):
        vars(pipe)[_BAR] = Watch(pipe, check)


def unwatch(pipe: Any) -> None:
    """Undo `watch`."""
    if isinstance(getattr(pipe, "__dict__", {}).get(_BAR), Watch):
        del vars(pipe)[_BAR]
