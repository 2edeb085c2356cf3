"""The features stored at the steps that ran, and the one weighted sum over them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spectrum.core.errors import refuse
from spectrum.core.sums import weighted_sum


def to_keep(value: Tensor) -> Tensor:
    """The tensor itself, or a copy where it is a view: storing a view would keep the larger tensor alive."""
    if value.untyped_storage().nbytes() > value.nbytes:
        return value.clone(memory_format=torch.contiguous_format)
    return value


class Kind(NamedTuple):
    """What is alike in all features that are summed."""

    shape: torch.Size
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, feature: Tensor) -> "Kind":
        """The kind of a feature."""
        return cls(feature.shape, feature.dtype, feature.device)

    def __str__(self) -> str:
        return f"{'x'.join(map(str, self.shape))} {str(self.dtype).removeprefix('torch.')} on {self.device}"

    def zeros(self) -> Tensor:
        """Zeros of this kind."""
        return torch.zeros(self.shape, dtype=self.dtype, device=self.device)


class History:
    """The stored features of one CFG branch at one place in the denoiser, oldest first, with their clock readings.

    Args:
        max_features: how many of the newest features to hold; None holds all of them.

    Attributes:
        times: the clock's reading at each stored feature.
        features: the stored tensors, all of one shape and dtype.

    Example:
        >>> history = History(max_features=2)
        >>> for step in range(3):
        ...     history.add(float(step), torch.full((1, 2), float(step)))
        >>> history.times, history.combine([-1.0, 2.0]).tolist()
        ([1.0, 2.0], [[3.0, 3.0]])
    """

    def __init__(self, max_features: int | None = None) -> None:
        self.max_features = max_features
        self.times: list[float] = []
        self.features: list[Tensor] = []
        self._kind = Kind.of(torch.empty(0))

    def add(self, time: float, feature: Tensor) -> None:
        """Store a feature, and drop the oldest one if there are too many.

        The tensor is kept by reference, so it must not be written to afterwards. A view into a larger tensor (image
        tokens of a joint text-image sequence) is copied, because storing it would keep the larger one alive.

        Args:
            time: the clock's reading at this step.
            feature: a tensor of any shape.

        Raises:
            SpectrumError: for another shape, dtype or device than the features have that it is to be summed with.
        """
        self._note_kind(feature, bool(self.times) and self.max_features != 1)
        self.times.append(time)
        self.features.append(self._kept(feature))
        if self.max_features is not None and len(self.times) > self.max_features:
            del self.times[0], self.features[0]

    def _kept(self, feature: Tensor) -> Tensor:
        """What is kept of a feature."""
        return to_keep(feature)

    def _note_kind(self, feature: Tensor, as_before: bool) -> None:
        """Note a feature's kind, which with `as_before` has to be that of the one before: the two are to be summed."""
        before, self._kind = self._kind, Kind.of(feature)
        if as_before and before != self._kind:
            refuse(
                f"what is stored changed from {before} to {self._kind} in the middle of a run (guidance that ends "
                "early, tokens that are dropped): call the pipeline with one batch and size"
            )

    def combine(self, weights: Sequence[float]) -> Tensor:
        """The forecast `sum_i weights[i] * features[i]`.

        Args:
            weights: one weight for each stored feature, oldest first. Zero weights cost nothing.

        Returns:
            A tensor in the features' shape and dtype, summed in float32 (in float64 for float64 features). If the only
            weight that is not zero is one, it is the stored tensor itself.

        Raises:
            ValueError: if there are not as many weights as features.
        """
        if len(weights) != len(self.features):
            raise ValueError(f"{len(weights)} weights for {len(self.features)} features")
        terms = [(float(w), f) for w, f in zip(weights, self.features, strict=True) if w != 0]
        if len(terms) == 1 and terms[0][0] == 1.0:
            return terms[0][1]
        if not terms:
            return self._kind.zeros()
        return weighted_sum([weight for weight, _ in terms], [feature for _, feature in terms])

    def products(self, index: int) -> NDArray[np.float64]:
        """The inner products of a feature with each one up to it, oldest first, over all their elements in float64.

        Reads them from the device.

        Args:
            index: the feature's, from the oldest.
        """
        own = self.features[index].double().flatten()
        return torch.stack([own @ f.double().flatten() for f in self.features[: index + 1]]).cpu().numpy()

    @property
    def nbytes(self) -> int:
        """Bytes that the stored features take."""
        return sum(f.numel() * f.element_size() for f in self.features)
