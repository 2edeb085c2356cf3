"""Frechet and kernel distances between two sets of features, in float64.

Features are rows, (pictures, columns); `eval.metrics.distribution` has the networks that make them.
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from spectrum.core.errors import refuse

Array = NDArray[np.float64]


class Moments:
    """Mean and covariance of features that come in batch by batch.

    Memory is that of one covariance: each batch is merged by the update of Chan et al. (1983). Only while there are
    fewer rows than columns are the rows themselves kept.

    Attributes:
        count: rows so far.

    Example:
        >>> found = Moments()
        >>> found.add(np.array([[0.0], [2.0]]))
        >>> found.add(np.array([[4.0]]))
        >>> found.count, found.mean.tolist(), (found.factor.T @ found.factor).round(9).tolist()
        (3, [2.0], [[4.0]])
    """

    def __init__(self) -> None:
        self.count = 0
        self._rows: list[Array] = []
        self._merged = 0
        self._mean: Array = np.zeros(0)
        self._scatter: Array = np.zeros((0, 0))

    def add(self, features: Tensor | Array) -> None:
        """Add a batch.

        Args:
            features: (rows, columns).

        Raises:
            SpectrumError: if any of them is NaN or infinite.
        """
        batch = np.asarray(features, dtype=np.float64)
        if not np.isfinite(batch).all():
            refuse("the features of some pictures are NaN or infinite: the pictures or the backbone are damaged")
        self.count += len(batch)
        self._rows.append(batch)
        if self.count >= batch.shape[1]:
            for rows in self._rows:
                self._merge(rows)
            self._rows = []

    def _merge(self, rows: Array) -> None:
        mean, n = rows.mean(0), len(rows)
        centred = rows - mean
        before = self._merged
        if not before:
            self._mean, self._scatter, self._merged = mean, centred.T @ centred, n
            return
        step = mean - self._mean
        self._scatter += centred.T @ centred + np.outer(step, step) * (before * n / (before + n))
        self._mean = self._mean + step * (n / (before + n))
        self._merged = before + n

    @property
    def mean(self) -> Array:
        """The mean of all rows, (columns,)."""
        return self._mean if self._merged else np.concatenate(self._rows).mean(0)

    @property
    def factor(self) -> Array:
        """A matrix `A` such that `A^T A` is the unbiased covariance, (columns or count, columns)."""
        if not self._merged:
            rows = np.concatenate(self._rows)
            return (rows - rows.mean(0)) / np.sqrt(self.count - 1)
        values, vectors = np.linalg.eigh(self._scatter / (self.count - 1))
        return np.sqrt(values.clip(min=0))[:, None] * vectors.T

    def principal_axes(self, count: int) -> Array:
        """The directions in which the rows vary most, as columns of length 1, the largest variance first.

        Args:
            count: how many; fewer than there are rows, and no more than there are columns.

        Returns:
            (columns, count).
        """
        return np.linalg.svd(self.factor, full_matrices=False)[2][:count].T


def frechet(a: Moments, b: Moments, axes: Array | None = None) -> float:
    """The Frechet distance of two Gaussians (Dowson and Landau 1982), of which FID is one (Heusel et al. 2017).

    It is `|mu_a - mu_b|^2 + tr(S_a) + tr(S_b) - 2 tr sqrt(S_a S_b)`. With `S_a = A^T A` and `S_b = B^T B`, the last
    trace is the sum of the singular values of `A B^T`, so no matrix root is needed.

    Args:
        a: mean and covariance of one set's features.
        b: those of the other.
        axes: orthonormal columns (columns, dimensions) on which both are projected first; None for no projection.

    Raises:
        SpectrumError: for fewer than two pictures in a set.

    Example:
        >>> a, b = Moments(), Moments()
        >>> a.add(np.array([[0.0], [2.0]]))
        >>> b.add(np.array([[3.0], [5.0]]))
        >>> round(frechet(a, b), 9)
        9.0
    """
    if min(a.count, b.count) < 2:
        refuse("a Frechet distance needs at least two pictures on either side")
    left, right, gap = a.factor, b.factor, a.mean - b.mean
    if axes is not None:
        left, right, gap = left @ axes, right @ axes, gap @ axes
    cross = np.linalg.svd(left @ right.T, compute_uv=False).sum()
    return float(gap @ gap + (left**2).sum() + (right**2).sum() - 2 * cross)


def kernel_distance(a: Array, b: Array, subsets: int = 100, size: int = 1000) -> tuple[float, float]:
    """The kernel distance KID (Binkowski et al. 2018).

    It is the unbiased squared maximum mean discrepancy under the kernel `(x.y / columns + 1)^3`.

    Args:
        a: one set's features, (rows, columns).
        b: the other's, with as many columns.
        subsets: how often rows are drawn, from a generator with a fixed seed.
        size: rows drawn from each set, without replacement; at most as many as the smaller set has.

    Returns:
        The mean and the standard deviation over the draws.

    Raises:
        SpectrumError: for fewer than two pictures in a set.
    """
    size, rng = min(size, len(a), len(b)), np.random.default_rng(0)
    if size < 2:
        refuse("KID needs at least two pictures on either side")
    values = []
    for _ in range(subsets):
        x, y = (rows[rng.choice(len(rows), size, replace=False)] for rows in (a, b))
        kxx, kyy, kxy = ((u @ v.T / u.shape[1] + 1) ** 3 for u, v in ((x, x), (y, y), (x, y)))
        within = (kxx.sum() - np.trace(kxx) + kyy.sum() - np.trace(kyy)) / (size * (size - 1))
        values.append(within - 2 * kxy.mean())
    return float(np.mean(values)), float(np.std(values))
