"""The forecast of a plan: weights that were fitted for each gap between two run steps."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spectrum.core.errors import refuse
from spectrum.core.forecast import Weights

SHARED = ""
"""The name under which weights stand that all CFG branches share."""


def planned(
    times: Sequence[float],
    target: float,
    span: tuple[float, float],
    *,
    run_steps: Sequence[int],
    weights: Mapping[str, Sequence[Sequence[float]]],
    branch: str = SHARED,
) -> Weights:
    """The weights that a plan has for the gap behind the newest feature: `sum_i w_i F_i` with the same `w` in the gap.

    Args:
        times: see `spectrum.core.forecast`; on the step clock, so the newest is the run step at which the gap begins.
        target: see there; not used, for all steps of a gap have the same weights.
        span: see there; not used.
        run_steps: the plan's run steps.
        weights: by CFG branch, or under `""` for all of them: for each run step the weights of the newest features in
            the gap behind it, oldest first; older features have none.
        branch: the CFG branch that is forecast; where it has no weights of its own, and there are no shared ones, those
            of the first branch count.

    Raises:
        SpectrumError: if the newest feature is not of one of the plan's run steps, or there are too few features.

    Example:
        >>> planned([0, 2], 3, (0, 5), run_steps=[0, 2], weights={"": [[1.0], [-0.5, 1.5]]}).tolist()
        [-0.5, 1.5]
    """
    own = weights[next(name for name in (branch, SHARED, *weights) if name in weights)]
    if times[-1] not in run_steps:
        refuse(f"the plan's run steps are {list(run_steps)}, and step {times[-1]:g} ran: leave the schedule as it is")
    newest = own[list(run_steps).index(int(times[-1]))]
    if len(newest) > len(times):
        refuse(f"the plan wants {len(newest)} features behind step {times[-1]:g}, and {len(times)} are stored")
    found = np.zeros(len(times))
    found[len(times) - len(newest) :] = newest
    return found


def bounds(
    weights: Mapping[str, Sequence[Sequence[float]]], steps: int, sigmas: Sequence[float] | None
) -> dict[str, Any]:
    """The fields of a `Method` by which it runs only where its plan may, and stores no more than that asks for.

    Args:
        weights: see `planned`.
        steps: the number of steps that the plan was made for.
        sigmas: (steps,) the sigma of each; None to run on any grid of that many steps.

    Example:
        >>> bounds({"": [[1.0], [-0.5, 1.5]]}, 5, None)
        {'fitted_steps': 5, 'fitted_sigmas': None, 'memory': 2, 'by_branch': False}
    """
    return {
        "fitted_steps": steps,
        "fitted_sigmas": None if sigmas is None else tuple(sigmas),
        "memory": max(len(gap) for gaps in weights.values() for gap in gaps),
        "by_branch": list(weights) != [SHARED],
    }
