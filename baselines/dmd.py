"""HiCache++'s forecast: dynamic mode decomposition, which continues sums of exponentials in time."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from spectrum.core.errors import check_number, refuse
from spectrum.core.forecast import Weights, hermite, reuse

FEWEST = 4
"""Features, evenly spaced in time, from which on modes are fitted: an oscillation takes two of their three pairs."""
SMALL = 1e-4
"""Directions of the features with a singular value below this part of the largest are left out."""


def dmd(
    times: Sequence[float],
    target: float,
    span: tuple[float, float],
    *,
    gram: NDArray[np.float64] | None = None,
    window: int = 5,
    order: int = 2,
    sigma: float = 0.5,
) -> Weights:
    """`F_{n+k} = A^k F_n` with the map `A` by which each feature becomes the next one, `k` in steps of their spacing.

    With `X = U S V^T` all features of the window but the last and `X'` all but the first, `A X = X'`, so
    `A^k F_n = X' V/S A~^k c` with `A~ = U^T X' V/S`, the part of `A` within the features, and `c` such that
    `X' V/S c = F_n`. All of it follows from inner products, so the forecast is a weighted sum of the features. The
    powers are taken by the eigenvalues of `A~`, which are the modes of dynamic mode decomposition.

    It needs four features that are evenly spaced, up to the newest; with fewer the forecast is HiCache's, `hermite`.
    Where the map has no such power, the newest feature is used again.

    Args:
        times: see `spectrum.core.forecast`.
        target: see there.
        span: see there.
        gram: (features, features) inner products of the stored features; the hook gives them.
        window: how many of the newest features are used at most.
        order: of `hermite`.
        sigma: of `hermite`.

    Raises:
        SpectrumError: for a window below 4, and without inner products where they are needed.

    Example:
        >>> ones = np.array([[1.0, 2, 4, 8]])
        >>> round(float(dmd([0, 1, 2, 3], 5, (0, 9), gram=ones.T @ ones) @ ones[0]), 6)
        32.0
    """
    check_number("method.forecast.window", window, low=FEWEST, integer=True)
    count = _even(times, int(window))
    if count < FEWEST:
        return hermite(times, target, span, order=order, sigma=sigma)
    if gram is None:
        refuse("dmd follows from the features themselves: give it their inner products, gram=...")
    found = reuse(times, target, span)
    ahead = (target - times[-1]) / (times[-1] - times[-2])
    try:
        with np.errstate(all="ignore"):
            newest = _continued(gram[-count:, -count:], ahead)
    except np.linalg.LinAlgError:
        return found
    if not np.isfinite(newest).all():
        return found
    found[:] = 0.0
    found[-len(newest) :] = newest
    return found


def _continued(gram: NDArray[np.float64], ahead: float) -> NDArray[np.float64]:
    """The weights of all features but the oldest for the newest one carried `ahead` spacings on; NaN if there is none.

    Raises:
        LinAlgError: where a decomposition does not converge, and where the modes are no basis.
    """
    values, vectors = np.linalg.eigh(gram[:-1, :-1])
    kept = values > SMALL**2 * max(values.max(), 0)
    if not kept.any():
        return np.array([np.nan])
    scaled = vectors[:, kept] / np.sqrt(values[kept])
    start = np.linalg.pinv(scaled.T @ gram[1:, 1:] @ scaled) @ (scaled.T @ gram[1:, -1])
    factors, modes = np.linalg.eig(scaled.T @ gram[:-1, 1:] @ scaled)
    return scaled @ (modes @ (factors.astype(complex) ** ahead * np.linalg.solve(modes, start))).real


def _even(times: Sequence[float], most: int) -> int:
    """How many of the newest times have the same distance from one to the next, `most` at the most."""
    count = min(2, len(times))
    while 2 <= count < min(most, len(times)):
        if not np.isclose(times[-count] - times[-count - 1], times[-1] - times[-2]):
            break
        count += 1
    return count
