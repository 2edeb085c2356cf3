"""A fingerprint of a denoiser's weights, the same whether they come from a folder, the hub or a single file."""

import hashlib
from typing import Any

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16)
READ = 16
"""How many values of each parameter are read."""


def fingerprint(model: Any) -> str | None:
    """The SHA-256 over the name, shape and first values of every parameter.

    Values are rounded to bfloat16 first, so weights in float32 and in bfloat16 have the same fingerprint. LoRA layers
    that lie beside the weights are left out. Weights of another dtype are rounded otherwise, so they have none.

    Args:
        model: a denoiser.

    Returns:
        64 hex digits; None where weights are offloaded to the meta device, quantised, or in float16 or float8.

    Example:
        >>> fingerprint(torch.nn.Linear(2, 2, device="meta")) is None
        True
    """
    named = {name.replace(".base_layer", ""): value for name, value in model.named_parameters() if "lora_" not in name}
    if any(value.is_meta or value.dtype not in DTYPES or type(value.data) is not Tensor for value in named.values()):
        return None
    total = hashlib.sha256()
    for name, value in sorted(named.items()):
        first = value.detach().flatten()[:READ].float().to("cpu", torch.bfloat16)
        total.update(f"{name}{tuple(value.shape)}".encode() + first.view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
