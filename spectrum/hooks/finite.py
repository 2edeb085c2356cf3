"""Checks that what a denoiser returns is finite, without making the host wait for the device in the middle of a run."""

import math

import torch
from torch import Tensor

from spectrum.core.errors import refuse


class FiniteCheck:
    """Checks every output of one trajectory: on a CPU at its step, on an accelerator at the end of the run."""

    def __init__(self) -> None:
        self._pending: list[tuple[int, bool, Tensor]] = []

    def check(self, step: int, ran: bool, output: Tensor, last: bool) -> None:
        """Check the output of one step.

        Args:
            step: the step.
            ran: whether the blocks ran there.
            output: the denoiser's output.
            last: whether it is the last step; on an accelerator the pending checks are read then.

        Raises:
            SpectrumError: for NaN or infinite values, naming the first step that gave them.
        """
        cpu = output.device.type == "cpu"
        if cpu and math.isfinite(output.sum().item()):
            return
        self._pending.append((step, ran, _total(output)))
        if not last and not cpu:
            return
        pending, self._pending = self._pending, []
        totals = torch.stack([total for _, _, total in pending]).tolist()
        for (at, computed, _), total in zip(pending, totals, strict=True):
            if not math.isfinite(total):
                who = "the denoiser gave" if computed else "with the forecast feature the denoiser gave"
                refuse(
                    f"{who} NaN or infinite values at step {at}: type another dtype, for example model.dtype=bfloat16 "
                    "or float32, and look at the inputs and weights"
                )


def _total(output: Tensor) -> Tensor:
    """The sum of all values: one pass over them, and finite only if they are. In float64 it does not overflow."""
    return output.sum(dtype=torch.float32 if output.device.type == "mps" else torch.float64)
