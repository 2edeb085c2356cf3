"""Keeps weighted sums of the features in place of the features."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from spectrum.core.errors import refuse
from spectrum.core.history import History
from spectrum.core.spans import Basis
from spectrum.core.sums import CHUNK, ON_A_DEVICE, weighted_sum

EXACT = 1e-6
"""The share of a row of weights that may lie outside of what the sums give."""


class RunningSums(History):
    """The sums that `spectrum.core.spans.bases` asks for, in float32 (float64 for float64 features).

    They are brought up to date at each run step, a chunk at a time and in place, and every forecast is a weighted sum
    of them. How many there are does not grow with the number of runs: of Chebyshev polynomials of degree `M` it is
    `M + 1`.

    Args:
        bases: what later forecasts take after each number of runs.
        max_features: how many of the newest features the forecast is told of; None for all.

    Example:
        >>> from spectrum.core.spans import bases
        >>> line = RunningSums(bases(3, [[0.0, -1.0, 2.0], [0.0, -2.0, 3.0]]))
        >>> for step in range(3):
        ...     line.add(float(step), torch.full((2,), float(step)))
        >>> line.combine([0.0, -2.0, 3.0]).round().tolist(), line.nbytes
        ([4.0, 4.0], 16)
    """

    def __init__(self, bases: Sequence[Basis], max_features: int | None = None) -> None:
        super().__init__(max_features)
        self._bases = bases
        self._count = 0
        self._sums: Tensor | None = None

    def add(self, time: float, feature: Tensor) -> None:
        """Bring the sums up to date with the feature of a run step.

        Args:
            time: the clock's reading at this step.
            feature: a tensor of any shape. It is not kept.

        Raises:
            SpectrumError: for another shape, dtype or device than before, and for more run steps than were planned.
        """
        if self._count + 1 >= len(self._bases):
            refuse(f"more steps ran than the {len(self._bases) - 1} that were planned: type method.keep=features")
        self._note_kind(feature, self._count > 0)
        before, after = self._bases[self._count], self._bases[self._count + 1]
        self._count += 1
        self.times.append(time)
        if self.max_features is not None and len(self.times) > self.max_features:
            del self.times[0]
        if self._sums is None:
            most = max(map(len, self._bases))
            dtype = torch.promote_types(feature.dtype, torch.float32)
            self._sums = torch.zeros((most, feature.numel()), dtype=dtype, device=feature.device)
        self._update((after[:, :-1] @ before.T).tolist(), after[:, -1].tolist(), feature.reshape(-1))

    def _update(self, turn: list[list[float]], new: list[float], feature: Tensor) -> None:
        """Overwrite the sums `S` by `turn S + new F`."""
        assert self._sums is not None
        on_cpu = feature.device.type == "cpu"
        size = CHUNK * torch.get_num_threads() if on_cpu else ON_A_DEVICE
        for begin in range(0, len(feature), size):
            part = slice(begin, begin + size)
            terms = [*self._sums[: len(turn[0]) if turn else 0, part], feature[part].to(self._sums.dtype)]
            made = [weighted_sum([*row, own], terms) for row, own in zip(turn, new, strict=True)]
            for target, value in zip(self._sums[:, part], made, strict=False):
                target.copy_(value)

    def combine(self, weights: Sequence[float]) -> Tensor:
        """The forecast `sum_i weights[i] * features[i]`, worked out from the sums.

        Args:
            weights: one weight for each feature that the forecast was told of, oldest first.

        Returns:
            A tensor in the features' shape and dtype.

        Raises:
            ValueError: if there are not as many weights as features.
            SpectrumError: for weights that were not planned.
        """
        if len(weights) != len(self.times) or self._sums is None:
            raise ValueError(f"{len(weights)} weights for {len(self.times)} features")
        row = np.concatenate([np.zeros(self._count - len(weights)), weights])
        basis = self._bases[self._count]
        shares = basis @ row
        if np.linalg.norm(row - shares @ basis) > EXACT * max(1.0, float(np.linalg.norm(row))):
            refuse("a forecast asks for other weights than were planned: type method.keep=features")
        if not len(shares):
            return self._kind.zeros()
        found = weighted_sum(shares.tolist(), list(self._sums[: len(shares)]))
        return found.view(self._kind.shape).to(self._kind.dtype)

    @property
    def nbytes(self) -> int:
        """Bytes that the sums take."""
        return 0 if self._sums is None else self._sums.nbytes
