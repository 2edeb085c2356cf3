"""Ridge regression from normal equations that are added up sample by sample."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
RIDGES = tuple(float(ridge) for ridge in np.geomspace(1e-6, 1.0, 13))
"""The ridges that are tried, as a share of the mean diagonal of the normal matrix."""
FAR = (*RIDGES, 10.0, 100.0, 1000.0)
"""The ridges where what they pull towards is itself a fit, so that there is one that as good as stays there."""
RIDGE = 1e-2
"""The ridge where there is one sample alone, so that none can be left out."""
FOLDS = 8


def folds_of(prompts: NDArray[np.intp], most: int) -> list[NDArray[np.intp]]:
    """Shares samples into parts, so that all samples of a prompt are in the same one.

    Args:
        prompts: (samples,) the number of each sample's prompt.
        most: the number of parts; fewer where there are fewer prompts.

    Returns:
        Of each part the numbers of its samples.

    Example:
        >>> [fold.tolist() for fold in folds_of(np.array([0, 0, 1, 1, 2]), 2)]
        [[0, 1, 2, 3], [4]]
    """
    own = np.unique(prompts)
    return [np.flatnonzero(np.isin(prompts, part)) for part in np.array_split(own, min(most, len(own)))]


@dataclass(frozen=True)
class Normal:
    """The normal equations of some samples: minimise `||residual - J d||^2` over the changes `d` of the weights.

    Attributes:
        matrices: (samples, unknowns, unknowns) float64, `J^T J` of each sample.
        vectors: (samples, unknowns), `J^T residual`.
        residuals: (samples,), `||residual||^2`.
    """

    matrices: Array
    vectors: Array
    residuals: Array

    @classmethod
    def of(cls, responses: Array, residual: Array) -> "Normal":
        """From what each weight moves.

        Args:
            responses: (unknowns, samples, elements), by how much the latents move with each weight.
            residual: (samples, elements), by how much they are to move.
        """
        matrices = np.einsum("ise,jse->sij", responses, responses, optimize=True)
        vectors = np.einsum("ise,se->si", responses, residual, optimize=True)
        return cls(matrices, vectors, np.einsum("se,se->s", residual, residual))

    @classmethod
    def joined(cls, parts: Sequence["Normal"], rows: Sequence[int] | None = None) -> "Normal":
        """Those of the samples of several batches.

        Args:
            parts: of each batch.
            rows: numbers of the samples to take; None for all.
        """
        chosen = slice(None) if rows is None else list(rows)
        return cls(
            np.concatenate([part.matrices for part in parts])[chosen],
            np.concatenate([part.vectors for part in parts])[chosen],
            np.concatenate([part.residuals for part in parts])[chosen],
        )

    def losses(self, change: Array) -> Array:
        """(samples,) `||residual - J d||^2` of each sample."""
        return self.residuals - 2 * self.vectors @ change + np.einsum("i,sij,j->s", change, self.matrices, change)

    def tied(self, ties: Array) -> "Normal":
        """The same equations in fewer unknowns.

        Args:
            ties: (unknowns, fewer), the changes by the fewer ones.
        """
        matrices = np.einsum("ia,sij,jb->sab", ties, self.matrices, ties, optimize=True)
        return Normal(matrices, self.vectors @ ties, self.residuals)

    def relative(self, change: Array) -> "Normal":
        """The same equations, each sample's divided by its loss at some changes.

        Their sum then has the slope that the sum of the logarithms of the losses has there.
        """
        losses = np.maximum(self.losses(change), 1e-12 * self.residuals.max() + 1e-300)
        return Normal(self.matrices / losses[:, None, None], self.vectors / losses[:, None], self.residuals / losses)

    def solved(self, ridge: float, pull: Array, rows: NDArray[np.intp] | None = None) -> Array:
        """The changes `d` that minimise `||residual - J d||^2 + ridge t ||d - pull||^2`, `t` the mean diagonal.

        Args:
            ridge: the penalty.
            pull: (unknowns,) the changes that the ridge pulls towards.
            rows: the samples to use; all by default.
        """
        rows = np.arange(len(self.residuals)) if rows is None else rows
        matrix, vector = self.matrices[rows].sum(0), self.vectors[rows].sum(0)
        penalty = ridge * np.trace(matrix) / len(vector)
        # lstsq, for with no ridge the matrix of nearly equal features is singular.
        return pull + np.linalg.lstsq(matrix + penalty * np.eye(len(vector)), vector - matrix @ pull)[0]

    @property
    def condition(self) -> float:
        """The condition number of the normal matrix, without a ridge."""
        return min(float(np.linalg.cond(self.matrices.sum(0))), 1e300)


def best_ridge(
    normal: Normal, pull: Array, ridges: Sequence[float] = RIDGES, prompts: NDArray[np.intp] | None = None
) -> float:
    """The largest ridge that does on prompts left out of the fit, fold by fold, as well as the best within its error.

    What is compared is the mean logarithm of a sample's loss; the error is the standard error over the prompts of the
    mean difference.

    Args:
        normal: the normal equations of at least one sample.
        pull: see `Normal.solved`.
        ridges: those to choose from, ascending.
        prompts: (samples,) the number of each sample's prompt; None where each has its own.

    Returns:
        One of `ridges`; `RIDGE` where there is one prompt alone.
    """
    count = len(normal.residuals)
    prompts = np.arange(count) if prompts is None else prompts
    own = np.unique(prompts)
    if len(own) == 1:
        return RIDGE
    folds = folds_of(prompts, FOLDS)
    losses = np.zeros((len(ridges), count))
    for number, ridge in enumerate(ridges):
        for fold in folds:
            change = normal.solved(ridge, pull, np.setdiff1d(np.arange(count), fold))
            losses[number, fold] = normal.losses(change)[fold]
    logs = np.log(np.maximum(losses, 1e-12 * normal.residuals.max() + 1e-300))
    logs = np.stack([logs[:, prompts == prompt].mean(1) for prompt in own], 1)
    worse = logs - logs[logs.mean(1).argmin()]
    allowed = worse.mean(1) <= worse.std(1, ddof=1) / np.sqrt(len(own))
    return ridges[int(np.flatnonzero(allowed)[-1])]
