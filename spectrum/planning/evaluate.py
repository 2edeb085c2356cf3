"""Scores schedules by sampling with them: each with its weights fitted, on the same few prompts, each once."""

from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np

from spectrum.core.errors import refuse
from spectrum.planning.fit import decibels, ended, extended, first
from spectrum.planning.gain import gain_of, probe_cost, products_of
from spectrum.planning.gap import Prefix, Settings, landings
from spectrum.planning.journal import Journal
from spectrum.planning.least_squares import Array
from spectrum.planning.rollout import Rollouts
from spectrum.planning.scores import Traced

KEPT = 4 << 30
"""How many bytes of features are kept with prefixes of schedules; those that begin alike go on from where they part."""


class Evaluate:
    """Scores a schedule; called with its run steps. What was scored before is not sampled again.

    Args:
        rollouts: the batches of samples, all of the same pipeline.
        settings: how weights are fitted.
        journal: keeps the scores.
        scored: called after each schedule or beginning of one that was scored.

    Attributes:
        steps: number of denoising steps.
        full_runs: what the scores cost, in uncached runs of one sample, where no beginning of a schedule is sampled
            twice; the uncached runs that all are compared with are among them.
    """

    def __init__(
        self,
        rollouts: Sequence[Rollouts],
        settings: Settings,
        journal: Journal | None = None,
        scored: Callable[[], None] = lambda: None,
    ) -> None:
        self.rollouts, self.settings = rollouts, settings
        self.steps = rollouts[0].steps
        self.journal = journal or Journal(None, "")
        self._scored = scored
        self._traced: Traced | None = None
        self._begun: set[tuple[int, ...]] = {(0,)}
        self._prefixes: OrderedDict[tuple[int, ...], Prefix] = OrderedDict()

    def __call__(self, runs: Sequence[int]) -> float:
        """The mean dB of the final latents with these run steps, see `fit.decibels`.

        Args:
            runs: they begin with 0, ascend, and end before `steps`.

        Raises:
            SpectrumError: for other run steps.
        """
        key = self._checked(runs)
        name = " ".join(map(str, key))
        found = self.journal.scores.get(name)
        if found is None:
            found = self.journal.add(name, self.fitted(key)[1].tolist())
        self._scored()
        return float(np.mean(found))

    def landed(self, runs: Sequence[int], ends: Sequence[int]) -> list[float]:
        """How near the uncached run a beginning of a schedule lands at several steps, which costs no run of the blocks.

        Args:
            runs: its run steps.
            ends: steps behind the last of them, ascending; `steps` for the final latents.

        Returns:
            For each of `ends` the mean dB of the latents there, see `fit.decibels`.

        Raises:
            SpectrumError: for run steps that are none, see `__call__`.
        """
        key = self._checked(runs)
        name = f"{' '.join(map(str, key))} to {ends[0]}-{ends[-1]}"
        if name not in self.journal.scores:
            errors = landings(self.rollouts, self._prefix(key), ends, self.settings)
            own = [float(decibels(errors[end], self.rollouts, end).mean()) for end in ends]
            self.journal.add(name, own)
        self._scored()
        return self.journal.scores[name]

    def _checked(self, runs: Sequence[int]) -> tuple[int, ...]:
        key = tuple(runs)
        if key[:1] != (0,) or list(key) != sorted(set(key)) or key[-1] >= self.steps:
            refuse(f"run steps begin with 0, ascend, and end before {self.steps}; got {list(runs)}")
        self._begun |= {key[:count] for count in range(1, len(key) + 1)}
        return key

    def traced(self, gain: bool = True) -> Traced:
        """What the score without sampling is made of, from the uncached runs and a few with an error put in.

        Args:
            gain: whether the growth of errors is measured; otherwise each error counts as it is.
        """
        if not gain:
            return Traced(products_of(self.rollouts), self.rollouts[0].moves, np.ones(self.steps + 1))
        if self._traced is None:
            if "gain" not in self.journal.scores:
                self.journal.add("gain", gain_of(self.rollouts).tolist())
            self._traced = Traced(
                products_of(self.rollouts), self.rollouts[0].moves, np.array(self.journal.scores["gain"])
            )
        return self._traced

    @property
    def full_runs(self) -> float:
        """See the class."""
        count = sum(part.count for part in self.rollouts)
        probed = 0.0 if self._traced is None else probe_cost(self.rollouts)
        return count * (1 + (len(self._begun) - 1) / self.steps) + probed

    def fitted(self, runs: Sequence[int]) -> tuple[Prefix, Array]:
        """The fit of a schedule, and (samples,) the dB of its final latents.

        Raises:
            SpectrumError: for run steps that do not begin with 0, ascend, and end before `steps`.
        """
        whole, errors = ended(self.rollouts, self._prefix(self._checked(runs)), self.steps, self.settings)
        return whole, decibels(errors, self.rollouts)

    def _prefix(self, runs: tuple[int, ...]) -> Prefix:
        """The fit of a schedule up to its last run step, from the longest beginning that is known."""
        if len(runs) == 1:
            return first(self.rollouts)
        if runs not in self._prefixes:
            before = self._prefix(runs[:-1])
            self._prefixes[runs] = extended(self.rollouts, before, runs[-1], self.settings)
        self._prefixes.move_to_end(runs)
        while len(self._prefixes) > 1 and sum(map(_newest_bytes, self._prefixes.values())) > KEPT:
            self._prefixes.popitem(last=False)
        return self._prefixes[runs]


def _newest_bytes(prefix: Prefix) -> int:
    """Bytes of what a prefix stored at its newest run step; what it stored before it shares with others."""
    newest = [own for part in prefix.features for (_, step), own in part.items() if step == prefix.runs[-1]]
    return sum(value.nbytes for own in newest for value in own.values())
