"""A score of schedules that costs no sampling: from uncached trajectories, and by how much an error grows to the end.

With the latents `x_s` that step s is given and the change of sigma `dsigma_s`, `v_s = (x_{s+1} - x_s) / dsigma_s` is
the velocity of the uncached run, guidance and solver included. A gap from run step r to n that replaces the velocity
by `sum_k w_k v_k` lands at `x_n` off by `|| x_n - x_{r+1} - (sigma_n - sigma_{r+1}) sum_k w_k v_k ||`, which needs the
inner products of the latents alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from spectrum.planning.least_squares import Array

RIDGE = 1e-2
Kind = str
"""How a gap's velocity is replaced, see `KINDS`."""


def velocity_products(gram: Array, moves: Array) -> Array:
    """The inner products of the velocities `(x_{s+1} - x_s) / dsigma_s`.

    Args:
        gram: (samples, steps + 1, steps + 1) those of the latents.
        moves: (steps,) by how much the sigma changes at each step.

    Returns:
        (samples, steps, steps).
    """
    steps = gram[:, :, 1:] - gram[:, :, :-1]
    return (steps[:, 1:] - steps[:, :-1]) / moves / moves[:, None]


@dataclass(frozen=True)
class Traced:
    """What the scores are made of.

    Attributes:
        gram: (samples, steps + 1, steps + 1) float64, the inner products of the latents that the steps are given, and
            of those at the end.
        moves: (steps,) by how much the sigma changes at each step.
        gain: (steps + 1,) by how much an error in the latents that a step is given has grown at the end.
    """

    gram: Array
    moves: Array
    gain: Array

    @property
    def steps(self) -> int:
        """Number of denoising steps."""
        return len(self.moves)

    @cached_property
    def velocities(self) -> Array:
        """(samples, steps, steps) the inner products of the velocities."""
        return velocity_products(self.gram, self.moves)

    def table(self, kind: Kind = "fitted", emphasis: float = 1.0, power: float = 2.0) -> Array:
        """The cost of every gap.

        Args:
            kind: how the velocity is replaced: `fitted` (weights of the two newest run steps, by least squares),
                `displacement` (the newest one's), or `reuse` (the same, but every step's error counts by itself), or
                `taylor` (the straight line through the two newest, every step by itself).
            emphasis: the exponent of the gain; the larger, the more runs go to the first steps.
            power: of the cost; 2 where the errors of gaps are independent.

        Returns:
            (steps + 1, steps, steps + 1): by the run step before, the one at which the gap begins, and the step at
            which it ends; the last index of the first axis stands for no run step before. Infinite for what is no gap.
        """
        found = np.full((self.steps + 1, self.steps, self.steps + 1), np.inf)
        for begin in range(self.steps):
            for before in [*range(begin), -1]:
                found[before, begin, begin + 1 :] = KINDS[kind](self, before, begin, self.gain**emphasis) ** power
        return found

    def mean_velocity(self, back: int) -> Array:
        """By how much MeanCache's forecast of the mean velocity over a gap is off, as an error of where it lands.

        `vhat = v_r - (sigma_n - sigma_r) (v_i - vbar) / (sigma_r - sigma_i)`, where `vbar` is the mean velocity over
        the K steps from i to r, and the gap from r to n moves by `(sigma_n - sigma_r) vhat`; K = 0 is reuse.

        Args:
            back: the largest K; each gap has the best.

        Returns:
            (steps, steps + 1), by begin and end of a gap: the mean over samples of the distance; infinite for no gap.
        """
        found = np.full((self.steps, self.steps + 1), np.inf)
        for begin in range(self.steps):
            for end in range(begin + 1, self.steps + 1):
                ways = [self._mean_velocity_off(first, begin, end) for first in range(max(0, begin - back), begin + 1)]
                found[begin, end] = min(ways)
        return found

    def _mean_velocity_off(self, first: int, begin: int, end: int) -> float:
        """That error for one i."""
        latents = np.eye(self.steps + 1)
        velocities = np.diff(latents, axis=0) / self.moves[:, None]
        far = self.moves[begin:end].sum()
        velocity = velocities[begin].copy()
        if first < begin:
            past = self.moves[first:begin].sum()
            velocity -= far * (velocities[first] - (latents[begin] - latents[first]) / past) / past
        off = latents[end] - latents[begin] - far * velocity
        return float(np.sqrt(np.maximum(np.einsum("i,sij,j->s", off, self.gram, off), 0)).mean())

    def _landed(self, past: Sequence[int], begin: int) -> tuple[Array, Array, Array]:
        """Inner products for each end behind `begin`: of the way there (ends, samples), of the way and the velocities
        of `past` (ends, samples, past), and of these (samples, past, past).
        """
        gram, start = self.gram, begin + 1
        ends = np.arange(start, self.steps + 1)
        way = (gram[:, ends, ends] - 2 * gram[:, ends, start] + gram[:, start, start][:, None]).T
        at, after, moves = np.array(past), np.array(past) + 1, self.moves[list(past)]
        steps = gram[:, :, after] - gram[:, :, at]
        across = steps[:, ends] - steps[:, start, None]
        own = steps[:, after] - steps[:, at]
        return way, (across / moves).transpose(1, 0, 2), own / moves[:, None] / moves


