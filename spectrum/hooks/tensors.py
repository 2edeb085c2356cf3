"""Where the tensors are in what denoisers and blocks are given and return."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def sample_of(output: Any) -> Tensor:
    """The sample in a denoiser's output: a tuple, or a diffusers output object. Z-Image's is a list of tensors."""
    return torch.stack(output[0]) if isinstance(output[0], list) else output[0]


def with_sample(output: Any, sample: Tensor) -> Any:
    """A denoiser's output like `output`, with another sample."""
    value = list(sample.unbind()) if isinstance(output[0], list) else sample
    if isinstance(output, tuple):
        return (value, *output[1:])
    return type(output)(**{**output, next(iter(output)): value})


def latents_of(inputs: Mapping[str, Any]) -> Tensor:
    """The latents among a denoiser's forward arguments: its first. Z-Image's come as a list of tensors."""
    found = next(value for name, value in inputs.items() if name != "self")
    return torch.stack(found) if isinstance(found, list) else found


def hidden_states_of(args: Any, kwargs: Any) -> Tensor:
    """The hidden states among a block's or an attention's arguments."""
    if "hidden_states" in kwargs:
        return kwargs["hidden_states"]
    return args[0] if args else next(iter(kwargs.values()))
