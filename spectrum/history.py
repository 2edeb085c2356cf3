"""The features stored at the steps that ran, and the only weighted sum over them."""

from collections.abc import Sequence

import torch
from torch import Tensor


class History:
    """Features of one CFG branch, oldest first, each with its step and its clock reading.

    Args:
        keep: how many of the newest features to hold; None holds all.
    """

    def __init__(self, keep: int | None = None) -> None:
        self.keep = keep
        self.times: list[float] = []
        self.features: list[Tensor] = []

    def add(self, time: float, feature: Tensor) -> None:
        """Store a feature of any shape, by reference: it must not be written to afterwards.

        A view of something larger, as image tokens of a joint sequence are, is copied, or it would keep all of that.
        """
        if feature.untyped_storage().nbytes() > feature.nbytes:
            feature = feature.clone(memory_format=torch.contiguous_format)
        self.times.append(time)
        self.features.append(feature)
        if self.keep is not None and len(self.times) > self.keep:
            del self.times[0], self.features[0]

    def combine(self, weights: Sequence[float]) -> Tensor:
        """`sum_i weights[i] * features[i]`, summed in float32, in the features' dtype and shape.

        Zero weights cost nothing. A single weight of one returns the stored tensor itself.
        """
        if len(weights) != len(self.features):
            raise ValueError(f"{len(weights)} weights for {len(self.features)} features")
        terms = [(float(w), f) for w, f in zip(weights, self.features, strict=True) if w != 0]
        if len(terms) == 1 and terms[0][0] == 1.0:
            return terms[0][1]
        newest = self.features[-1]
        total = torch.zeros(newest.shape, dtype=torch.promote_types(newest.dtype, torch.float32), device=newest.device)
        for weight, feature in terms:
            total.add_(feature, alpha=weight)
        return total.to(newest.dtype)

    @property
    def nbytes(self) -> int:
        """Bytes that the stored features hold."""
        return sum(f.numel() * f.element_size() for f in self.features)
