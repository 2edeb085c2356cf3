"""Fits the weights of one gap in the loop, on latents that the gaps before have already moved."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from spectrum.core.forecast import newton
from spectrum.core.planned import SHARED
from spectrum.planning.least_squares import FAR, RIDGES, Array, Normal, best_ridge
from spectrum.planning.player import Features, GapWeights
from spectrum.planning.rollout import Rollouts
from spectrum.planning.spread import spread

ROUNDS = 3
"""How often the weights of a gap are solved for, at most; once is enough where the latents are linear in them."""
LINEAR = 1e-3
"""Relative to what a round changed: how far from its linear prediction the latents may land to need no other round."""


@dataclass(frozen=True)
class Settings:
    """How weights are fitted.

    Attributes:
        memory: how many of the newest run steps a forecast uses; None for all.
        shared: whether the CFG branches have the same weights. Otherwise the same weights are fitted first, and each
            branch's own as changes of them.
        ridge: the penalty on the distance to the prior's weights, and on those changes; None to choose it by
            cross-validation.
        fit: whether weights are fitted; otherwise they are `prior`'s.
        prior: gives the weights that the ridge pulls towards.
        train: numbers of the samples that weights are fitted on; the others are only played. None for all.
        relative: how often a gap's equations are solved again with each sample's divided by its loss, so that a sample
            that is lost does not outweigh the others: what is made small is then the mean loss in dB.
        seeds: how many samples each prompt has; they follow one another.
    """

    memory: int | None = 3
    shared: bool = True
    ridge: float | None = None
    fit: bool = True
    prior: Callable[[Sequence[float], float, tuple[float, float]], Array] = newton
    train: tuple[int, ...] | None = None
    relative: int = 2
    seeds: int = 1

    def prompts(self, count: int) -> NDArray[np.intp]:
        """The number of the prompt of each of so many samples."""
        return np.arange(count) // self.seeds


@dataclass(frozen=True)
class Gap:
    """The fit of one gap.

    Attributes:
        weights: see `player.GapWeights`.
        ridge: the ridge that was used.
        condition: of the normal matrix.
        landed: (samples,) the mean squared error of the latents where the gap ends.
    """

    weights: GapWeights
    ridge: float
    condition: float
    landed: Array


@dataclass(frozen=True)
class Prefix:
    """A schedule as far as it was fitted: up to its newest run step.

    Attributes:
        runs: the run steps.
        gaps: the fit of each gap between them, by the run step at which it begins; none where they are neighbours.
        features: for each batch what was stored at the run steps.
    """

    runs: tuple[int, ...]
    gaps: dict[int, Gap] = field(default_factory=dict)
    features: tuple[Features, ...] = ()

    @property
    def weights(self) -> dict[int, GapWeights]:
        """The weights of the gaps."""
        return {begin: gap.weights for begin, gap in self.gaps.items()}


def as_numpy(latents: Tensor) -> Array:
    """Latents in float64."""
    return latents.double().numpy()


class _Behind:
    """What the latents do behind a prefix's newest run step, by the weights of the gap there.

    Args:
        rollouts: the batches.
        prefix: the schedule so far.
        ends: where the gap may end, ascending.
        settings: how weights are fitted.
    """

    def __init__(self, rollouts: Sequence[Rollouts], prefix: Prefix, ends: Sequence[int], settings: Settings) -> None:
        self.rollouts, self.prefix, self.ends, self.settings = rollouts, prefix, ends, settings
        self.branches = [SHARED] if settings.shared else rollouts[0].branches
        self.past = list(prefix.runs)[-(settings.memory or len(prefix.runs)) :]

    def prior(self, end: int) -> Array:
        """The weights that the ridge pulls towards: the mean of the prior's over the gap, by how far each step goes."""
        begin, part = self.prefix.runs[-1], self.rollouts[0]
        targets = range(begin + 1, max(end, begin + 2))
        own = [self.settings.prior(self.past, step, (0.0, float(part.steps))) for step in targets]
        far = np.abs(part.moves[begin + 1 : begin + 1 + len(own)])
        share = far if len(far) == len(own) and far.sum() > 0 else np.ones(len(own))
        return np.tile(np.average(own, axis=0, weights=share), len(self.branches))

    def reused(self) -> Array:
        """The weights of reuse, where the rounds begin: far from them a head can be far from linear."""
        return np.tile(np.eye(len(self.past))[-1], len(self.branches))

    def named(self, flat: Array) -> GapWeights:
        """Weights by branch."""
        parts = flat.reshape(len(self.branches), len(self.past))
        return {branch: part.tolist() for branch, part in zip(self.branches, parts, strict=True)}

    def latents(self, flat: Array) -> list[list[Array]]:
        """Of each batch the latents at each end."""
        weights = {**self.prefix.weights, self.prefix.runs[-1]: self.named(flat)}
        found = spread(lambda part, own: part.latents(own, weights, self.ends), self.rollouts, self.prefix.features)
        return [[as_numpy(latents) for latents in own] for own in found]

    def moves(self, at: Array, here: list[list[Array]]) -> list[list[Array]]:
        """Of each batch at each end (weights, samples, elements), by how much the latents move with each weight."""
        moved = [self.latents(at + unit) for unit in np.eye(len(at))]
        return [
            [np.stack([own[batch][end] - base for own in moved]) for end, base in enumerate(bases)]
            for batch, bases in enumerate(here)
        ]

    def targets(self, end: int) -> list[Array]:
        """Of each batch the uncached latents at an end."""
        return [as_numpy(part.reference[end]) for part in self.rollouts]


