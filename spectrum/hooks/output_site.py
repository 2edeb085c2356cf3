"""The output site: stores and forecasts the denoiser's output, so that nothing of it runs at a skipped step."""

from typing import Any

from torch import Tensor, nn

from spectrum.core.errors import refuse
from spectrum.core.method import Method, Space
from spectrum.hooks.layout import Denoiser, Place
from spectrum.hooks.site import SiteResult, Step, in_rows
from spectrum.hooks.step import DenoiserCall
from spectrum.hooks.tensors import further_outputs, latents_of, sample_of, with_further_outputs, with_sample

OUTPUT = "output"
"""The slot of the sample; what a denoiser returns beside it is in `output 2`, `output 3`."""


class OutputSite:
    """Stores the denoiser's output, or in residual space the output minus the latents.

    Args:
        model: the denoiser.
        layout: not used: this site needs none.
        method: the method in force.
    """

    def __init__(self, model: nn.Module, layout: Denoiser | None, method: Method) -> None:
        self._model, self._residual = model, method.space is Space.residual
        self.modules: dict[str, nn.Module] = {}
        self._output_like: Any = None
        self._further: dict[str, Place] = {}
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
        entry = latents_of(call.inputs)
        found = {slot: step.forecast(slot) for slot in (OUTPUT, *self._further)}
        if self._residual:
            found[OUTPUT] = entry.to(found[OUTPUT].dtype) + found[OUTPUT]
        if result is None or skipping is None:
            return SiteResult(False, self._with(self._output_like, found), entry, found)
        mixed = {slot: in_rows(skipping, value, result.features[slot]) for slot, value in found.items()}
        return SiteResult(True, self._with(result.output, mixed), entry, mixed, result.stored)

    def _with(self, output: Any, values: dict[str, Tensor]) -> Any:
        """A denoiser's output with other tensors in it."""
        output = with_further_outputs(output, {place: values[slot] for slot, place in self._further.items()})
        return with_sample(output, values[OUTPUT])

    def run_blocks(self, call: DenoiserCall) -> SiteResult:
        """See `CacheSite`."""
        output, entry = call.run(), latents_of(call.inputs)
        sample = sample_of(output)
        further = further_outputs(output, [call.args, call.kwargs])
        self._further = {f"{OUTPUT} {number}": place for number, place in enumerate(further, 2)}
        found = {OUTPUT: sample, **{slot: further[place] for slot, place in self._further.items()}}
        self._output_like = self._with(output, {slot: value[:0] for slot, value in found.items()})
        if not self._residual:
            return SiteResult(True, output, entry, found, found)
        name = type(self._model).__name__
        if further:
            refuse(
                f"{name} returns {len(found)} tensors, of which only the first follows from the latents: type "
                "method.space=feature"
            )
        if entry.shape != sample.shape:
            refuse(
                f"{name} takes {tuple(entry.shape)} and returns {tuple(sample.shape)}, so there is no residual: type "
                "method.space=feature"
            )
        return SiteResult(True, output, entry, found, {OUTPUT: sample - entry.to(sample.dtype)})
