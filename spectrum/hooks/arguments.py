"""What a denoiser is called with, by the names of its forward's arguments."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn


class NamedArguments:
    """Names the arguments of a denoiser's calls. The order of those by keyword is worked out once.

    Args:
        model: the denoiser, uncompiled.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._signature = inspect.signature(type(model).forward)
        self._orders: dict[tuple[str, ...], tuple[str, ...]] = {}

    def __call__(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a call by name, and the denoiser as `self`.

        Args:
            args: those by position.
            kwargs: those by keyword.

        Returns:
            Them in the order of the forward's signature, without those that are left out.

        Raises:
            TypeError: if the forward does not take them.
        """
        order = () if args else self._orders.get(tuple(kwargs), ())
        if order:
            return {"self": self._model, **{name: kwargs[name] for name in order}}
        found = self._signature.bind(self._model, *args, **kwargs).arguments
        if not args and found.keys() == {"self", *kwargs}:
            self._orders[tuple(kwargs)] = tuple(name for name in found if name != "self")
        return found