def _fitted(
    normal: Normal, pull: Array, settings: Settings, prompts: NDArray[np.intp], ridges: Sequence[float]
) -> tuple[Array, float]:
    """The changes that a ridge pulls towards `pull`, and that ridge: one of `ridges` unless the settings have one."""
    change, ridge = pull, settings.ridge or 0.0
    for number in range(1 + settings.relative):
        own = normal.relative(change) if number else normal
        if settings.ridge is None:
            ridge = best_ridge(own, pull, ridges, prompts=prompts)
        change = own.solved(ridge, pull)
    return change, ridge


def _solved(behind: _Behind, number: int, at: Array, here: list[Array], moves: list[Array]) -> tuple[Array, Gap]:
    """By how much the weights of a gap change, and its fit as far as the latents are linear in them."""
    end, settings = behind.ends[number], behind.settings
    prompts = settings.prompts(sum(len(own) for own in here))
    prompts = prompts if settings.train is None else prompts[list(settings.train)]
    off = [base - target for base, target in zip(here, behind.targets(end), strict=True)]
    normal = Normal.joined([Normal.of(*pair) for pair in zip(moves, [-x for x in off], strict=True)], settings.train)
    pull = behind.prior(end) - at
    if not settings.fit:
        change, ridge = pull, 0.0
    elif len(behind.branches) == 1:
        change, ridge = _fitted(normal, pull, settings, prompts, RIDGES)
    else:
        ties = np.tile(np.eye(len(behind.past)), (len(behind.branches), 1))
        shared = pull.reshape(len(behind.branches), -1).mean(0)
        shared, _ = _fitted(normal.tied(ties), shared, settings, prompts, RIDGES)
        change, ridge = _fitted(normal, ties @ shared, settings, prompts, FAR)
    landed = [((x + np.tensordot(change, own, 1)) ** 2).mean(1) for x, own in zip(off, moves, strict=True)]
    return change, Gap(behind.named(at + change), ridge, normal.condition, np.concatenate(landed))


def landings(rollouts: Sequence[Rollouts], prefix: Prefix, ends: Sequence[int], settings: Settings) -> dict[int, Array]:
    """How far from the uncached run a prefix lands at several steps, with the weights fitted for each.

    At the output site the latents are linear in the weights, and one set of replays tells all of them exactly. At the
    exit site the weights come from one such set, and each landing from a replay of its own.

    Args:
        rollouts: the batches.
        prefix: the schedule so far.
        ends: steps behind its newest run step, ascending; the number of steps for the final latents.
        settings: how weights are fitted.

    Returns:
        By step (samples,) the mean squared error of the latents.
    """
    behind = _Behind(rollouts, prefix, ends, settings)
    at = behind.reused()
    here = behind.latents(at)
    moves = behind.moves(at, here)
    found = {}
    for number, end in enumerate(ends):
        change, gap = _solved(behind, number, at, [own[number] for own in here], [own[number] for own in moves])
        found[end] = gap.landed
        if not rollouts[0].linear:
            alone = _Behind(rollouts, prefix, [end], settings)
            found[end] = errors_of(alone.latents(at + change), alone.targets(end))
    return found


def fit_gap(rollouts: Sequence[Rollouts], prefix: Prefix, end: int, settings: Settings) -> Gap:
    """Fit the weights of the gap from a prefix's newest run step to a step.

    `min_w sum ||x*(end) - x(end; w)||^2 + ridge t ||w - w0||^2` over the samples' latents, by Gauss-Newton with finite
    differences. At the output site the latents are linear in the weights, so one round is exact.

    Args:
        rollouts: the batches.
        prefix: the schedule before the gap.
        end: the run step at which the gap ends, or the number of steps.
        settings: how weights are fitted.
    """
    behind = _Behind(rollouts, prefix, [end], settings)
    targets, rows = behind.targets(end), slice(None) if settings.train is None else list(settings.train)
    at = behind.reused() if settings.fit else behind.prior(end)
    here = behind.latents(at)
    best = Gap(behind.named(at), 0.0, 1.0, errors_of(here, targets))
    for number in range(ROUNDS if settings.fit else 0):
        moves = behind.moves(at, here)
        change, gap = _solved(behind, 0, at, [own[0] for own in here], [own[0] for own in moves])
        at = at + change
        there = behind.latents(at)
        landed = errors_of(there, targets)
        if number and landed[rows].sum() >= best.landed[rows].sum():
            break
        best = dataclasses.replace(gap, landed=landed)
        triples = [(new[0] - old[0], own[0]) for new, old, own in zip(there, here, moves, strict=True)]
        bent = sum(float(((step - np.tensordot(change, own, 1)) ** 2).sum()) for step, own in triples)
        here = there
        if bent <= LINEAR**2 * sum(float((step**2).sum()) for step, _ in triples):
            break
    return best


def errors_of(latents: list[list[Array]], targets: list[Array]) -> Array:
    """The mean squared error of each sample.

    Args:
        latents: of each batch at each end; those at the first count.
        targets: of each batch the uncached latents there.
    """
    return np.concatenate([((own[0] - goal) ** 2).mean(1) for own, goal in zip(latents, targets, strict=True)])
