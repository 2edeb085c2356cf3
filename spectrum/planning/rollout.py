"""A batch of samples, its uncached trajectory, and rollouts of it with a schedule and weights."""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from spectrum.core.method import Site
from spectrum.core.planned import SHARED
from spectrum.planning.player import Features, GapWeights, Play, Player


class Rollouts:
    """One batch of samples, its uncached trajectory, and rollouts that are compared with it.

    Args:
        player: the pipeline.
        call: calls it for the batch, always with the same noise, and returns its pictures or videos.

    Attributes:
        player: see above.
        images: the uncached pictures or videos.
        reference: the uncached latents that each step is given, and those at the end, each (samples, elements) float32
            on the CPU.
        opening: what the uncached run stored at step 0, where every schedule begins.
        branches: the CFG branches, in the order in which the pipeline calls them.
        moves: (steps,) by how much the sigma changes at each step; at the last it falls to 0.
    """

    def __init__(self, player: Player, call: Callable[[], Any]) -> None:
        self.player, self._call = player, call
        play = Play(runs=range(sys.maxsize), keeps=0)
        self.reference: list[Tensor]
        self.images: Tensor
        latents, self.images = player.played(call, play, None)
        self.reference = [own[: self.count] for own in latents]
        self.opening = play.made
        self.branches = [branch for branch, _ in self.opening]
        self.moves = player.moves(self.steps)

    @property
    def steps(self) -> int:
        """Number of denoising steps."""
        return len(self.reference) - 1

    @property
    def count(self) -> int:
        """Number of samples; a pipeline that steps both CFG branches has them twice in its latents."""
        return len(self.images)

    @property
    def linear(self) -> bool:
        """Whether the latents are linear in the weights: where nothing of the denoiser follows the forecast."""
        return self.player.site is Site.output

    def latents(self, features: Features, weights: Mapping[int, GapWeights], ends: Sequence[int]) -> list[Tensor]:
        """The latents that some steps are given.

        Args:
            features: what was stored at the run steps before them.
            weights: the weights of every gap before them.
            ends: the steps, of which the last is the largest; the number of steps for the final latents.

        Returns:
            Of each step (samples, elements) float32 on the CPU.
        """
        latents, _ = self.player.played(self._call, Play(features, weights), ends[-1])
        return [latents[end][: self.count] for end in ends]

    @property
    def remembers(self) -> bool:
        """Whether the solver looks at what the denoiser gave at earlier steps, as UniPC, DPM-Solver++ and PNDM do."""
        return self.player.remembers

    def growth(self, step: int, off: Tensor) -> NDArray[np.float64]:
        """By how much an error has grown at the end, where every step from there on runs.

        Args:
            step: the step that is given latents with the error.
            off: (samples, elements) the error.

        Returns:
            (samples,) the norm of the final error over that of `off`.
        """
        reuse = {0: {SHARED: [1.0]}}
        play = Play(self.opening, reuse, range(step, self.steps), {}, -1, {step: self.reference[step] + off})
        final = self.player.played(self._call, play, self.steps)[0][-1][: self.count]
        return ((final - self.reference[-1]).norm(dim=1) / off.norm(dim=1)).double().numpy()

    def pictures(self, features: Features, weights: Mapping[int, GapWeights]) -> Tensor:
        """The pictures or videos of a whole schedule.

        Args:
            features: what was stored at its run steps.
            weights: the weights of every gap.
        """
        return self.player.played(self._call, Play(features, weights), None)[1]

    def run(self, features: Features, weights: Mapping[int, GapWeights], step: int) -> Features:
        """What the blocks give at a step: `features` and what is stored there.

        Args:
            features: what was stored at the run steps before it.
            weights: the weights of every gap before it.
            step: the step.
        """
        play = Play(features, weights, (step,))
        self.player.played(self._call, play, step + 1)
        return features | play.made
