"""Planners find what there is; the score without sampling is how far a gap lands."""

import functools
import itertools

import numpy as np
import pytest

from spectrum.core.errors import SpectrumError
from spectrum.planning.planners import annealing, given, hill_climbing, path, spread
from spectrum.planning.scores import Traced, cost_of, shortest


class ScoreNear:
    """The less the sum of the distances from some run steps, the better; landings by the run steps so far."""

    def __init__(self, wanted):
        self.wanted = wanted

    def __call__(self, runs):
        return -float(sum(abs(a - b) for a, b in zip(runs, self.wanted, strict=True)))

    def landed(self, runs, ends):
        so_far = sum(abs(a - b) for a, b in zip(runs, self.wanted, strict=False))
        wanted = [*self.wanted, 20]
        return [-float(so_far + abs(end - wanted[len(runs)])) for end in ends]


@pytest.mark.parametrize("planner", [hill_climbing, annealing, path, functools.partial(path, width=1, tries=9)])
def test_a_planner_finds_the_best_schedule_and_the_same_one_again(planner):
    wanted = (0, 2, 3, 9, 15)
    found = planner(ScoreNear(wanted), 20, 5, 3)
    assert found == planner(ScoreNear(wanted), 20, 5, 3)
    assert sum(abs(a - b) for a, b in zip(found, wanted, strict=True)) <= (2 if planner is hill_climbing else 0)


def test_what_was_typed_is_not_searched():
    assert given(lambda runs: pytest.fail("no score is asked for"), 20, 3, 0, run_steps=[0, 4, 9]) == (0, 4, 9)
    assert given(lambda runs: 0.0, 50, 10, 0) == spread(50, 10)
    for steps, runs in ((5, 5), (50, 2), (7, 6), (3, 2)):
        found = spread(steps, runs)
        assert len(found) == runs and found[0] == 0 and list(found) == sorted(set(found)) and found[-1] < steps


@pytest.mark.parametrize(("steps", "runs"), [(5, 6), (5, 1)])
def test_a_budget_that_no_schedule_has_is_refused(steps, runs):
    for planner in (hill_climbing, annealing, given, path):
        with pytest.raises(SpectrumError, match="runs"):
            planner(lambda own: 0.0, steps, runs, 0)


def test_the_shortest_path_is_the_best_of_all_schedules():
    table = np.random.default_rng(2).random((9, 8, 9))
    for before, begin, end in np.ndindex(*table.shape):
        if end <= begin or begin <= before < 8:
            table[before, begin, end] = np.inf
    every = [(0, *rest) for rest in itertools.combinations(range(1, 8), 3)]
    assert shortest(table, 4) == min(every, key=functools.partial(cost_of, table))


@pytest.mark.parametrize("kind", ["fitted", "displacement", "reuse"])
def test_the_score_without_sampling_is_how_far_a_gap_lands(kind):
    """From inner products of the latents alone, as from the latents themselves."""
    random = np.random.default_rng(3)
    latents, moves = random.normal(size=(2, 7, 30)), -random.random(6) - 0.1
    gain = np.linspace(3, 1, 7)
    found = Traced(latents @ latents.transpose(0, 2, 1), moves, gain).table(kind, power=1.0)
    speeds = np.diff(latents, axis=1) / moves[:, None]
    before, begin, end = 1, 2, 5
    moved = moves[3:5].sum()
    if kind == "reuse":
        own = sum(
            abs(moves[s]) * gain[s + 1] * np.linalg.norm(speeds[:, s] - speeds[:, begin], axis=1).mean() for s in (3, 4)
        )
    else:
        weights = np.array([0.0, 1.0])
        if kind == "fitted":
            basis = moved * speeds[:, [before, begin]].transpose(1, 0, 2).reshape(2, -1)
            middle = (moves[3:5] * [3, 4]).sum() / moved - begin
            prior = np.array([-middle, 1 + middle])
            penalty = 1e-2 * np.trace(basis @ basis.T) / 2
            target = (latents[:, end] - latents[:, begin + 1]).ravel()
            weights = np.linalg.solve(basis @ basis.T + penalty * np.eye(2), basis @ target + penalty * prior)
        off = (
            latents[:, end]
            - latents[:, begin + 1]
            - moved * np.einsum("p,spe->se", weights, speeds[:, [before, begin]])
        )
        own = gain[end] * np.linalg.norm(off, axis=1).mean()
    assert found[before, begin, end] == pytest.approx(own)
    assert found[before, begin, begin + 1] == pytest.approx(0, abs=1e-6) and np.isinf(found[before, begin, begin])
