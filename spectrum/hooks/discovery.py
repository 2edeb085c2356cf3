"""Finds the stacks, attentions and MLPs of a denoiser by diffusers' own lists of names and classes."""

import re
from typing import Any

from torch import Tensor, nn

from spectrum.core.errors import refuse
from spectrum.hooks.private_api import (
    attention_classes,
    block_output_index,
    feedforward_classes,
    stack_names,
    submodules,
)

_PART = re.compile(r"(self_|cross_)?(attn|attention)\d*|(img_|txt_)?(mlp|ff|ffn|feed_forward)(_context)?")


def block_stacks(model: nn.Module) -> tuple[str, ...]:
    """The names of a denoiser's block lists, in the order they run, by the names that diffusers' own hooks know.

    Raises:
        SpectrumError: if there is none.
    """
    names = tuple(n for n, m in model.named_children() if n in stack_names and isinstance(m, nn.ModuleList))
    return names or refuse(f"{type(model).__name__} has no list of blocks that diffusers knows: name its stacks")


def site_modules(model: nn.Module, stacks: tuple[str, ...]) -> tuple[dict[str, nn.Module], dict[str, nn.Module]]:
    """The attentions and MLPs inside the blocks, by name.

    A block that projects attention and MLP together (`proj_mlp` and `proj_out` beside `attn`, as FLUX's single-stream
    blocks do) is stored at that projection.

    Returns:
        (modules whose output is stored, modules that only feed one of those).
    """
    stored: dict[str, nn.Module] = {}
    feeding: dict[str, nn.Module] = {}
    for name, part in model.named_modules():
        if not name.startswith(stacks) or any(f"{name}.".startswith(f"{other}.") for other in (*stored, *feeding)):
            continue
        if {"proj_mlp", "proj_out"} <= submodules(part).keys():
            stored[f"{name}.proj_out"] = part.get_submodule("proj_out")
            feeding |= {f"{name}.{child}": part.get_submodule(child) for child in ("attn", "proj_mlp")}
        elif isinstance(part, (*attention_classes, *feedforward_classes)) or _PART.fullmatch(name.rpartition(".")[2]):
            stored[name] = part
    return stored, feeding


def first_block_parts(model: nn.Module, stacks: tuple[str, ...]) -> list[nn.Module]:
    """The attentions and MLPs of the first block of the first stack."""
    stored, feeding = site_modules(model, stacks)
    return [part for name, part in (stored | feeding).items() if name.startswith(f"{stacks[0]}.0.")]


def hidden_output(block: nn.Module, output: Any, like: Tensor) -> Tensor:
    """The hidden states among what a block returns.

    Args:
        block: the block.
        output: what its forward returned.
        like: the hidden states that went in; where diffusers does not know the block, the only output of this shape is
            taken.

    Raises:
        SpectrumError: if it cannot be told.
    """
    if isinstance(output, Tensor):
        return output
    index = block_output_index(type(block))
    if index is not None and output[index].shape == like.shape:
        return output[index]
    found = [part for part in output if isinstance(part, Tensor) and part.shape == like.shape]
    if len(found) != 1:
        refuse(
            f"it cannot be told which output of {type(block).__name__} are the hidden states: leave "
            "method.front_blocks=0"
        )
    return found[0]
