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
        output, cpu = output.detach(), output.device.type == "cpu"
        if cpu and math.isfinite(output.sum().float().numpy()):
            return
        self._pending.append((step, ran, _all_finite(output)))
        if not last and not cpu:
            return
        pending, self._pending = self._pending, []
        fine = torch.stack([flag for _, _, flag in pending]).cpu().numpy()
        for (at, computed, _), all_finite in zip(pending, fine, strict=True):
            if not all_finite:
                who = "the denoiser gave" if computed else "with the forecast feature the denoiser gave"
                refuse(
                    f"{who} NaN or infinite values at step {at}: type another dtype, for example model.dtype=bfloat16 "
                    "or float32, and look at the inputs and weights"
                )


def _all_finite(output: Tensor) -> Tensor:
    """Whether all values are finite. Their sum is one pass over them, and in float64 it does not overflow."""
    if output.device.type in ("cpu", "cuda"):
        return output.sum(dtype=torch.float64).isfinite()
    return output.isfinite().all()
