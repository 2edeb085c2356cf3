"""Keeps the features in the memory of the host, where an accelerator has none to spare."""

from collections.abc import Sequence

import torch
from torch import Tensor

from spectrum.core.history import History, to_keep


class HostHistory(History):
    """The stored features in the host's memory, brought to their device one after the other for each forecast.

    On CUDA copies to the host and back are queued behind the denoiser's own work, so that Python waits for none. On the
    device a forecast takes the bytes of one feature, of the sum in float32 and of the
    result. On the host torch pins memory in blocks of a power of two, up to twice what the features have, and keeps it
    until the process ends. A CPU's own features are kept as they are.

    Args:
        max_features: how many of the newest features to hold; None holds all of them.

    Example:
        >>> history = HostHistory()
        >>> history.add(0.0, torch.tensor([1.0, 2.0]))
        >>> history.add(1.0, torch.tensor([3.0, 5.0]))
        >>> history.combine([-1.0, 2.0])
        tensor([5., 8.])
    """

    def _kept(self, feature: Tensor) -> Tensor:
        return to_keep(feature) if _is_of_host(feature.device) else _copied(feature)

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
        kind = self._kind
        if _is_of_host(kind.device):
            return super().combine(weights)
        if len(weights) != len(self.features):
            raise ValueError(f"{len(weights)} weights for {len(self.features)} features")
        total = torch.zeros(kind.shape, dtype=torch.promote_types(kind.dtype, torch.float32), device=kind.device)
        brought = torch.empty(kind.shape, dtype=kind.dtype, device=kind.device)
        for weight, feature in zip(weights, self.features, strict=True):
            if weight:
                brought.copy_(feature, non_blocking=brought.is_cuda)
                total.add_(brought, alpha=float(weight))
        return total.to(kind.dtype)


def _is_of_host(device: torch.device) -> bool:
    """Whether a device's memory is the host's."""
    return device.type == "cpu"


def _copied(feature: Tensor) -> Tensor:
    """A copy in the host's memory; of a feature on CUDA it is there once the device has come to it."""
    place = torch.empty(feature.shape, dtype=feature.dtype, pin_memory=feature.is_cuda)
    return place.copy_(feature, non_blocking=feature.is_cuda)