def _off(way: Array, across: Array, own: Array, moved: Array, weights: Array) -> Array:
    """(ends,) the mean over samples of the distance between where a gap lands and where the uncached run is.

    Args:
        way: see `Traced._landed`.
        across: see there.
        own: see there.
        moved: (ends,) the change of sigma.
        weights: (ends, past).
    """
    crossed = np.einsum("esp,ep->es", across, weights)
    squared = (
        way - 2 * moved[:, None] * crossed + moved[:, None] ** 2 * np.einsum("ep,spq,eq->es", weights, own, weights)
    )
    return np.sqrt(np.maximum(squared, 0)).mean(1)


def _fitted(traced: Traced, before: int, begin: int, gain: Array) -> Array:
    """Cost by end of gaps whose weights of the two newest run steps are fitted to land there."""
    past = [begin] if before < 0 else [before, begin]
    way, across, own = traced._landed(past, begin)
    steps = np.arange(traced.steps)
    moved = np.concatenate([[0.0], np.cumsum(traced.moves[begin + 1 :])])
    middle = np.cumsum((traced.moves * steps)[begin + 1 :]) / moved[1:]
    prior = np.ones((len(moved), 1))
    if before >= 0:
        slope = np.concatenate([[0.0], (middle - begin) / (begin - before)])
        prior = np.stack([-slope, 1 + slope], 1)
    matrix = moved[:, None, None] ** 2 * own.sum(0)
    penalty = RIDGE * np.trace(matrix, axis1=1, axis2=2) / len(past) + np.finfo(float).tiny
    right = moved[:, None] * across.sum(1) + penalty[:, None] * prior
    weights = np.linalg.solve(matrix + penalty[:, None, None] * np.eye(len(past)), right[..., None])[..., 0]
    return gain[begin + 1 :] * _off(way, across, own, moved, weights)


def _displacement(traced: Traced, before: int, begin: int, gain: Array) -> Array:
    """Cost by end of gaps that reuse the velocity of their first step."""
    moved = np.concatenate([[0.0], np.cumsum(traced.moves[begin + 1 :])])
    return gain[begin + 1 :] * _off(*traced._landed([begin], begin), moved, np.ones((len(moved), 1)))


def _reuse(traced: Traced, before: int, begin: int, gain: Array) -> Array:
    """Cost by end of gaps that reuse the velocity of their first step, as the sum of the errors of every step."""
    after, moves, own = np.arange(begin + 1, traced.steps), traced.moves, traced.velocities
    off = own[:, after, after] - 2 * own[:, after, begin] + own[:, begin, begin][:, None]
    errors = np.abs(moves[after]) * gain[after + 1] * np.sqrt(np.maximum(off, 0)).mean(0)
    return np.concatenate([[0.0], np.cumsum(errors)])


def _taylor(traced: Traced, before: int, begin: int, gain: Array) -> Array:
    """Cost by end of gaps that go along the straight line through two velocities, as the sum of every step's errors."""
    after, moves, own = np.arange(begin + 1, traced.steps), traced.moves, traced.velocities
    slope = np.zeros(len(after)) if before < 0 else (after - begin) / (begin - before)
    weights = np.zeros((len(after), traced.steps))
    weights[np.arange(len(after)), after] = 1.0
    weights[:, begin] -= 1 + slope
    if before >= 0:
        weights[:, before] += slope
    off = np.einsum("ei,sij,ej->se", weights, own, weights, optimize=True)
    errors = np.abs(moves[after]) * gain[after + 1] * np.sqrt(np.maximum(off, 0)).mean(0)
    return np.concatenate([[0.0], np.cumsum(errors)])


KINDS: dict[Kind, Callable[[Traced, int, int, Array], Array]] = {
    "fitted": _fitted,
    "displacement": _displacement,
    "reuse": _reuse,
    "taylor": _taylor,
}


def cost_of(table: Array, runs: Sequence[int]) -> float:
    """The cost of a schedule: the sum of its gaps' costs.

    Args:
        table: see `Traced.table`.
        runs: the run steps.
    """
    ends = [*runs[1:], table.shape[1]]
    return float(
        sum(table[before, begin, end] for before, begin, end in zip([-1, *runs[:-1]], runs, ends, strict=True))
    )


def shortest(table: Array, runs: int) -> tuple[int, ...]:
    """The schedule with the least cost, by dynamic programming over its two newest run steps.

    Args:
        table: see `Traced.table`.
        runs: number of run steps.

    Returns:
        The run steps, ascending; the first is 0.
    """
    steps = table.shape[1]
    least = np.full((steps + 1, steps), np.inf)
    least[-1, 0] = 0.0
    chosen = []
    for _ in range(runs - 1):
        total = least[:, :, None] + table[:, :, :steps]
        chosen.append(total.argmin(0))
        least = np.concatenate([total.min(0), np.full((1, steps), np.inf)])
    before, begin = np.unravel_index((least + table[:, :, steps]).argmin(), least.shape)
    found = [int(begin)]
    for choice in reversed(chosen):
        found.append(int(before))
        before, begin = choice[before, begin], before
    return tuple(reversed(found))
