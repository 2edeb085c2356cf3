"""Which weighted sums of the features suffice for all forecasts that are still to come.

After `k` runs, every later forecast takes the features `F` of these runs with some row of weights: the first `k`
columns of `W`, a row for each skipped step to come. Those rows span few dimensions: Chebyshev polynomials of degree `M`
give `x (X^T X + l I)^-1 X^T F`, whose rows all lie in the span of the `M + 1` rows of `X^T`. With `B` an orthonormal
basis of the span, the sums `B F` replace the features. That is `X^T H` of the ridge regression, for any weights that
are known before the run.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SMALL = 1e-9
"""The singular value, as a share of the largest, below which a direction is rounding."""

Basis = NDArray[np.float64]
"""(sums, runs so far): orthonormal rows."""


def bases(runs: int, weights: Sequence[Sequence[float]]) -> list[Basis]:
    """For each number of runs so far the basis of what later forecasts take of their features.

    Args:
        runs: how many there are in all.
        weights: the weights of each skipped step, one for each run before it, oldest first.

    Returns:
        `runs + 1` bases; the first one is of no run, and the last one has no rows unless a skipped step follows.

    Example:
        >>> reuse = [[1.0], [1.0], [0.0, 1.0]]
        >>> [basis.shape for basis in bases(3, reuse)]
        [(0, 0), (1, 1), (1, 2), (0, 3)]
    """
    found = []
    for count in range(runs + 1):
        rows = [row[:count] for row in weights if len(row) >= count > 0]
        if not rows:
            found.append(np.zeros((0, count)))
            continue
        _, values, directions = np.linalg.svd(np.asarray(rows, dtype=np.float64), full_matrices=False)
        found.append(directions[values > SMALL * max(values[0], 1e-30)])
    return found


def tensors_needed(runs: int, weights: Sequence[Sequence[float]]) -> int:
    """How many sums are held at once, at most; see `bases`.

    Example:
        >>> tensors_needed(3, [[1.0], [1.0], [0.0, 1.0]])
        1
    """
    return max((len(basis) for basis in bases(runs, weights)), default=0)
