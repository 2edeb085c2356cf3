"""Notices where a pipeline's call begins, and each of its loops, at which a denoiser may have been swapped."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

CALL, LOOP = "check_inputs", "progress_bar"
"""What diffusers calls once where a pipeline's call begins, and where each of its denoising loops begins."""


class Watch:
    """Takes the place of a method of one pipeline.

    Args:
        pipe: the pipeline.
        name: of the method.
        told: called before the method is. It may raise an error.
    """

    def __init__(self, pipe: Any, name: str, told: Callable[[], None]) -> None:
        self._pipe, self._name, self._told = pipe, name, told

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Tell, then do what the method does."""
        self._told()
        return _plain(self._pipe, self._name)(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """A copy of the pipeline, which has no method on it, gets its own."""
        return _plain(memo.get(id(self._pipe), self._pipe), self._name)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, str]]:
        """So does a pickled one."""
        return _plain, (self._pipe, self._name)


def _plain(pipe: Any, name: str) -> Any:
    """The pipeline's own method; some are static."""
    return inspect.getattr_static(type(pipe), name).__get__(pipe, type(pipe))


def watch(pipe: Any, told: Mapping[str, Callable[[], None]]) -> None:
    """Let functions be called at the beginning of a pipeline's call and of its loops, as far as it tells.

    Args:
        pipe: the pipeline.
        told: the functions, under `CALL` and `LOOP`.
    """
    for name, function in told.items():
        usual, own = getattr(type(pipe), name, None), vars(pipe).get(name)
        if usual is not None and (own is None or getattr(own, "__func__", None) is usual):
            vars(pipe)[name] = Watch(pipe, name, function)


def unwatch(pipe: Any) -> None:
    """Undo `watch`."""
    for name in (CALL, LOOP):
        if isinstance(getattr(pipe, "__dict__", {}).get(name), Watch):
            del vars(pipe)[name]
