"""Planners that others published, against their definitions; and a plan carried over to another grid."""

import dataclasses
import itertools

import numpy as np
import pytest
from test_plan_file import PLAN

from spectrum.core.errors import SpectrumError
from spectrum.core.schedule import growing_window, plan
from spectrum.planning.carry import carried
from spectrum.planning.local import local_weights
from spectrum.planning.published import dpcache, lemica, meancache, rule
from spectrum.planning.scores import Traced, cost_of

STEPS = 8


class Traces:
    """The uncached latents of two samples, as a score has them."""

    def __init__(self, seed=0):
        random = np.random.default_rng(seed)
        self.latents = np.cumsum(random.normal(size=(2, STEPS + 1, 20)), 1)
        self.moves = -random.random(STEPS) - 0.1
        gain = np.linspace(3, 1, STEPS + 1)
        self._traced = Traced(self.latents @ self.latents.transpose(0, 2, 1), self.moves, gain)

    def traced(self, gain=True):
        return self._traced if gain else dataclasses.replace(self._traced, gain=np.ones(STEPS + 1))


def every(runs, head=(0,)):
    rest = itertools.combinations(range(len(head), STEPS), runs - len(head))
    return [(*head, *own) for own in rest]


def gaps(runs):
    return list(itertools.pairwise([*runs, STEPS]))


@pytest.mark.parametrize("seed", range(3))
def test_lemica_keeps_the_largest_error_smallest_and_then_the_next(seed):
    traces = Traces(seed)
    errors = traces.traced().table("reuse", power=1.0)[-1]
    best = min(every(4), key=lambda runs: sorted((errors[gap] for gap in gaps(runs)), reverse=True))
    assert lemica(traces, STEPS, 4, 0) == best


def test_dpcache_sums_the_errors_of_straight_lines_and_runs_at_first():
    traces = Traces()
    table = traces.traced().table("taylor", emphasis=0.0, power=1.0)
    best = min(every(5, head=(0, 1, 2)), key=lambda runs: cost_of(table, runs))
    assert dpcache(traces, STEPS, 5, 0) == best
    velocities = np.diff(traces.latents, axis=1) / traces.moves[:, None]
    line = [velocities[:, 3] + (s - 3) / 2 * (velocities[:, 3] - velocities[:, 1]) for s in (4, 5)]
    off = [
        abs(traces.moves[s]) * np.linalg.norm(velocities[:, s] - own, axis=1).mean()
        for s, own in zip((4, 5), line, strict=True)
    ]
    assert table[1, 3, 6] == pytest.approx(sum(off))


def test_meancache_forecasts_the_mean_velocity_from_the_mean_before():
    """`vhat = v_r - (sigma_n - sigma_r) (v_i - vbar) / (sigma_r - sigma_i)`, with the best i of those allowed."""
    traces = Traces()
    x, moves = traces.latents, traces.moves
    velocities = np.diff(x, axis=1) / moves[:, None]
    begin, end, ways = 4, 7, []
    far = moves[begin:end].sum()
    for first in (4, 3, 2):
        forecast = velocities[:, begin]
        if first < begin:
            past = moves[first:begin].sum()
            forecast = forecast - far * (velocities[:, first] - (x[:, begin] - x[:, first]) / past) / past
        ways.append(np.linalg.norm(x[:, end] - x[:, begin] - far * forecast, axis=1).mean())
    table = traces.traced().mean_velocity(2)
    assert table[begin, end] == pytest.approx(min(ways))
    best = min(every(4), key=lambda runs: sum(table[gap] ** 2 for gap in gaps(runs)))
    assert meancache(traces, STEPS, 4, 0, back=2) == best


def test_a_line_is_continued_without_error():
    """MeanCache's mean velocity is that of the straight line, up to what the sampler's own steps are off."""
    random = np.random.default_rng(0)
    sigma = np.linspace(1, 0, 41)
    slope, base = random.normal(size=(2, 1, 1, 10))
    x = base * sigma[None, :, None] + slope * sigma[None, :, None] ** 2 / 2
    traced = Traced(x @ x.transpose(0, 2, 1), np.diff(sigma), np.ones(41))
    table, reuse = traced.mean_velocity(5), traced.mean_velocity(0)
    assert table[20, 30] < 0.12 * reuse[20, 30] and traced.table("taylor", power=1.0)[18, 20, 30] < 1e-6


def test_local_weights_have_the_least_error_of_the_velocity_itself():
    """Where a velocity is on the line through two others, they are its weights; no others come nearer elsewhere."""
    traces = Traces(1)
    velocities = np.diff(traces.latents, axis=1) / traces.moves[:, None]
    velocities[:, 6] = 2.5 * velocities[:, 4] - 1.5 * velocities[:, 1]
    x = np.concatenate([traces.latents[:, :1], velocities * traces.moves[:, None]], 1).cumsum(1)
    weights = local_weights(x @ x.transpose(0, 2, 1), traces.moves)
    assert weights([1, 4], 6, (0, STEPS)) == pytest.approx([-1.5, 2.5], abs=1e-2)
    flat = velocities.transpose(1, 0, 2).reshape(STEPS, -1)
    best = np.linalg.lstsq(flat[[0, 1, 4]].T, flat[5], rcond=None)[0]
    assert weights([0, 1, 4], 5, (0, STEPS)) == pytest.approx(best, abs=1e-2)


def test_a_rule_is_the_schedule_of_its_method():
    assert rule(lambda runs: 0.0, 50, 14, 0) == tuple(plan(growing_window, 50))
    assert len(rule(lambda runs: 0.0, 50, 10, 0, method="taylorseer")) == 10
    with pytest.raises(SpectrumError, match="cannot run exactly 49"):
        rule(lambda runs: 0.0, 50, 49, 0)
    for method in ("none", "fewer_steps", "teacache"):
        with pytest.raises(SpectrumError, match=f"planner.method={method} has no schedule by step number"):
            rule(lambda runs: 0.0, 50, 10, 0, method=method)


def test_a_plan_goes_to_the_nearest_sigmas_of_another_grid():
    setting = dataclasses.replace(PLAN.setting, steps=8, sigmas=[1 - s / 8 for s in range(8)])
    own = dataclasses.replace(PLAN, run_steps=[0, 1, 4], setting=setting)
    assert carried(own, [1 - s / 16 for s in range(16)]).run_steps == [0, 2, 8]
    few = carried(own, [1.0, 0.9, 0.8, 0.1])
    assert few.run_steps == [0, 1, 2] and few.setting.steps == 4 and few.expected is None
    assert carried(own, [1.0, 0.2, 0.1]).run_steps == [0, 1, 2], "no two runs at one step, and none past the last"
    assert carried(own, [1 - s / 16 for s in range(16)]).weights[""] == [[1.0], [-0.5, 1.5], [0.0, 0.0, 1.0]]
    neighbours = dataclasses.replace(own, run_steps=[0, 1, 2], weights={"": [[1.0], [1.0], [-0.2, 1.2]]})
    far = carried(neighbours, [1 - s / 16 for s in range(16)])
    assert far.run_steps == [0, 2, 4] and far.weights[""] == [[1.0], [-0.5, 1.5], [-0.2, 1.2]], (
        "a new gap goes straight"
    )
    with pytest.raises(SpectrumError, match="more runs than 2 steps"):
        carried(own, [1.0, 0.5])
