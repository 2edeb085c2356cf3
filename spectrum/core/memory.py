"""How many stored features a forecast needs, and the bytes that each takes."""

import math
from collections.abc import Sequence

import numpy as np

from spectrum.core.choices import Keep
from spectrum.core.forecast import Forecast


def features_used(forecast: Forecast, most: int = 16) -> int | None:
    """How many of the newest features a forecast can use, so that older ones need not be stored.

    It asks for the weights of `most` unevenly spaced features. A feature whose weight is zero for every target there,
    and every older one, is not needed, if the other weights stay the same without them.

    Args:
        forecast: a forecaster with its parameters bound.
        most: how many features to try.

    Returns:
        The number of newest features; None if it uses all of them, however many.

    Example:
        >>> from spectrum.core.forecast import chebyshev, newton
        >>> features_used(newton), features_used(chebyshev)
        (2, None)
    """
    times = [float(n + (n * n) % 5 / 7) for n in range(most)]
    used = np.zeros(most, dtype=bool)
    for target in (most + 0.3, most + 4.1):
        used |= np.asarray(forecast(times, target, (0.0, 2.0 * most))) != 0
    depth = most - int(np.argmax(used)) if used.any() else 1
    if depth == most:
        return None
    for target in (most + 0.3, most + 4.1):
        full, few = (np.asarray(forecast(past, target, (0.0, 2.0 * most))) for past in (times, times[-depth:]))
        if len(few) != depth or not np.allclose(full[-depth:], few, rtol=1e-9, atol=1e-12):
            return None
    return depth


def packed_bytes(keep: Keep, shape: Sequence[int], own: int) -> int:
    """Bytes of one sample's feature as it is kept.

    Args:
        keep: what is kept.
        shape: the feature's, the channels last.
        own: bytes of one of its elements as it comes.

    Example:
        >>> packed_bytes(Keep.float8, (4096, 3072), 2), packed_bytes(Keep.sums, (2, 3), 2)
        (12595200, 24)
    """
    each = {Keep.bfloat16: 2, Keep.float8: 1, Keep.sums: max(4, own)}.get(keep, own)
    return math.prod(shape) * each + (4 * shape[-1] if keep is Keep.float8 else 0)
