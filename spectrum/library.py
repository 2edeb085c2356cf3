"""The library's face: put a caching method on a diffusers pipeline, and take it off again."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any

from spectrum.branch import Observation
from spectrum.clock import starts
from spectrum.context import detach, uncompiled
from spectrum.denoisers import Denoiser
from spectrum.errors import refuse
from spectrum.hook import CacheHook
from spectrum.method import Method, Plan, plan_method
from spectrum.schedule import Schedule

_ATTRIBUTE = "_spectrum"


class Accelerated:
    """A pipeline with a method on it; leaving the `with` block, or `restore`, undoes it.

    Attributes:
        method: the method in force.
        hooks: one hook per denoiser of the pipeline (Wan 2.2 has two).
    """

    def __init__(
        self,
        pipe: Any,
        method: Method,
        probe: bool = False,
        observe: Callable[[Observation], None] | None = None,
        denoiser: Denoiser | None = None,
    ) -> None:
        models = _as_called(pipe)
        self.pipe, self.method = pipe, method
        self.hooks: list[CacheHook] = []
        try:
            for model in models:
                hook = CacheHook(model, lambda: pipe.scheduler, method, probe, observe, denoiser)
                hook.on_start = functools.partial(self._free_others, hook)
                self.hooks.append(hook)
        except BaseException:
            self.restore()
            raise
        pipe.__dict__[_ATTRIBUTE] = self

    def plan(self, steps: int) -> Plan:
        """What the method will do over `steps` steps."""
        boundary = self.pipe.config.get("boundary_ratio")
        return plan_method(self.method, steps, starts=starts(self.pipe.scheduler, boundary, steps))

    def report(self) -> dict[str, Any]:
        """What it did in the latest call: per CFG branch the run steps, `sum w` and `|w|_1` per skipped step, bytes.

        Denoisers that take turns have a branch in common: their steps follow one another, and its bytes are those of
        the one that held most, since each frees what it stored when the next one begins.
        """
        merged: dict[str, Any] = {}
        for hook in self.hooks:
            for name, own in hook.report().items():
                known = merged.get(name)
                joined = own if known is None else {key: known[key] + value for key, value in own.items()}
                most = max(branch["cache_bytes"] for branch in (own, known) if branch)
                merged[name] = {**joined, "cache_bytes": most}
        return merged

    def _free_others(self, hook: CacheHook) -> None:
        for other in self.hooks:
            if other is not hook:
                other.reset()

    def restore(self) -> None:
        """Take the method off: the pipeline is as it was."""
        for hook in self.hooks:
            hook.remove()
        self.hooks = []
        if self.pipe.__dict__.get(_ATTRIBUTE) is self:
            del self.pipe.__dict__[_ATTRIBUTE]

    def __enter__(self) -> "Accelerated":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.restore()


def denoisers(pipe: Any) -> list[Any]:
    """The denoiser modules of a pipeline: its transformer(s), or its UNet. Of compiled ones what was compiled."""
    return [uncompiled(model) for model in _as_called(pipe)]


def _as_called(pipe: Any) -> list[Any]:
    found = [getattr(pipe, name, None) for name in ("transformer", "transformer_2", "unet")]
    models = [model for model in found if model is not None]
    if not models:
        refuse(f"{type(pipe).__name__} has no transformer or unet to put a caching method on")
    return models


def accelerate(
    pipe: Any,
    method: Method | str,
    *overrides: str,
    schedule: str | Sequence[int] | Schedule | None = None,
    denoiser: Denoiser | None = None,
) -> Accelerated:
    """Put a caching method on a diffusers pipeline.

    Args:
        pipe: any pipeline whose denoiser is a registered family, or that of `denoiser`.
        method: a `Method`, or the name of one: `"spectrum"`, `"taylorseer"`, `"teacache"` ...
        overrides: changes to a named method, as on the command line: `"method.blend=0.5"`, `"schedule.growth=3.0"`.
        schedule: another schedule than the method's own: a name, the list of steps that run, or a function.
        denoiser: the layout of a family that is not registered.

    Returns:
        A handle with `plan`, `report` and `restore`; it is a context manager too. What a named method needs fitted (the
        coefficients of TeaCache) is taken from what is kept for the pipeline's weights. Raises `SpectrumError` for a
        bad setting, an unregistered denoiser, or a pipeline that has a method already.
    """
    if isinstance(method, str):
        from spectrum.config import load_method
        from spectrum.pipeline import fitted_for

        words = list(overrides)
        if isinstance(schedule, str):
            words.append(f"schedule={schedule}")
        elif isinstance(schedule, Sequence):
            words += ["schedule=explicit", f"schedule.run_steps={list(schedule)}"]
        method = load_method(method, words, fitted_for(pipe))
    elif overrides or isinstance(schedule, (str, Sequence)):
        refuse("overrides and a named schedule go with a method's name; change the Method itself instead")
    if callable(schedule):
        method = replace(method, schedule=schedule)
    return Accelerated(pipe, method, denoiser=denoiser)


def restore(pipe: Any) -> None:
    """Undo `accelerate` on a pipeline; does nothing where there is nothing to undo."""
    handle = getattr(pipe, "__dict__", {}).get(_ATTRIBUTE)
    if handle is not None:
        handle.restore()
        return
    for model in _as_called(pipe):
        for module in model.modules():
            detach(module)
