"""Keeps the features in the memory of the host, where an accelerator has none to spare."""

from collections.abc import Sequence

import torch
from torch import Tensor

from spectrum.core.history import History, to_keep


class HostHistory(History):
    """The stored features in the host's memory, brought to their device one after the other for each forecast.

    What is copied there and back is queued on the device behind the denoiser's own work, from pinned memory on CUDA, so
    that Python waits for no copy. On the device a forecast takes one feature and its sum, in float32. Features of a CPU
    are kept as they are.

    Args:
        max_features: how many of the newest features to hold; None holds all of them.

    Example:
        >>> history = HostHistory()
        >>> history.add(0.0, torch.tensor([1.0, 2.0]))
        >>> history.add(1.0, torch.tensor([3.0, 5.0]))
        >>> history.combine([-1.0, 2.0])
        tensor([5., 8.])
    """

    def __init__(self, max_features: int | None = None) -> None:
        super().__init__(max_features)
        self._like = torch.empty(0)

    def add(self, time: float, feature: Tensor) -> None:
        """Copy a feature to the host, and drop the oldest one if there are too many.

        Args:
            time: the clock's reading at this step.
            feature: a tensor of any shape.

        Raises:
            SpectrumError: for another shape, dtype or device than before.
        """
        self.check_kind(self._like if self.times and self.max_features != 1 else None, feature)
        self._like = feature.new_empty(()).expand(feature.shape)
        self.times.append(time)
        self.features.append(to_keep(feature) if _is_there(feature) else _copied(feature))
        if self.max_features is not None and len(self.times) > self.max_features:
            del self.times[0], self.features[0]

    def combine(self, weights: Sequence[float]) -> Tensor:
        """The forecast `sum_i weights[i] * features[i]`.

        Args:
            weights: one weight for each stored feature, oldest first. Zero weights cost nothing.

        Returns:
            A tensor in the features' shape and dtype, on their device, summed in float32 (in float64 for float64
            features).

        Raises:
            ValueError: if there are not as many weights as features.
        """
        if len(weights) != len(self.features):
            raise ValueError(f"{len(weights)} weights for {len(self.features)} features")
        if _is_there(self._like):
            return super().combine(weights)
        like = self._like
        total = torch.zeros(like.shape, dtype=torch.promote_types(like.dtype, torch.float32), device=like.device)
        brought = torch.empty_like(like, memory_format=torch.contiguous_format)
        for weight, feature in zip(weights, self.features, strict=True):
            if weight:
                brought.copy_(feature, non_blocking=True)
                total.add_(brought, alpha=float(weight))
        return total.to(like.dtype)


def _is_there(feature: Tensor) -> bool:
    """Whether a feature lies in the host's memory as it comes."""
    return feature.device.type == "cpu"


def _copied(feature: Tensor) -> Tensor:
    """A copy in the host's memory, which is there once the device has come to it."""
    place = torch.empty(feature.shape, dtype=feature.dtype, pin_memory=feature.is_cuda)
    return place.copy_(feature, non_blocking=feature.is_cuda)
