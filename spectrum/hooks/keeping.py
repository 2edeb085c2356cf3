"""What a branch keeps of its features, where it is not they themselves."""

import functools
from collections.abc import Callable

from spectrum.core.choices import Keep
from spectrum.core.history import History
from spectrum.core.method import Method, plan_method
from spectrum.core.on_host import HostHistory
from spectrum.core.packed import PackedHistory
from spectrum.core.running_sums import RunningSums
from spectrum.core.spans import bases
from spectrum.hooks.trajectory import Trajectory


def keeping(method: Method, trajectory: Trajectory, origin: int) -> Callable[[], History] | None:
    """What makes the histories of a branch.

    Args:
        method: the method in force.
        trajectory: the run.
        origin: the step at which the branch begins.

    Returns:
        It; None where the features themselves are kept.
    """
    if method.keep is Keep.features:
        return None
    if method.keep is Keep.host:
        return functools.partial(HostHistory, method.max_features)
    if method.keep is not Keep.sums:
        return functools.partial(PackedHistory, method.keep, method.max_features)
    plan = plan_method(method, len(trajectory.times), trajectory.times, trajectory.span, (origin,))
    found = bases(len(plan.runs or []), [skipped.weights for skipped in plan.skipped])
    return functools.partial(RunningSums, found, method.max_features)
