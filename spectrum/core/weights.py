"""The weights of a skipped step, as a method's forecast gives them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spectrum.core.errors import SpectrumError, refuse

if TYPE_CHECKING:
    from spectrum.core.method import Method


def checked_weights(
    method: Method,
    times: Sequence[float],
    target: float,
    span: tuple[float, float],
    branch: str = "",
    readings: Sequence[float] = (),
    gram: NDArray[np.float64] | None = None,
) -> list[float]:
    """The weights that a method's forecast gives, checked: one finite number for each stored feature.

    Args:
        method: a method with a forecast.
        times: the clock's readings at the stored features, oldest first.
        target: the reading at the step to forecast.
        span: the clock's range.
        branch: the CFG branch that is forecast, for a method with weights for each.
        readings: the clock's reading at each step of the run, for a forecast that has a parameter of that name.
        gram: the inner products of the stored features, for a forecast that has a parameter of that name.

    Returns:
        The weights, oldest first.

    Raises:
        SpectrumError: if the forecast returns something else than an array of `len(times)` finite numbers.
    """
    assert method.forecast is not None
    what = f"the forecast of {method.name}"
    try:
        more: dict[str, Any] = {"branch": branch} if method.by_branch else {}
        more |= {"readings": readings} if method.whole_clock else {}
        more |= {"gram": gram} if method.weights_by_data else {}
        with np.errstate(divide="ignore", invalid="ignore"):
            found = method.forecast(times, target, span, **more)
    except SpectrumError:
        raise
    except Exception as error:
        raise SpectrumError(f"{what} failed at time {target}: {type(error).__name__}: {error}") from error
    try:
        weights = np.asarray(found, dtype=np.float64)
    except (TypeError, ValueError):
        return refuse(f"{what} must return one weight for each stored feature, got {found!r}")
    if weights.shape != (len(times),):
        refuse(f"{what} must return {len(times)} weights, one for each time it is given, got the shape {weights.shape}")
    if not np.isfinite(weights).all():
        equal = len(set(readings)) < len(readings)
        hint = (
            ": the clock reads the same at several steps of this scheduler, so type method.clock=step" if equal else ""
        )
        refuse(f"{what} returned NaN or infinite weights for times {list(times)} and target {target}{hint}")
    return weights.tolist()
