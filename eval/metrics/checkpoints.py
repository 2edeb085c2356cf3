"""Reads published checkpoints without running code from them, and loads them whole or not at all."""

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from spectrum.core.errors import refuse

UNREADABLE = (RuntimeError, ValueError, KeyError, AttributeError, EOFError, StopIteration, pickle.UnpicklingError)
"""What torch and open_clip raise for a file that is no checkpoint, or one of another network."""


def short_reason(error: Exception) -> str:
    """The first sentence of an error's message, or the error's type if it has none.

    Args:
        error: what torch raised. The rest of its message is advice for programmers, such as to unpickle code.

    Example:
        >>> short_reason(RuntimeError("Weights only load failed. In PyTorch 2.6, we changed the default"))
        'Weights only load failed'
    """
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0].partition(". ")[0].rstrip(".:")


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint that `torch.save` wrote.

    Only tensors are unpickled, never code.

    Args:
        path: the file. It holds a state dict, or a dict with a state dict under the key `state_dict`.

    Returns:
        The tensors by name, on the CPU.

    Raises:
        SpectrumError: if torch cannot read the file, or it holds anything but named tensors.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        refuse(f"{path} is no checkpoint that torch can read ({short_reason(error)}): fetch it again")
    state = found.get("state_dict", found) if isinstance(found, dict) else None
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        refuse(f"{path} holds no state dict of tensors: fetch the published checkpoint")
    return state


def load_weights(net: nn.Module, state: Mapping[str, Tensor], path: Path, name: str) -> nn.Module:
    """Load weights into a network and put it in evaluation mode.

    Args:
        net: the network, changed in place.
        state: the tensors by the network's own names.
        path: the file that they come from, for messages.
        name: what the network is called, for messages.

    Returns:
        `net`.

    Raises:
        SpectrumError: if a name is missing or unknown, or a tensor has another shape. `net` is unchanged then.
    """
    own = net.state_dict()
    for fault, keys in (("lacks", own.keys() - state.keys()), ("has the unknown", state.keys() - own.keys())):
        if keys:
            refuse(f"{path} is no checkpoint of {name}: it {fault} {min(keys)} ({len(keys)} such keys)")
    for key, value in state.items():
        if value.shape != own[key].shape:
            found, expected = tuple(value.shape), tuple(own[key].shape)
            refuse(f"{path} is no checkpoint of {name}: {key} has the shape {found} instead of {expected}")
    net.load_state_dict(dict(state))
    return net.eval()
