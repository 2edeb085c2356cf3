"""The modules site: stores the output of every attention and MLP, as FORA and TaylorSeer were published."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from spectrum.core.errors import refuse
from spectrum.core.method import Method, Space
from spectrum.hooks.discovery import site_modules
from spectrum.hooks.layout import Denoiser
from spectrum.hooks.private_api import is_sharded
from spectrum.hooks.registry import attach, detach
from spectrum.hooks.site import SiteResult, Step
from spectrum.hooks.step import DenoiserCall


class ModuleSite:
    """At a skipped step the blocks run, with the forecasts in the place of their attentions and MLPs.

    There is a slot for each tensor that a module returns and each of its calls within one forward: CogView4 puts image
    and text through one MLP, one after the other.

    Args:
        model: the denoiser, uncompiled.
        layout: its layout, the stacks named.
        method: the method in force.
    """

    def __init__(self, model: nn.Module, layout: Denoiser, method: Method) -> None:
        if method.space is Space.residual or method.front_blocks:
            refuse(
                "method.site=modules stores what each module returns: type method.space=feature and "
                "method.front_blocks=0"
            )
        self._values: dict[str, Tensor] | None = None
        self._forecasts: Callable[[str], Tensor] | None = None
        self._used: dict[str, Tensor] = {}
        self._tensors_per_call: dict[str, int] = {}
        self._calls: dict[str, int] = {}
        self._zero_width: dict[str, Any] = {}
        stored, feeding = site_modules(model, layout.stacks)
        if not stored:
            refuse(f"{type(model).__name__} has no attention or MLP that could be found: type method.site=exit")
        self.modules = {**stored, **feeding}
        for name, module in stored.items():
            attach(module, self._around_stored(name), lambda: None)
        for name, module in feeding.items():
            attach(module, self._around_feeding(name), lambda: None)

    def remove(self) -> None:
        """See `CacheSite`."""
        for module in self.modules.values():
            detach(module)

    def evaluate(self, call: DenoiserCall, step: Step) -> SiteResult:
        """See `CacheSite`."""
        if step.runs():
            return self.run_blocks(call)
        return self._replaced(call, step.forecast)

    def replay(self, call: DenoiserCall, features: Mapping[str, Tensor]) -> SiteResult:
        """A skipped step with given features in the place of forecasts."""
        return self._replaced(call, features.__getitem__)

    def _replaced(self, call: DenoiserCall, forecast: Callable[[str], Tensor]) -> SiteResult:
        self._forecasts, self._calls, self._used = forecast, {}, {}
        try:
            return SiteResult(False, call.run(), None, self._used)
        finally:
            self._forecasts, self._used = None, {}

    def run_blocks(self, call: DenoiserCall) -> SiteResult:
        """See `CacheSite`."""
        self._values = values = {}
        self._calls = {}
        try:
            output = call.run()
        finally:
            self._values = None
        return SiteResult(True, output, None, values, values)

    def _forecast(self, slot: str) -> Tensor:
        assert self._forecasts is not None
        self._used[slot] = self._forecasts(slot)
        return self._used[slot]

    def _around_stored(self, name: str) -> Any:
        """What is called instead of a module whose output is stored."""

        def around(forward: Callable[..., Any], branch: str | None, args: Any, kwargs: Any) -> Any:
            self._calls[name] = self._calls.get(name, 0) + 1
            call = f"{name}.{self._calls[name]}"
            if self._forecasts is not None:
                parts = tuple(self._forecast(f"{call}.{part}") for part in range(self._tensors_per_call[call]))
                return parts if self._tensors_per_call[call] > 1 else next(iter(parts))
            output = forward(*args, **kwargs)
            if self._values is not None:
                parts = output if isinstance(output, tuple) else (output,)
                if any(is_sharded(part) for part in parts):
                    refuse(f"{name} is split over ranks, so its output here is only a part: type method.site=exit")
                self._tensors_per_call[call] = len(parts)
                self._values |= {f"{call}.{part}": value for part, value in enumerate(parts)}
            return output

        return around

    def _around_feeding(self, name: str) -> Any:
        """What is called instead of a module that only feeds a stored one: returns zero-width tensors when skipped."""

        def around(forward: Callable[..., Any], branch: str | None, args: Any, kwargs: Any) -> Any:
            if self._forecasts is not None:
                return self._zero_width[name]
            output = forward(*args, **kwargs)
            parts = output if isinstance(output, tuple) else (output,)
            empty = tuple(part.new_empty((*part.shape[:-1], 0)) for part in parts)
            self._zero_width[name] = empty if isinstance(output, tuple) else empty[0]
            return output

        return around
