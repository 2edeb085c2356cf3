"""SeaCache: how far the modulated input moved, seen through what the noise level leaves of each frequency."""

import torch
from torch import Tensor

from baselines.teacache import relative_l1
from spectrum.method import Seen
from spectrum.signals import check_grid

TINY = 1e-16


def change(seen: Seen) -> float:
    """`relative_l1` of the filtered signals of this step and of the one before, each at its own noise level."""
    now, before = seen.levels
    return relative_l1(filtered(seen.signal, now, seen.grid), filtered(seen.previous, before, seen.grid))


def filtered(signal: Tensor, level: tuple[float, float], grid: tuple[int, ...] | None) -> Tensor:
    """A signal (batch, tokens, width) with each frequency of the token grid scaled by `gains`."""
    grid = check_grid(signal.shape[1], grid, "method=seacache")
    axes = tuple(range(1, len(grid) + 1))
    field = torch.fft.fftn(signal.float().reshape(len(signal), *grid, -1), dim=axes)
    shaped = gains(grid, level, signal.device)[..., None]
    return torch.fft.ifftn(field * shaped, dim=axes).real.reshape(signal.shape).to(signal.dtype)


def gains(grid: tuple[int, ...], level: tuple[float, float], device: torch.device) -> Tensor:
    """The gain of each frequency over `grid`, of mean 1: the product over axes of `a S / (a^2 S + b^2)`.

    `a` and `b` are the scales of picture and noise, and `S = |f|^-p` with `p = 2` for pictures and 3 for videos.
    """
    a, b = (min(max(scale, 1e-6), 1.0) for scale in level)
    power = 2 if len(grid) == 2 else 3
    found = torch.ones(grid, device=device)
    for axis, side in enumerate(grid):
        spectrum = 1 / (torch.fft.fftfreq(side, device=device, dtype=torch.float64).abs() ** power + TINY)
        gain = a * spectrum / (a**2 * spectrum + b**2 + TINY)
        found = found * gain.reshape([side if i == axis else 1 for i in range(len(grid))])
    return (found / found.mean()).float()
