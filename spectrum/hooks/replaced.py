"""Puts a function in the place of one object's method for a while."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def replaced(owner: Any, name: str, around: Callable[..., Any]) -> Iterator[None]:
    """Let a function stand around a method of one object, until the `with` block ends.

    Afterwards the object is as it was, also where somebody else had put a function of their own on it.

    Args:
        owner: the object; its class is left alone.
        name: the method.
        around: called as `around(method, *args, **kwargs)` in the method's place.

    Example:
        >>> from types import SimpleNamespace
        >>> thing = SimpleNamespace(double=lambda x: 2 * x)
        >>> with replaced(thing, "double", lambda double, x: double(x) + 1):
        ...     thing.double(3)
        7
        >>> thing.double(3)
        6
    """
    original, own = getattr(owner, name), vars(owner).get(name)

    @functools.wraps(original)
    def method(*args: Any, **kwargs: Any) -> Any:
        return around(original, *args, **kwargs)

    setattr(owner, name, method)
    try:
        yield
    finally:
        delattr(owner, name)
        if own is not None:
            setattr(owner, name, own)
