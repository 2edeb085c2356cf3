"""The output site: stores and forecasts the denoiser's output, so that nothing of it runs at a skipped step."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from spectrum.core.errors import refuse
from spectrum.core.method import Method, Space
from spectrum.hooks.layout import Denoiser, Place
from spectrum.hooks.site import SiteResult, Step, in_rows
from spectrum.hooks.step import DenoiserCall
from spectrum.hooks.tensors import (
    argument_at,
    further_outputs,
    handed_through,
    latents_of,
    sample_of,
    with_further_outputs,
    with_sample,
)

OUTPUT = "output"
"""The slot of the sample; what a denoiser returns beside it is in `output 2`, `output 3`."""


@dataclass(frozen=True)
class Returned:
    """What a denoiser returns for one kind of call.

    Attributes:
        like: an output with empty tensors.
        further: by slot the places of what it returns beside its sample.
        through: by place the arguments that it returns as they are.
    """

    like: Any
    further: dict[str, Place]
    through: dict[Place, Place]

    def made(self, values: dict[str, Tensor], call: DenoiserCall, like: Any = None) -> Any:
        """An output of the forecasts `values`, with the arguments of a call where it returns them."""
        places = {place: values[slot] for slot, place in self.further.items()}
        places |= {place: argument_at(call.args, call.kwargs, own) for place, own in self.through.items()}
        return with_sample(with_further_outputs(self.like if like is None else like, places), values[OUTPUT])


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
        self._returned: dict[Any, Returned] = {}
        if method.front_blocks:
            refuse("method.front_blocks goes with method.site=exit")

    def remove(self) -> None:
        """See `CacheSite`."""
        self._returned.clear()

    def evaluate(self, call: DenoiserCall, step: Step) -> SiteResult:
        """See `CacheSite`."""
        runs = step.runs()
        skipping = step.skipping() if runs else None
        result = self.run_blocks(call) if runs else None
        if result is not None and skipping is None:
            return result
        entry, returned = latents_of(call.inputs), self._returned[call.kinds]
        found = {slot: step.forecast(slot) for slot in (OUTPUT, *returned.further)}
        if self._residual:
            found[OUTPUT] = entry.to(found[OUTPUT].dtype) + found[OUTPUT]
        if result is None or skipping is None:
            return SiteResult(False, returned.made(found, call), entry, found)
        mixed = {slot: in_rows(skipping, value, result.features[slot]) for slot, value in found.items()}
        return SiteResult(True, returned.made(mixed, call, result.output), entry, mixed, result.stored)

    def run_blocks(self, call: DenoiserCall) -> SiteResult:
        """See `CacheSite`."""
        kinds, entry = call.kinds, latents_of(call.inputs)
        output = call.run()
        sample, further = sample_of(output), further_outputs(output)
        through = handed_through(further, call.args, call.kwargs)
        own = [place for place in further if place not in through]
        slots = {f"{OUTPUT} {number}": place for number, place in enumerate(own, 2)}
        found = {OUTPUT: sample, **{slot: further[place] for slot, place in slots.items()}}
        # clones, since an empty slice would keep the whole output alive
        empty = with_further_outputs(output, {place: further[place][:0].clone() for place in further})
        self._returned[kinds] = Returned(with_sample(empty, sample[:0].clone()), slots, through)
        if not self._residual:
            return SiteResult(True, output, entry, found, found)
        name = type(self._model).__name__
        if slots:
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
