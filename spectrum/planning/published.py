"""Planners that others published, and the schedules of caching methods. Each is called as those of `planners` are.

LeMiCa's, DPCache's and MeanCache's are paths through the run steps with an edge, or a pair of edges, for each gap. They
are worked out here from the uncached latents and inner products of the velocities, guidance included, where their
authors look at features inside the denoiser or at sampled pictures. What else is not published is said with each.
"""

from collections.abc import Sequence

import numpy as np

from spectrum.config.methods import build_method, method_config, with_runs
from spectrum.core.errors import refuse
from spectrum.core.schedule import plan
from spectrum.planning.evaluate import Evaluate
from spectrum.planning.least_squares import Array
from spectrum.planning.planners import Runs, Score, check_budget
from spectrum.planning.scores import shortest


def rule(evaluate: Score, steps: int, runs: int, seed: int, *, method: str = "spectrum") -> Runs:
    """The schedule that a caching method has for so many runs, for one that goes by the step alone.

    Args:
        evaluate: not used.
        steps: see `spectrum.planning.planners`.
        runs: see there.
        seed: not used.
        method: the method.

    Raises:
        SpectrumError: if its schedule cannot run so often.
    """
    check_budget(steps, runs)
    config = method_config(method, [f"runs={runs}", f"model.steps={steps}"])
    if config.method.forecast is None or config.method.drift is not None:
        refuse(f"planner.method={method} has no schedule by step number: type spectrum, fora or taylorseer")
    config = with_runs(config, {})
    return tuple(plan(build_method(config.method, config.schedule).schedule, steps))


def lemica(evaluate: Evaluate, steps: int, runs: int, seed: int) -> Runs:
    """LeMiCa's path: the largest error of a gap as small as possible, then the second largest, and so on.

    A gap's error is by how much the end changes when the velocity is reused in that gap alone. LeMiCa samples each such
    run to the end; here it is the local error at each step times the growth of errors from there.

    Args:
        evaluate: see `spectrum.planning.planners`; also has what the errors are made of.
        steps: see there.
        runs: see there.
        seed: not used.
    """
    check_budget(steps, runs)
    return _least_peaks(evaluate.traced().table("reuse", power=1.0)[-1], runs)


def dpcache(evaluate: Evaluate, steps: int, runs: int, seed: int, *, first: int = 3) -> Runs:
    """DPCache's path: the least sum of the errors of Taylor forecasts, which go through the two run steps before.

    Args:
        evaluate: see `spectrum.planning.planners`; also has what the errors are made of.
        steps: see there.
        runs: see there.
        seed: not used.
        first: how many steps run at the beginning.
    """
    check_budget(steps, runs)
    table = evaluate.traced(gain=False).table("taylor", power=1.0)
    for step in range(min(first, runs) - 1):
        table[:, step, step + 2 :] = np.inf
    return shortest(table, runs)


def meancache(evaluate: Evaluate, steps: int, runs: int, seed: int, *, back: int = 5, power: float = 2.0) -> Runs:
    """MeanCache's path: in each gap the mean velocity is forecast from the newest one and the mean over K steps before.

    Of K = 0 (reuse) to `back` each gap has the best. How the published path suppresses peaks is not known; here the
    errors are squared.

    Args:
        evaluate: see `spectrum.planning.planners`; also has what the errors are made of.
        steps: see there.
        runs: see there.
        seed: not used.
        back: the largest K.
        power: of the errors.
    """
    check_budget(steps, runs)
    table = evaluate.traced(gain=False).mean_velocity(back) ** power
    return shortest(np.broadcast_to(table, (steps + 1, *table.shape)), runs)


def _least_peaks(errors: Array, runs: int) -> Runs:
    """The path whose errors, sorted from the largest, are the smallest in lexicographic order.

    Args:
        errors: (steps, steps + 1) by the run step at which a gap begins and the step at which it ends; infinite for
            what is no gap.
        runs: number of run steps.
    """
    steps = len(errors)
    best: dict[int, tuple[Sequence[float], Runs]] = {0: ((), (0,))}
    for _ in range(runs - 1):
        best = _extended(best, errors, range(1, steps))
    return _extended(best, errors, [steps])[steps][1][:-1]


def _extended(
    best: dict[int, tuple[Sequence[float], Runs]], errors: Array, ends: Sequence[int]
) -> dict[int, tuple[Sequence[float], Runs]]:
    """By end, the best path with one gap more: (its errors from the largest, its run steps)."""
    found = {}
    for end in ends:
        ways = [
            (sorted([*own, float(errors[begin, end])], reverse=True), (*path, end))
            for begin, (own, path) in best.items()
            if begin < end
        ]
        if ways:
            found[end] = min(ways)
    return found
