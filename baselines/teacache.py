"""TeaCache (arXiv 2411.19108): decides by how much its signal changed, rescaled by a polynomial fitted to the model."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from spectrum.core.method import DriftContext


def relative_l1(signal: Tensor, previous: Tensor) -> float:
    """`mean|m_s - m_{s-1}| / mean|m_{s-1}|` over all elements of the batch. Reads one number from the device.

    Args:
        signal: the signal at this step, any shape.
        previous: the signal at the step before, same shape.

    Example:
        >>> import torch
        >>> relative_l1(torch.tensor([3.0, 1.0]), torch.tensor([2.0, 2.0]))
        0.5
    """
    return ((signal - previous).abs().mean() / previous.abs().mean()).item()


def drift(context: DriftContext, *, coefficients: Sequence[float]) -> float:
    """The polynomial of `relative_l1`: an estimate of the relative change of the blocks' output.

    Args:
        context: what is known at this step.
        coefficients: of the polynomial, highest power first; fitted for each model by `scripts/calibrate.py`.
    """
    return float(np.polyval(list(coefficients), relative_l1(context.signal, context.previous)))
