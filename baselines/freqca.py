"""FreqCa (arXiv 2510.08669): the low frequencies of the feature are reused, the high ones are forecast."""

import math

import torch
from torch import Tensor

from spectrum.core.errors import check_number
from spectrum.core.grid import check_grid


def low_band(forecast: Tensor, newest: Tensor, grid: tuple[int, ...] | None, *, cutoff: float = 0.1) -> Tensor:
    """A forecast with its low frequencies replaced by those of the newest feature.

    A bin of the orthonormal DCT-II over the grid is low if its distance to the origin is at most `cutoff` times that of
    the farthest bin. The authors have square grids only; this is the same for any. The split is linear, so splitting
    the difference of the two features is splitting both.

    Args:
        forecast: (batch, tokens, width), the tokens in rows of `grid`; or (batch, channels, height, width).
        newest: the newest stored feature, same shape.
        grid: layout of the tokens; not needed for spatial features.
        cutoff: the share of the frequency range that is low.

    Returns:
        The corrected forecast, in the shape and dtype of `forecast`.

    Raises:
        SpectrumError: if the layout of the tokens is not known.
    """
    check_number("method.correct.cutoff", cutoff, low=0)
    spatial = newest.ndim == 4
    sides = tuple(newest.shape[-2:]) if spatial else check_grid(newest.shape[1], grid, "method=freqca")
    gap = (newest.float() - forecast.float()).movedim(1, -1) if spatial else newest.float() - forecast.float()
    gap = gap.reshape(len(gap), *sides, -1)
    bases = [_dct(side, gap) for side in sides]
    for axis, basis in enumerate(bases, 1):
        gap = (basis @ gap.movedim(axis, -2)).movedim(-2, axis)
    gap = gap * _low(sides, cutoff, gap)[..., None]
    for axis, basis in enumerate(bases, 1):
        gap = (basis.T @ gap.movedim(axis, -2)).movedim(-2, axis)
    gap = gap.movedim(-1, 1) if spatial else gap.reshape(newest.shape)
    return (forecast.float() + gap).to(forecast.dtype)


def _dct(side: int, like: Tensor) -> Tensor:
    """The orthonormal DCT-II as a matrix, frequency by position."""
    position = torch.arange(side, device=like.device, dtype=torch.float64)
    basis = torch.cos(math.pi / side * (position + 0.5) * position[:, None]) * math.sqrt(2 / side)
    basis[0] /= math.sqrt(2)
    return basis.to(like.dtype)


def _low(sides: tuple[int, ...], cutoff: float, like: Tensor) -> Tensor:
    axes = torch.meshgrid(*(torch.arange(side, device=like.device) for side in sides), indexing="ij")
    squares = torch.stack([axis.double() ** 2 for axis in axes]).sum(0)
    return (squares <= cutoff**2 * sum((side - 1) ** 2 for side in sides) + 1e-9).to(like.dtype)
