"""MeanCache: a skipped step takes the mean velocity over the sampler's newest steps, carried on along its slope."""

from collections.abc import Sequence

import numpy as np

from spectrum.core.errors import check_number, refuse
from spectrum.core.forecast import Weights


def meancache(
    times: Sequence[float],
    target: float,
    span: tuple[float, float],
    *,
    readings: Sequence[float] = (),
    orders: int | Sequence[int] = 2,
) -> Weights:
    """`v_s = v_{s-1} - (t_{s+1} - t_s) (v_{s-K} - u) / (t_s - t_{s-K})` with `u` the mean velocity from s-K to s.

    `u = sum_j (t_{j+1} - t_j) v_j / (t_s - t_{s-K})` over the K steps before s. It counts the sampler's steps, so the
    `v_j` of skipped ones are forecasts themselves; here each is written as weights of the run steps. `K = 1` is reuse.
    The authors take `u` from the latents, which is the same under Euler.

    Args:
        times: see `spectrum.core.forecast`; on the clock along which the sampler moves, sigma for flow models.
        target: see there.
        span: see there; a sampler ends at its first number, on a clock that rises at its last.
        readings: (steps,) the clock's reading at each step of the run; the hook gives it.
        orders: K, for all gaps or for each gap between run steps in turn; further gaps have the last.

    Raises:
        SpectrumError: for a K below 1, times that are not among the readings, and readings that come twice.

    Example:
        >>> meancache([4, 3], 2, (0, 4), readings=[4, 3, 2, 1]).tolist()
        [-0.25, 1.25]
    """
    listed = [orders] if isinstance(orders, (int, float)) else list(orders)
    if not listed:
        refuse("method.forecast.orders is empty: type the K of every gap, for example method.forecast.orders=2")
    for order in listed:
        check_number("method.forecast.orders", order, low=1, integer=True)
    known = {float(reading): step for step, reading in enumerate(readings)}
    if not {float(time) for time in (*times, target)} <= set(known):
        refuse("meancache counts the sampler's steps: give it the clock's reading at each of them, readings=[...]")
    clock = [*readings, span[0] if readings[0] > readings[-1] else span[1]]
    if len(known) < len(readings) or not np.isfinite(clock).all():
        refuse(
            "meancache divides by how far the clock goes in a step: a sampler that stays at a noise level, such as "
            "Heun's, or begins at an infinite one cannot have it"
        )
    runs = {known[float(time)]: row for row, time in enumerate(times)}
    first = min(runs)
    found: dict[int, Weights] = {}
    gap = -1
    for step in range(first, known[float(target)] + 1):
        if step in runs:
            gap += 1
            found[step] = np.eye(len(times))[runs[step]]
            continue
        back = max(step - int(listed[min(gap, len(listed) - 1)]), first)
        past = range(back, step)
        whole = clock[step] - clock[back]
        mean = sum((clock[j + 1] - clock[j]) * found[j] for j in past) / whole
        found[step] = found[step - 1] - (clock[step + 1] - clock[step]) * (found[back] - mean) / whole
    return found[known[float(target)]]
