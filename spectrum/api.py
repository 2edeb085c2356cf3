"""The library's interface: put a caching method on a diffusers pipeline, and take it off again."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from spectrum.core.errors import refuse
from spectrum.core.given_schedule import given_schedule
from spectrum.core.method import Method, Plan, plan_method
from spectrum.core.schedule import Schedule, needs_drift
from spectrum.hooks.hook import CacheHook
from spectrum.hooks.layout import Denoiser
from spectrum.hooks.private_api import uncompiled
from spectrum.hooks.registry import detach
from spectrum.hooks.scheduler import count_of_calls, starts
from spectrum.hooks.trajectory import Observation, merged
from spectrum.models.attached import attached, denoisers_as_called, named_denoisers
from spectrum.models.kept_plans import method_of
from spectrum.models.pipeline_plans import planned_method
from spectrum.models.watch import Told, unwatch, watch
from spectrum.records.plan_file import PlanFile, write_plan
from spectrum.records.sections import in_sections

_ATTRIBUTE = "_spectrum"


class Accelerated:
    """A pipeline with a method on it. Leaving the `with` block, or `restore`, takes the method off.

    Args:
        pipe: a diffusers pipeline.
        method: the method to put on it.
        probe: also run the blocks at skipped steps, and report how far each forecast was off.
        observe: told of every step at which the blocks ran.
        denoiser: the layout to use; without it the registered one, or else what a traced forward shows.
        check: prove the layout at the first run step.

    Attributes:
        pipe: the pipeline.
        method: the method in force.
        hooks: one hook for each denoiser of the pipeline (Wan 2.2 has two); empty once the method is off.

    Raises:
        SpectrumError: if the method cannot serve the pipeline's denoiser, or one is on it already.
    """

    def __init__(
        self,
        pipe: Any,
        method: Method,
        probe: bool = False,
        observe: Callable[[Observation], None] | None = None,
        denoiser: Denoiser | None = None,
        check: bool = True,
    ) -> None:
        self.pipe, self._denoiser = pipe, denoiser
        self._options = {"probe": probe, "observe": observe, "check": check}
        self._attach(method)

    def _attach(self, method: Method) -> None:
        self.method = method
        self.hooks = attached(self.pipe, method, CacheHook, self._denoiser, **self._options)
        self.pipe.__dict__[_ATTRIBUTE] = self
        watch(self.pipe, Told(self._call_begins, self._loop_begins, self._loop_ends, self._call_ends, self._check))

    @property
    def layout(self) -> Denoiser | None:
        """Where the denoiser's stacks and exits are; None before the first call where that is found by tracing it."""
        return self.hooks[0].layout if self.hooks else None

    def plan(self, steps: int) -> Plan:
        """What the method will do over `steps` denoising steps.

        Args:
            steps: number of denoising steps.

        Returns:
            The plan: run steps, weights of the skipped ones, features held.
        """
        boundary = self.pipe.config.get("boundary_ratio")
        scheduler = getattr(self.pipe, "scheduler", None)
        return plan_method(self.method, count_of_calls(scheduler, steps), starts=starts(scheduler, boundary, steps))

    def report(self) -> dict[str, Any]:
        """What the method did in the latest call of the pipeline, by CFG branch.

        Denoisers that take turns share a branch, whose bytes are those of the one that held most, since each frees what
        it stored when the next one begins. Those that are called at the same steps have branches of their own.

        A pipeline that samples section after section, as FramePack does, frees at each what the one before it stored;
        the branches of its later sections are named `section 2: ...`. Where the pipeline has no `check_inputs`, by
        which calls are told apart, this is its latest section.

        Returns:
            For each branch `run_steps` (where the blocks ran), `skipped` (the other steps, with `sum w` and `|w|_1`),
            `errors`, `cache_bytes`, and under `samples` the first three for each sample of the batch; one entry if all
            samples do the same.
        """
        self._check()
        named = [*zip(named_denoisers(self.pipe), (hook.reports() for hook in self.hooks), strict=False)]
        return in_sections(
            merged({name: reports[number] for name, reports in named if number < len(reports)})
            for number in range(max((len(reports) for _, reports in named), default=0))
        )

    def _call_begins(self, ends: bool) -> None:
        self._check()
        for hook in self.hooks:
            hook.begin_call(ends)

    def _loop_begins(self) -> None:
        self._check()
        for hook in self.hooks:
            hook.close()

    def _loop_ends(self) -> None:
        for hook in self.hooks:
            hook.reset()

    def _call_ends(self) -> None:
        for hook in self.hooks:
            hook.end_call()

    def _check(self) -> None:
        """Refuse a pipeline that has got another denoiser since, which runs without the method.

        Raises:
            SpectrumError: with what to type.
        """
        if not self.hooks or not isinstance(getattr(self.pipe, "components", None), dict):
            return
        if [hook.model for hook in self.hooks] != denoisers(self.pipe):
            refuse(
                f"{type(self.pipe).__name__} has another denoiser than the one that {self.method.name} was put on, and "
                "runs uncached: call restore(pipe) and accelerate(pipe, ...) again"
            )

    def fit(self, prompts: Sequence[str], runs: int, to: Path | str | None = None, **settings: Any) -> PlanFile:
        """Fit a plan on this pipeline, and put it in the place of the method that is on it.

        Args:
            prompts: what to fit on; none that results are judged on.
            runs: number of block runs.
            to: a file to keep the plan in.
            **settings: `steps`, `site`, `tries` and `batch`, see `spectrum.planning.pipeline.fit_pipeline`, and the
                arguments that the pipeline will be called with, such as `guidance_scale`, `height` and `width`.

        Returns:
            The plan.

        Raises:
            SpectrumError: for a budget that no schedule has, and prompts that are missing.
        """
        from spectrum.planning.pipeline import fit_pipeline

        if not self.hooks:
            refuse("the method was taken off this pipeline: call accelerate again, and fit on what it returns")
        if to is not None and (Path(to).is_dir() or not Path(to).absolute().parent.is_dir()):
            refuse(f"to={to} is no file that can be written: type to=FILE in a folder that is there")
        before = self.method
        self.restore()
        try:
            plan = fit_pipeline(self.pipe, prompts, runs, denoiser=self._denoiser, **settings)
            before = method_of(plan)
        finally:
            self._attach(before)
        if to is not None:
            write_plan(Path(to), plan)
        return plan

    def restore(self) -> None:
        """Take the method off: the pipeline is as it was."""
        for hook in self.hooks:
            hook.remove()
        self.hooks = []
        if getattr(self.pipe, "__dict__", {}).get(_ATTRIBUTE) is self:
            del self.pipe.__dict__[_ATTRIBUTE]
            unwatch(self.pipe)

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """A copy of a pipeline has no method on it."""

    def __reduce__(self) -> tuple[type, tuple[()]]:
        """A pickled pipeline has no method on it."""
        return type(None), ()

    def __repr__(self) -> str:
        method, on = self.method, type(self.pipe).__name__
        models = ", ".join(type(hook.model).__name__ for hook in self.hooks) or "nothing any more"
        when = "of time alone" if method.time_only else "decides by data"
        when = "weights by data" if method.time_only and method.weights_by_data else when
        when += ", its plan forced" if method.name == "planned" and method.fitted_sigmas is None else ""
        return f"<{method.name} on {on} ({models}): site {method.site}, space {method.space}, {when}>"

    def __enter__(self) -> "Accelerated":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.restore()


