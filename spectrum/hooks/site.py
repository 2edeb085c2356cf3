"""What a site is: where a method stores what the denoiser computed, and puts the forecast at a skipped step."""

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from spectrum.hooks.step import DenoiserCall
from spectrum.hooks.tensors import copied


@dataclass
class SiteResult:
    """What came of one call of the denoiser.

    Attributes:
        ran: whether the blocks ran.
        output: what the denoiser returned.
        entry: what a residual is relative to; None where there is no single one.
        features: by slot what the blocks gave, or the forecast that took its place.
        stored: by slot what is to be stored: the features, or their difference to the entry. Empty at a skipped step.
    """

    ran: bool
    output: Any
    entry: Tensor | None
    features: dict[str, Tensor]
    stored: dict[str, Tensor] = field(default_factory=dict)

    def copied(self) -> "SiteResult":
        """The same in memory of its own."""
        return SiteResult(self.ran, *map(copied, (self.output, self.entry, self.features, self.stored)))


class Step(Protocol):
    """What a site asks of the current step: `CurrentStep`, or `SampleSteps` where each sample decides for itself."""

    def runs(self, front_residual: Tensor | None = None) -> bool:
        """Whether the blocks run."""
        ...

    def skipping(self) -> Tensor | None:
        """(rows,) bool, true for the rows that skip though the blocks run; None if there are none."""
        ...

    def forecast(self, slot: str) -> Tensor:
        """The forecast for one slot."""
        ...


def in_rows(skipping: Tensor, forecast: Tensor, computed: Tensor) -> Tensor:
    """`computed` with the forecast in the rows that skip, in the dtype of `computed`.

    Example:
        >>> in_rows(torch.tensor([True, False]), torch.tensor([[1.0], [2.0]]), torch.tensor([[5.0], [6.0]])).tolist()
        [[1.0], [6.0]]
    """
    mask = skipping.to(computed.device).reshape(-1, *[1] * (computed.ndim - 1))
    return torch.where(mask, forecast.to(computed.dtype), computed)


class CacheSite(Protocol):
    """What the hook needs of a site.

    Attributes:
        modules: by name the modules that it looks at.
    """

    modules: dict[str, nn.Module]

    def evaluate(self, call: DenoiserCall, step: Step) -> SiteResult:
        """Run the blocks, or put the forecast in their place, as `step.runs()` says."""
        ...

    def run_blocks(self, call: DenoiserCall) -> SiteResult:
        """Run the blocks."""
        ...

    def remove(self) -> None:
        """Take the site's own hooks off the denoiser."""
        ...
