"""Checkpoints of other people's networks: read without running their code, and loaded whole or not at all."""

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from spectrum.core.errors import refuse


def stored(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name: a state dict, or a dict that holds one as `state_dict`.

    Only tensors are unpickled, never code. Refuses a file that torch cannot read so, or that holds something else.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        refuse(f"{path} is no checkpoint that torch can read ({reason}): fetch it again")
    state = found.get("state_dict", found) if isinstance(found, dict) else None
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        refuse(f"{path} holds no state dict of tensors: fetch the published checkpoint")
    return state


def filled(net: nn.Module, state: Mapping[str, Tensor], path: Path, what: str) -> nn.Module:
    """`net` with the weights of `state`, in evaluation mode. Refuses keys missing, left over or of another shape."""
    belong = net.state_dict()
    for kind, keys in (("lacks", belong.keys() - state.keys()), ("has the unknown", state.keys() - belong.keys())):
        if keys:
            refuse(f"{path} is no checkpoint of {what}: it {kind} {min(keys)} ({len(keys)} such keys)")
    for key, value in state.items():
        if value.shape != belong[key].shape:
            here, there = tuple(value.shape), tuple(belong[key].shape)
            refuse(f"{path} is no checkpoint of {what}: {key} has the shape {here}, where {there} belongs")
    net.load_state_dict(dict(state))
    return net.eval()
