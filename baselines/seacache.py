"""SeaCache: decides by how far the modulated input moved, after a filter for what the noise level leaves visible."""

import torch
from torch import Tensor

from baselines.teacache import relative_l1
from spectrum.core.grid import check_grid
from spectrum.core.method import DriftContext

TINY = 1e-16


def change(context: DriftContext) -> float:
    """`relative_l1` of the filtered signals of this step and of the step before, each at its own noise level.

    Args:
        context: what is known at this step; its signal is the modulated input (batch, tokens, width).
    """
    now, before = context.levels
    return relative_l1(filtered(context.signal, now, context.grid), filtered(context.previous, before, context.grid))


def filtered(signal: Tensor, level: tuple[float, float], grid: tuple[int, ...] | None) -> Tensor:
    """A signal with each frequency of the token grid scaled by `gains`.

    Args:
        signal: (batch, tokens, width), any floating dtype.
        level: (scale of the picture, scale of the noise) in the latents.
        grid: layout of the tokens.

    Returns:
        The filtered signal, in the same shape and dtype.

    Raises:
        SpectrumError: if the layout of the tokens is not known.
    """
    grid = check_grid(signal.shape[1], grid, "method=seacache")
    axes = tuple(range(1, len(grid) + 1))
    field = torch.fft.fftn(signal.float().reshape(len(signal), *grid, -1), dim=axes)
    shaped = gains(grid, level, signal.device)[..., None]
    return torch.fft.ifftn(field * shaped, dim=axes).real.reshape(signal.shape).to(signal.dtype)


def gains(grid: tuple[int, ...], level: tuple[float, float], device: torch.device) -> Tensor:
    """The gain of each frequency, with mean 1: the product over axes of `a S / (a^2 S + b^2)`.

    `a` and `b` are the scales of picture and noise, and `S = |f|^-p` with `p = 2` for pictures and 3 for videos.

    Args:
        grid: layout of the tokens.
        level: (a, b), each clamped to [1e-6, 1].
        device: where the result lies.

    Returns:
        float32 tensor of the shape `grid`, in the order of `torch.fft.fftfreq`.
    """
    a, b = (min(max(scale, 1e-6), 1.0) for scale in level)
    power = 2 if len(grid) == 2 else 3
    found = torch.ones(grid, device=device)
    for axis, side in enumerate(grid):
        spectrum = 1 / (torch.fft.fftfreq(side, device=device, dtype=torch.float64).abs() ** power + TINY)
        gain = a * spectrum / (a**2 * spectrum + b**2 + TINY)
        found = found * gain.reshape([side if i == axis else 1 for i in range(len(grid))])
    return (found / found.mean()).float()
