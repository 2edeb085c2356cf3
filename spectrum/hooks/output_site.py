"""The output site: stores and forecasts the denoiser's output, so that nothing of it runs at a skipped step."""

from typing import Any

from torch import nn

from spectrum.core.errors import refuse
from spectrum.core.method import Method, Space
from spectrum.hooks.layout import Denoiser
from spectrum.hooks.site import SiteResult, Step, in_rows
from spectrum.hooks.step import DenoiserCall
from spectrum.hooks.tensors import latents_of, sample_of, with_sample

OUTPUT = "output"
"""The one slot of this site."""


class OutputSite:
    """Stores the denoiser's output, or in residual space the output minus the latents.

    Args:
        model: the denoiser.
        layout: its layout; not used.
        method: the method in force.
    """

    def __init__(self, model: nn.Module, layout: Denoiser, method: Method) -> None:
        self._model, self._residual = model, method.space is Space.residual
        self._output_like: Any = None
        if method.front_blocks:
            refuse("method.front_blocks goes with method.site=exit")

    def remove(self) -> None:
        """See `CacheSite`."""
        self._output_like = None

    def evaluate(self, call: DenoiserCall, step: Step) -> SiteResult:
        """See `CacheSite`."""
        runs = step.runs()
        skipping = step.skipping() if runs else None
        result = self.run_blocks(call) if runs else None
        if result is not None and skipping is None:
            return result
        entry, forecast = latents_of(call.inputs), step.forecast(OUTPUT)
        sample = entry.to(forecast.dtype) + forecast if self._residual else forecast
        if result is None or skipping is None:
            return SiteResult(False, with_sample(self._output_like, sample), entry, {OUTPUT: sample})
        mixed = in_rows(skipping, sample, result.features[OUTPUT])
        return SiteResult(True, with_sample(result.output, mixed), entry, {OUTPUT: mixed}, result.stored)

    def run_blocks(self, call: DenoiserCall) -> SiteResult:
        """See `CacheSite`."""
        output, entry = call.run(), latents_of(call.inputs)
        sample = sample_of(output)
        self._output_like = with_sample(output, sample[:0])
        if self._residual and entry.shape != sample.shape:
            refuse(
                f"{type(self._model).__name__} takes {tuple(entry.shape)} and returns {tuple(sample.shape)}, so there "
                "is no residual: type method.space=feature"
            )
        stored = sample - entry.to(sample.dtype) if self._residual else sample
        return SiteResult(True, output, entry, {OUTPUT: sample}, {OUTPUT: stored})
