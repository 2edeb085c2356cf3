"""A plan's schedule in the words of other projects."""

from collections.abc import Sequence
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from spectrum.core.schedule import growing_window, plan

WARMUPS, WINDOWS = range(1, 13), range(1, 9)
GROWTHS = tuple(float(growth) for growth in np.arange(0, 6.01, 0.25))


def computation_mask(run_steps: Sequence[int], steps: int) -> list[int]:
    """cache-dit's `steps_computation_mask`: 1 where the blocks run, 0 where they are skipped.

    Args:
        run_steps: the run steps.
        steps: number of denoising steps.

    Example:
        >>> computation_mask([0, 2], 4)
        [1, 0, 1, 0]
    """
    runs = set(run_steps)
    return [int(step in runs) for step in range(steps)]


def as_growing_window(run_steps: Sequence[int], steps: int) -> dict[str, Any] | None:
    """The settings of Spectrum's own schedule that run at the same steps; None where there are none.

    Args:
        run_steps: the run steps.
        steps: number of denoising steps.

    Returns:
        `warmup`, `window` and `growth`, see `spectrum.core.schedule.growing_window`.

    Example:
        >>> as_growing_window([0, 1, 2, 3, 4, 6, 8, 11, 15, 20, 25, 31, 38, 46], 50)
        {'warmup': 5, 'window': 2, 'growth': 0.75}
        >>> as_growing_window([0, 7, 9], 12)
    """
    leading = next((step for step, run in enumerate(run_steps) if step != run), len(run_steps))
    for warmup, window, growth in product(WARMUPS, WINDOWS, GROWTHS):
        if warmup <= leading or warmup == 1:
            own = {"warmup": warmup, "window": window, "growth": growth}
            if plan(partial(growing_window, **own), steps) == list(run_steps):
                return own
    return None
