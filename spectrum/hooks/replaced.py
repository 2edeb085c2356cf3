"""Puts a function in the place of one object's method, for a while or for good."""

import contextlib
import copy
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any


class Around:
    """A function around a method of one object, to be set on the object under the method's name.

    A pipeline may copy the object: LTX-2 steps its sound with a copy of its scheduler. What is called on the copy must
    not reach the object.

    Args:
        owner: the object.
        name: the method.
        around: called as `around(method, *args, **kwargs)` in the method's place.
        copied: whether the function is there for good. Then `inspect.signature` shows the function's own arguments, and
            a deep copy of the object has the function around its own method. Else the signature is the method's, and a
            deep copy has the method alone.
    """

    def __init__(self, owner: Any, name: str, around: Callable[..., Any], copied: bool = False) -> None:
        self._owner, self._name, self._around, self._copied = owner, name, around, copied
        self._method, self.own = getattr(owner, name), vars(owner).get(name)
        functools.update_wrapper(self, self._method, updated=())
        if copied:
            said = inspect.signature(around)
            self.__signature__ = said.replace(parameters=list(said.parameters.values())[1:])

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function, which may call the method."""
        return self._around(self._method, *args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """What stands on a deep copy of the object."""
        other = memo.get(id(self._owner), self._owner)
        if self._copied:
            return Around(other, self._name, self._around, copied=True)
        return getattr(other, self._name) if self.own is None else copy.deepcopy(self.own, memo)


@contextlib.contextmanager
def replaced(owner: Any, name: str, around: Callable[..., Any]) -> Iterator[None]:
    """Let a function stand around a method of one object, until the `with` block ends.

    Afterwards the object is as it was, also where somebody else had put a function of their own on it. A deep copy that
    is made meanwhile has the method alone.

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
    function = Around(owner, name, around)
    setattr(owner, name, function)
    try:
        yield
    finally:
        delattr(owner, name)
        if function.own is not None:
            setattr(owner, name, function.own)
