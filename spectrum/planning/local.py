"""Weights that are fitted to each skipped velocity by itself, on the uncached runs alone, as L2P learns its own."""

from collections.abc import Callable, Sequence

import numpy as np

from spectrum.planning.least_squares import Array
from spectrum.planning.scores import velocity_products

LOCAL = "local"
"""How a plan says that its weights are those."""
RIDGE = 1e-4


def local_weights(gram: Array, moves: Array) -> Callable[[Sequence[float], float, tuple[float, float]], Array]:
    """A forecast with the least local error: `min_w sum ||v_s - sum_k w_k v_k||^2 + ridge ||w - reuse||^2`.

    L2P learns a triangular matrix of such weights by gradient steps from the identity; its forecasts are among the
    inputs of later ones, which amounts to weights of the run steps. No error of an earlier gap is seen by a later one.

    Args:
        gram: (samples, steps + 1, steps + 1) inner products of the uncached latents.
        moves: (steps,) by how much the sigma changes at each step.

    Returns:
        The forecast, on the step clock, see `spectrum.core.forecast`.
    """
    velocities = velocity_products(gram, moves).sum(0)

    def weights(times: Sequence[float], target: float, span: tuple[float, float]) -> Array:
        past, step = [int(time) for time in times], min(int(target), len(moves) - 1)
        matrix = velocities[np.ix_(past, past)]
        reuse, penalty = np.eye(len(past))[-1], RIDGE * np.trace(matrix) / len(past)
        right = velocities[past, step] + penalty * reuse
        return np.linalg.lstsq(matrix + penalty * np.eye(len(past)), right)[0]

    return weights
