"""Times one call of a pipeline step by step, without making the host wait for the device in between."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from spectrum.api import denoisers
from spectrum.hooks.private_api import execution_device
from spectrum.hooks.replaced import replaced
from spectrum.hooks.scheduler import steps_again


class StoppedError(Exception):
    """Ends a call of a pipeline after the steps that were asked for."""


@dataclass(eq=False)
class Span:
    """The time between two marks, within one step.

    Attributes:
        label: what it is the time of.
        start: the device's time when it began: seconds, or an event of CUDA.
        inside: the span that it lies in; None at the top of a step.
        end: the device's time when it ended; None while it is open, and for good where an error ended it.
        range: its range in the profiler's trace, where that is wanted.
    """

    label: str
    start: Any
    inside: "Span | None"
    end: Any = None
    range: Any = None

    def lies_in(self, label: str) -> bool:
        """Whether a span of this label is around it."""
        return self.inside is not None and (self.inside.label == label or self.inside.lies_in(label))


class Watch:
    """Marks the device's time at the ends of a denoiser's and a scheduler's calls.

    Args:
        pipe: a diffusers pipeline.
        steps: of its sampler.
        stop: after how many steps the call ends; None for all of them.
        parts: modules whose own time is marked too, by name: the first word is the label, which several may share.
        inside: whether the denoiser's calls are marked; not where it is compiled whole. The time then begins when the
            scheduler's timesteps are set.
        apart: the host waits for the device after each step, so that each begins with nothing queued.
        whole: labels inside of which nothing else is marked.
        named: the name of each step in the profiler's trace, which then has a range for it and for every span; None
            leaves the trace alone.
        before_step: told once the number of each step before it begins, and after the last one the number of all.

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
        parts: Mapping[str, nn.Module] | None = None,
        inside: bool = True,
        apart: bool = False,
        whole: tuple[str, ...] = (),
        named: Callable[[int], str] | None = None,
        before_step: Callable[[int], None] = lambda step: None,
    ) -> None:
        self._inside, self._apart, self._whole, self._named = inside, apart, whole, named
        self._pipe, self._stop, self._parts = pipe, stop or steps, parts or {}
        self._early, self._before_step = self._stop < steps, before_step
        self._told, self._device = -1, execution_device(pipe)
        self.seconds = self._began = 0.0
        self.host: list[float] = []
        self._starts: list[Any] = []
        self._ends: list[Any] = []
        self._spans: list[list[Span]] = []
        self._open: list[Span] = []
        self._range: Any = None
        self._timesteps: Any = None
        self._left_at: int | None = None

    @property
    def _cuda(self) -> bool:
        return self._device.type == "cuda"

    @property
    def step(self) -> int:
        """The number of the step that is under way."""
        return len(self._ends)

    @contextmanager
    def on(self) -> Iterator["Watch"]:
        """Watch what is called inside the `with` block; `StoppedError` ends there."""
        handles: list[Any] = []
        named = {f"denoiser {n}": model for n, model in enumerate(denoisers(self._pipe))} if self._inside else {}
        for name, module in {**named, **self._parts}.items():
            label = name.partition(" ")[0]
            handles.append(module.register_forward_pre_hook(lambda *_, at=label: self.enter(at)))
            handles.append(module.register_forward_hook(lambda *_, at=label: self.leave(at)))
        try:
            with ExitStack() as stack:
                stack.enter_context(replaced(self._pipe.scheduler, "step", self._step))
                if not self._inside:
                    stack.enter_context(replaced(self._pipe.scheduler, "set_timesteps", self._set))
                with suppress(StoppedError):
                    yield self
                self._synchronise()
        finally:
            self._close_ranges()
            for handle in handles:
                handle.remove()

    def _synchronise(self) -> None:
        if self._device.type != "cpu":
            torch.accelerator.synchronize(self._device)

    def _mark(self) -> Any:
        if self._cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            return event
        self._synchronise()
        return time.perf_counter()

    def _set(self, original: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        self._begin()
        return result

    def _begin(self) -> None:
        """The first step begins, or the first of a further loop, as pipelines have them that sample in sections."""
        self._timesteps = self._pipe.scheduler.timesteps
        if self._ends:
            self._starts[-1] = self._mark()
            return
        self._synchronise()
        self._began = time.perf_counter()
        self._starts, self._spans = [], []
        self._next_step()

    def _next_step(self) -> None:
        self._tell()
        self._open_range()
        self._starts.append(self._mark())
        self._spans.append([])

    def _tell(self) -> None:
        if self.step > self._told:  # where the scheduler steps twice, a step begins twice
            self._told = self.step
            self._before_step(self.step)

    def enter(self, label: str) -> None:
        """Something begins whose time is marked under a label; it belongs to what is open."""
        if label == "denoiser" and self._inside and self._pipe.scheduler.timesteps is not self._timesteps:
            self._begin()
        around = self._open[-1] if self._open else None
        if not self._began or (around is not None and around.label in self._whole):
            return
        own = self._range_of(label)
        span = Span(label, self._mark(), around, range=own)
        self._spans[-1].append(span)
        self._open.append(span)

    def leave(self, label: str) -> None:
        """What was begun under a label ends, and with it what an error left open in it."""
        if not any(span.label == label for span in self._open):
            return
        end = self._mark()
        while True:
            span = self._open.pop()
            span.end = end
            if span.range is not None:
                span.range.__exit__(None, None, None)
            if span.label == label:
                return

    @contextmanager
    def marked(self, label: str) -> Iterator[None]:
        """Mark the time of what is done inside the `with` block."""
        self.enter(label)
        try:
            yield
        finally:
            self.leave(label)

    def _step(self, original: Any, *args: Any, **kwargs: Any) -> Any:
        if not self._began:  # another loop's step, before the denoiser is called
            return original(*args, **kwargs)
        again = steps_again(self._pipe.scheduler, self._left_at)
        with self.marked("scheduler"):
            result = original(*args, **kwargs)
        self._left_at = getattr(self._pipe.scheduler, "step_index", None)
        if again:
            self._go_on_with_the_step_before()
        self._ends.append(self._mark())
        self._close_ranges()
        if self._apart:
            self._synchronise()
        self.host.append(time.perf_counter() - self._began)
        if self.step == self._stop:
            self._synchronise()
            self.seconds = time.perf_counter() - self._began
            if self._early:
                self._tell()
                raise StoppedError
        self._next_step()
        return result

    def _go_on_with_the_step_before(self) -> None:
        """The pipeline steps its scheduler once more for the same step: what came since then belongs to it."""
        if self._ends:
            self._ends.pop()
            self.host.pop()
            self._starts.pop()
            self._spans[-2:] = [[*self._spans[-2], *self._spans[-1]]]

    def _range_of(self, label: str) -> Any:
        if self._named is None:
            return None
        made = torch.profiler.record_function(label)
        made.__enter__()
        return made

    def _open_range(self) -> None:
        if self._named is not None:
            self._range = self._range_of(self._named(self.step))

    def _close_ranges(self) -> None:
        for span in reversed(self._open):
            if span.range is not None:
                span.range.__exit__(None, None, None)
        self._open.clear()
        if self._range is not None:
            self._range.__exit__(None, None, None)
        self._range = None

    def _steps(self) -> Iterator[tuple[float, list[Span]]]:
        """The milliseconds of each step, and its spans."""
        for start, end, spans in zip(self._starts, self._ends, self._spans, strict=False):
            yield self._between(start, end), [span for span in spans if span.end is not None]

    def milliseconds(self) -> dict[str, list[float]]:
        """By name (`step`, `denoiser`, `scheduler`, the parts) the device's milliseconds in each step."""
        steps = list(self._steps())
        found: dict[str, list[float]] = {"step": [round(spent, 4) for spent, _ in steps]}
        for name in sorted({span.label for _, spans in steps for span in spans}):
            outermost = [[s for s in spans if s.label == name and not s.lies_in(name)] for _, spans in steps]
            found[name] = [round(sum(self._between(s.start, s.end) for s in spans), 4) for spans in outermost]
        return found

    def own_milliseconds(self) -> list[dict[str, float]]:
        """For each step by label the milliseconds that lie in no other span: with `loop`, the rest, they add up.

        Returns:
            One entry for each step.
        """
        found = []
        for spent, spans in self._steps():
            own: dict[str, float] = {}
            for span in spans:
                length = self._between(span.start, span.end)
                own[span.label] = own.get(span.label, 0.0) + length
                if span.inside is not None:
                    own[span.inside.label] = own.get(span.inside.label, 0.0) - length
            found.append({**own, "loop": spent - sum(own.values())})
        return found

    def _between(self, start: Any, end: Any) -> float:
        return start.elapsed_time(end) if self._cuda else 1000 * (end - start)
