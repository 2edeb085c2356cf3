"""Keeps the features in fewer bits than they have."""

from collections.abc import Sequence

import torch
from torch import Tensor

from spectrum.core.choices import Keep
from spectrum.core.errors import refuse
from spectrum.core.history import History
from spectrum.core.sums import CHUNK

FLOAT8 = torch.float8_e4m3fn
LARGEST = 448.0
"""The largest number of float8 (e4m3)."""


class PackedHistory(History):
    """The stored features rounded to bfloat16, or to eight bits with a scale for each channel of each sample.

    Samples are the first axis of three or more, channels the last.

    A forecast is summed in float32 and has the dtype that the features came in.

    Args:
        keep: `bfloat16` or `float8`.
        max_features: how many of the newest features to hold; None holds all of them.

    Example:
        >>> history = PackedHistory(Keep.float8)
        >>> history.add(0.0, torch.tensor([[3.0, -100.0], [1.5, 50.0]]))
        >>> history.combine([2.0]), history.nbytes
        (tensor([[   6., -200.],
                [   3.,  100.]]), 12)
    """

    def __init__(self, keep: Keep, max_features: int | None = None) -> None:
        super().__init__(max_features)
        self._keep = keep
        self._scales: list[Tensor | None] = []
        self._like = torch.empty(0)

    def add(self, time: float, feature: Tensor) -> None:
        """Round a feature and store it, and drop the oldest one if there are too many.

        Args:
            time: the clock's reading at this step.
            feature: a floating-point tensor of any shape.

        Raises:
            SpectrumError: for another shape, dtype or device than before, and for one that has no floating point.
        """
        if not feature.is_floating_point():
            refuse(f"method.keep={self._keep} rounds floating-point features, and these are {feature.dtype}")
        self.check_kind(self._like if self.times else None, feature)
        self._like = feature.new_empty(()).expand(feature.shape)
        packed, scale = feature.to(torch.bfloat16, memory_format=torch.contiguous_format, copy=True), None
        if self._keep is Keep.float8:
            rows = _in_rows(feature).float()
            scale = rows.abs().amax(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny * LARGEST) / LARGEST
            packed = (rows / scale).to(FLOAT8).view(feature.shape)
        self.times.append(time)
        self.features.append(packed)
        self._scales.append(scale)
        if self.max_features is not None and len(self.times) > self.max_features:
            del self.times[0], self.features[0], self._scales[0]

    def combine(self, weights: Sequence[float]) -> Tensor:
        """The forecast `sum_i weights[i] * features[i]`, of the rounded features.

        Args:
            weights: one weight for each stored feature, oldest first. Zero weights cost nothing.

        Returns:
            A tensor in the shape and the dtype that the features came in.

        Raises:
            ValueError: if there are not as many weights as features.
        """
        if len(weights) != len(self.features):
            raise ValueError(f"{len(weights)} weights for {len(self.features)} features")
        terms = [term for term in zip(weights, self.features, self._scales, strict=True) if term[0] != 0]
        result = torch.empty_like(self._like, memory_format=torch.contiguous_format)
        rows, out = [(w, _in_rows(packed), scale) for w, packed, scale in terms], _in_rows(result)
        on_cpu = out.device.type == "cpu"
        size = max(1, CHUNK * torch.get_num_threads() // (len(out) * out.shape[2])) if on_cpu else out.shape[1]
        for begin in range(0, out.shape[1], size):
            part = slice(begin, begin + size)
            total = torch.zeros(out[:, part].shape, dtype=torch.float32, device=out.device)
            for weight, packed, scale in rows:
                value = packed[:, part].float()
                total.add_(value if scale is None else value.mul_(scale), alpha=float(weight))
            out[:, part] = total
        return result

    @property
    def nbytes(self) -> int:
        """Bytes that the stored features and their scales take."""
        return super().nbytes + sum(scale.nbytes for scale in self._scales if scale is not None)


def _in_rows(tensor: Tensor) -> Tensor:
    """A tensor as (samples, rows, channels)."""
    return tensor.reshape(len(tensor) if tensor.ndim > 2 else 1, -1, tensor.shape[-1] if tensor.ndim else 1)
