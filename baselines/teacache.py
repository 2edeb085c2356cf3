"""TeaCache (arXiv 2411.19108): how far the first block's modulated input moved, rescaled by a fitted polynomial."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from spectrum.method import Seen


def relative_l1(signal: Tensor, previous: Tensor) -> float:
    """`mean|m_s - m_{s-1}| / mean|m_{s-1}|` over all elements of the batch; reads one number off the device."""
    return ((signal - previous).abs().mean() / previous.abs().mean()).item()


def drift(seen: Seen, *, coefficients: Sequence[float]) -> float:
    """The polynomial of `relative_l1`, highest power first: an estimate of the output's relative change."""
    return float(np.polyval(list(coefficients), relative_l1(seen.signal, seen.previous)))
