"""Carries a plan over to another grid of sigmas."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from spectrum.core.errors import refuse
from spectrum.core.forecast import newton
from spectrum.records.plan_file import PlanFile


def carried(plan: PlanFile, sigmas: Sequence[float]) -> PlanFile:
    """A plan for another grid: each run step goes to the step whose sigma is nearest, and the weights stay.

    Where two run steps were neighbours and are not any more, the gap between them goes along the straight line.

    Args:
        plan: the plan.
        sigmas: (steps,) the sigma of each step of the other grid, descending.

    Returns:
        The plan, which says the grid, and is expected to give nothing in particular.

    Raises:
        SpectrumError: if the grid has fewer steps than the plan has runs.
    """
    steps, runs = len(sigmas), len(plan.run_steps)
    if steps < runs:
        refuse(f"{plan.name} has more runs than {steps} steps: fit one for them")
    at = [int(np.abs(np.asarray(sigmas) - plan.setting.sigmas[step]).argmin()) for step in plan.run_steps]
    at[0] = 0
    for number in range(1, runs):
        at[number] = max(at[number], at[number - 1] + 1)
    at = [min(step, steps - runs + number) for number, step in enumerate(at)]
    weights = {
        branch: [_gap(plan, at, number, own) for number, own in enumerate(gaps)]
        for branch, gaps in plan.weights.items()
    }
    setting = dataclasses.replace(plan.setting, steps=steps, sigmas=[float(sigma) for sigma in sigmas])
    return dataclasses.replace(plan, run_steps=at, weights=weights, setting=setting, expected=None)


def _gap(plan: PlanFile, at: Sequence[int], number: int, own: Sequence[float]) -> list[float]:
    """The weights of one gap on the other grid.

    Args:
        plan: the plan.
        at: its run steps there.
        number: of the run step at which the gap begins.
        own: the plan's weights of that gap.
    """
    last = number + 1 == len(at)
    had_one = last or plan.run_steps[number + 1] > plan.run_steps[number] + 1
    if had_one or at[number + 1] == at[number] + 1:
        return list(own)
    past, targets = at[max(0, number - 1) : number + 1], range(at[number] + 1, at[number + 1])
    return np.mean([newton(past, target, (0.0, 1.0)) for target in targets], axis=0).tolist()
