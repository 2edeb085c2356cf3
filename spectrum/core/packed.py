"""Keeps the features in fewer bits than they have."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from spectrum.core.choices import Keep
from spectrum.core.errors import refuse
from spectrum.core.history import History, to_keep
from spectrum.core.sums import CHUNK, ON_A_DEVICE

FLOAT8 = torch.float8_e4m3fn
LARGEST = 448.0
"""The largest number of float8 (e4m3)."""


class PackedHistory(History):
    """The stored features rounded to bfloat16, or to eight bits with a scale for each channel of each sample.

    Of tensors of tokens, (samples, tokens, channels), channels are the last axis, and of pictures and videos, (samples,
    channels, height, width) or (samples, channels, frames, height, width), the second.

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
        super().add(time, feature)
        if len(self._scales) > len(self.times):
            del self._scales[0]

    def _kept(self, feature: Tensor) -> Tensor:
        packed, scale = _in_eight_bits(feature) if self._keep is Keep.float8 else (to_keep(feature.bfloat16()), None)
        self._scales.append(scale)
        return packed

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
        kind = self._kind
        if self._keep is Keep.bfloat16 and kind.dtype == torch.bfloat16:
            return super().combine(weights)
        if not terms:
            return kind.zeros()
        rows = [(w, packed if scale is not None else packed.reshape(1, -1, 1), scale) for w, packed, scale in terms]
        out = torch.empty(rows[0][1].shape, dtype=kind.dtype, device=kind.device)
        for part in _parts(out):
            total = torch.zeros(out[:, part].shape, dtype=torch.float32, device=out.device)
            for weight, packed, scale in rows:
                value = packed[:, part].float()
                total.add_(value if scale is None else value.mul_(scale), alpha=float(weight))
            out[:, part] = total
        return _out_of_rows(out, kind.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that the stored features and their scales take."""
        return super().nbytes + sum(scale.nbytes for scale in self._scales if scale is not None)


def _in_rows(tensor: Tensor) -> Tensor:
    """A tensor as (samples, rows, channels)."""
    tensor = tensor.movedim(1, -1) if tensor.ndim > 3 else tensor
    return tensor.reshape(len(tensor) if tensor.ndim > 2 else 1, -1, tensor.shape[-1] if tensor.ndim else 1)


def _out_of_rows(rows: Tensor, shape: torch.Size) -> Tensor:
    """Rows back in a shape, the channels in their place."""
    if len(shape) <= 3 or rows.shape[2] == 1:
        return rows.view(shape)
    return rows.view(shape[0], *shape[2:], shape[1]).movedim(-1, 1).contiguous()


def _in_eight_bits(feature: Tensor) -> tuple[Tensor, Tensor]:
    """A feature in float8 as (samples, rows, channels), and its scales (samples, 1, channels)."""
    rows = _in_rows(feature)
    scale = torch.maximum(rows.amax(1, keepdim=True), -rows.amin(1, keepdim=True)).float()
    scale = scale.clamp_min(torch.finfo(torch.float32).tiny * LARGEST) / LARGEST
    packed = torch.empty(rows.shape, dtype=FLOAT8, device=rows.device)
    for part in _parts(rows):
        packed[:, part] = (rows[:, part].float() / scale).to(FLOAT8)
    return packed, scale


def _parts(rows: Tensor) -> Iterator[slice]:
    """Slices of the rows of (samples, rows, channels), so that what is worked on at a time is small."""
    most = CHUNK * torch.get_num_threads() if rows.device.type == "cpu" else ON_A_DEVICE
    size = max(1, most // (len(rows) * rows.shape[2]))
    for begin in range(0, rows.shape[1], size):
        yield slice(begin, begin + size)
