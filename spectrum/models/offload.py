"""Keeps the weights of a pipeline on the CPU while they are not needed: the whole of a network, or of its blocks."""

from typing import Any

import torch
from torch import nn

from spectrum.config.schema import OFFLOADS, RunConfig
from spectrum.core.errors import refuse
from spectrum.hooks.private_api import offloads_in_groups
from spectrum.models.attached import is_denoiser
from spectrum.models.need import Part

NONE, MODEL, GROUP = OFFLOADS
_LAYERS = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    *(nn.Linear, nn.Embedding),
)
"""The layers that diffusers offloads one by one."""


def check_offload(offload: str, device: torch.device) -> None:
    """Refuse to offload where there is nothing to offload from.

    Raises:
        SpectrumError: if the device is a CPU.
    """
    if offload != NONE and device.type == "cpu":
        refuse(
            f"offload={offload} moves weights between the CPU and an accelerator, and this run is on the CPU: type "
            "offload=none, or device=cuda where there is a GPU"
        )


def check_whole(config: RunConfig) -> None:
    """Refuse `offload=` to a command that works inside of a model that lies on the device whole.

    Raises:
        SpectrumError: with the command that takes it.
    """
    if config.offload != NONE:
        refuse(f"offload={config.offload} is for run.py, and this command needs the whole model there: leave it out")


def placed(pipe: Any, device: torch.device, offload: str = NONE) -> Any:
    """Put a pipeline on a device, whole or as far as it is at work.

    Args:
        pipe: the pipeline; with `offload` its weights are on the CPU.
        device: where it computes.
        offload: `none`; `model` brings one network at a time there; `group` brings one block of the denoiser at a time,
            and one layer of the others. On CUDA the next is brought while one is at work.

    Returns:
        The pipeline.
    """
    if offload == MODEL:
        pipe.enable_model_cpu_offload(device=device)
    if offload != GROUP:
        return pipe if offload == MODEL else pipe.to(device)
    from diffusers.hooks import apply_group_offloading

    stream = device.type == "cuda"
    for part in networks(pipe).values():
        if not offloads_in_groups(part):
            part.to(device)
            continue
        blocks = is_denoiser(part)
        apply_group_offloading(
            part,
            onload_device=device,
            offload_device=torch.device("cpu"),
            offload_type="block_level" if blocks else "leaf_level",
            num_blocks_per_group=1 if blocks else None,
            use_stream=stream,
            record_stream=stream,
        )
    return pipe


def networks(pipe: Any) -> dict[str, nn.Module]:
    """The networks of a pipeline by name."""
    return {name: part for name, part in pipe.components.items() if isinstance(part, nn.Module)}


def part_of(module: nn.Module) -> Part:
    """What a network takes of memory, whole and in the groups of `placed`."""
    whole = _bytes(module)
    if not offloads_in_groups(module):
        return Part(whole, whole, 0, is_denoiser(module))
    if is_denoiser(module):
        stacks = [part for part in module.children() if isinstance(part, (nn.ModuleList, nn.Sequential))]
        groups = [_bytes(block) for stack in stacks for block in stack.children()]
        return Part(whole, whole - sum(groups), max(groups, default=0), True)
    leaves = [_bytes(part) for part in module.modules() if isinstance(part, _LAYERS)]
    return Part(whole, max(0, whole - sum(leaves)), max(leaves, default=0), False)


def _bytes(module: nn.Module) -> int:
    found = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    return sum(tensor.numel() * tensor.element_size() for tensor in found.values())