def denoisers(pipe: Any) -> list[Any]:
    """The denoiser modules of a pipeline, uncompiled: its transformer(s), or its UNet.

    Raises:
        SpectrumError: if it has none.
    """
    return [uncompiled(model) for model in denoisers_as_called(pipe)]


def accelerate(
    pipe: Any,
    method: Method | str,
    *overrides: str,
    runs: int | None = None,
    schedule: str | Iterable[int] | Schedule | None = None,
    denoiser: Denoiser | None = None,
    plan: Path | str | None = None,
    force: bool = False,
    check: bool = True,
) -> Accelerated:
    """Put a caching method on a diffusers pipeline.

    What a named method needs fitted (TeaCache's coefficients) is taken from what is kept for the pipeline's weights.

    Args:
        pipe: a pipeline with a transformer or a UNet, of any class.
        method: a `Method`, or the name of one: `"spectrum"`, `"taylorseer"`, `"teacache"`.
        overrides: changes to a named method, as on the command line: `"method.forecast.blend=0.5"`,
            `"schedule.growth=3.0"`.
        runs: ask a named method for this many block runs out of 50 steps: its schedule's parameter is looked up.
        schedule: another schedule than the method's own: a name, the steps that run (list, tuple, range, array or
            tensor of integers that start with 0 and ascend), or a function `(step, steps, runs) -> bool` of any
            argument names: the step asked about, the number of steps, and the steps that ran before it.
        denoiser: the layout to use. Without it that of a registered family is used, and else the first call is traced
            to find the stacks and the exits.
        plan: the file of a plan, for the method `"planned"`; with `runs` in its place that of the plan which is kept
            beside the pipeline's weights.
        force: apply the plan to a pipeline that it was not made for.
        check: prove the layout at the first run step: with the stored features put back all output must come out bit
            for bit, with no block called. Costs a call without blocks, and one for each module beside them.

    Returns:
        A handle with `plan`, `report` and `restore`, which is also a context manager.

    Raises:
        SpectrumError: for a bad setting, or a pipeline that has a method already. At the first call: for a layout that
            is not right, or a denoiser for which none can be found.

    Example:
        >>> import diffusers
        >>> from spectrum import accelerate
        >>> from spectrum.models.identity import EMBEDDED
        >>> pipe = diffusers.FluxPipeline.from_pretrained(EMBEDDED)
        >>> with accelerate(pipe, "spectrum", "schedule.growth=3.0") as handle:
        ...     handle.plan(50).runs
        [0, 1, 2, 3, 4, 6, 11, 19, 30, 44]
    """
    given = schedule is not None and not isinstance(schedule, str)
    if given and (runs is not None or any(word.startswith("schedule") for word in overrides)):
        refuse("schedule= takes the place of the method's own: leave out runs= and overrides of the schedule")
    if (plan is not None or force) and method != "planned":
        refuse("plan= and force= go with the method 'planned'")
    if method == "planned":
        if overrides or schedule is not None:
            refuse("a plan says how it runs: leave out overrides and schedule=")
        method = planned_method(pipe, runs, plan, force)
    elif isinstance(method, str):
        from spectrum.named_methods import named_method

        method = named_method(pipe, method, overrides, runs, schedule if isinstance(schedule, str) else None)
    elif overrides or runs is not None or isinstance(schedule, str):
        refuse("overrides, runs= and a named schedule go with a method's name; change the Method itself instead")
    elif not isinstance(method, Method):
        refuse(f"method={method!r} is neither a Method nor a name: type for example 'spectrum'")
    if given:
        own = given_schedule(schedule)
        fitted = method.fitted_steps if needs_drift(own) else None
        method = replace(method, schedule=own, fitted_steps=fitted)
    return Accelerated(pipe, method, denoiser=denoiser, check=check)


def restore(pipe: Any) -> None:
    """Undo `accelerate` on a pipeline. Does nothing where there is nothing to undo.

    Args:
        pipe: the pipeline.
    """
    handle = getattr(pipe, "__dict__", {}).get(_ATTRIBUTE)
    if handle is not None:
        handle.restore()
        return
    for model in denoisers_as_called(pipe):
        for module in model.modules():
            detach(module)
