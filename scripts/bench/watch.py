"""Times one call of a pipeline step by step, without making the host wait for the device in between."""

import itertools
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import nn

from spectrum.api import denoisers
from spectrum.hooks.replaced import replaced


class StoppedError(Exception):
    """Ends a call of a pipeline after the steps that were asked for."""


class Watch:
    """Marks the device's time at the ends of a denoiser's and a scheduler's calls.

    Args:
        pipe: a diffusers pipeline.
        steps: of its sampler.
        stop: after how many steps the call ends; None for all of them.
        parts: modules whose own time is marked too, by name.
        inside: whether the denoiser's calls are marked; not where it is compiled whole. The time then begins when the
            scheduler's timesteps are set.
        apart: the host waits for the device after each step, so that each begins with nothing queued.

    Attributes:
        seconds: wall time from the first call of a denoiser to the end of the last step, the device synchronised at
            both ends and nowhere between.
        host: the host's clock at the end of each step, in seconds.
    """

    def __init__(
        self,
        pipe: Any,
        steps: int,
        stop: int | None = None,
        parts: dict[str, nn.Module] | None = None,
        inside: bool = True,
        apart: bool = False,
    ) -> None:
        self._inside, self._apart = inside, apart
        self._pipe, self._stop, self._parts = pipe, stop or steps, parts or {}
        self._early = self._stop < steps
        self._cuda = pipe.device.type == "cuda"
        self.seconds = self._began = 0.0
        self.host: list[float] = []
        self._first: Any = None
        self._ends: list[Any] = []
        self._spans: list[dict[str, list[tuple[Any, Any]]]] = [defaultdict(list)]
        self._open: dict[str, Any] = {}

    @contextmanager
    def on(self) -> Iterator["Watch"]:
        """Watch what is called inside the `with` block; `StoppedError` ends there."""
        handles: list[Any] = []
        named = {f"denoiser {n}": model for n, model in enumerate(denoisers(self._pipe))} if self._inside else {}
        named |= self._parts
        for name, module in named.items():
            label = name.partition(" ")[0]
            handles.append(module.register_forward_pre_hook(lambda *_, at=label: self._enter(at)))
            handles.append(module.register_forward_hook(lambda *_, at=label: self._leave(at)))
        try:
            with ExitStack() as stack:
                stack.enter_context(replaced(self._pipe.scheduler, "step", self._step))
                if not self._inside:
                    stack.enter_context(replaced(self._pipe.scheduler, "set_timesteps", self._set))
                with suppress(StoppedError):
                    yield self
                self._synchronise()
        finally:
            for handle in handles:
                handle.remove()

    def _synchronise(self) -> None:
        if self._cuda:
            torch.cuda.synchronize()

    def _mark(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _set(self, original: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        self._begin()
        return result

    def _begin(self) -> None:
        self._synchronise()
        self._began = time.perf_counter()
        self._first = self._mark()

    def _enter(self, name: str) -> None:
        if not self._began:
            self._begin()
        self._open[name] = self._mark()

    def _leave(self, name: str) -> None:
        self._spans[-1][name].append((self._open.pop(name), self._mark()))

    def _step(self, original: Any, *args: Any, **kwargs: Any) -> Any:
        self._enter("scheduler")
        result = original(*args, **kwargs)
        self._leave("scheduler")
        self._ends.append(self._mark())
        if self._apart:
            self._synchronise()
        self.host.append(time.perf_counter() - self._began)
        self._spans.append(defaultdict(list))
        if len(self._ends) == self._stop:
            self._synchronise()
            self.seconds = time.perf_counter() - self._began
            if self._early:
                raise StoppedError
        return result

    def milliseconds(self) -> dict[str, list[float]]:
        """By name (`step`, `denoiser`, `scheduler`, the parts) the device's milliseconds in each step."""
        marks = [self._first, *self._ends]
        steps = [self._between(a, b) for a, b in itertools.pairwise(marks)]
        found: dict[str, list[float]] = {"step": steps}
        names = {name for spans in self._spans for name in spans}
        for name in sorted(names):
            found[name] = [
                round(sum(self._between(*pair) for pair in spans[name]), 4) for spans in self._spans[: len(steps)]
            ]
        return found

    def _between(self, start: Any, end: Any) -> float:
        return round(start.elapsed_time(end) if self._cuda else 1000 * (end - start), 4)
