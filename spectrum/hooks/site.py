"""What a site is: where a method stores what the denoiser computed, and puts the forecast at a skipped step."""

from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from spectrum.hooks.step import CurrentStep, DenoiserCall


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


class CacheSite(Protocol):
    """What the hook needs of a site."""

    def evaluate(self, call: DenoiserCall, step: CurrentStep) -> SiteResult:
        """Run the blocks, or put the forecast in their place, as `step.runs()` says."""
        ...

    def run_blocks(self, call: DenoiserCall) -> SiteResult:
        """Run the blocks."""
        ...

    def remove(self) -> None:
        """Take the site's own hooks off the denoiser."""
        ...
