"""The one hook: at each call of a denoiser it runs the blocks, or puts a forecast in their place."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import nn

from spectrum.core.errors import SpectrumError, refuse
from spectrum.core.known import KnownWeights
from spectrum.core.method import Method, Site
from spectrum.core.sums import prepare
from spectrum.hooks import scheduler as schedulers
from spectrum.hooks.arguments import NamedArguments
from spectrum.hooks.branches import caller, find_branch
from spectrum.hooks.compiled import compiled_whole, uses_cuda_graphs
from spectrum.hooks.derive import layout_of_call
from spectrum.hooks.exit_site import EXIT
from spectrum.hooks.fit_check import check_fit, check_ranks, check_step
from spectrum.hooks.forecast_errors import note_errors, rows_in
from spectrum.hooks.keeping import keeping
from spectrum.hooks.layout import Denoiser, Source
from spectrum.hooks.others import LayerHooks, is_replaced, refuse_other_cache, refuse_readers, same_random_numbers
from spectrum.hooks.private_api import uncompiled
from spectrum.hooks.proof import proved
from spectrum.hooks.registry import attach, detach
from spectrum.hooks.samples import SampleSteps, rows_of, split
from spectrum.hooks.signals import signal_reader, token_grid
from spectrum.hooks.site import CacheSite, SiteResult, Step
from spectrum.hooks.site_of_method import site_of
from spectrum.hooks.step import CurrentStep, DenoiserCall
from spectrum.hooks.tensors import latents_of, sample_of, time_of
from spectrum.hooks.trajectory import Branch, Loops, Observation, Trajectory


class CacheHook:
    """Applies a `Method` to one denoiser until `remove` is called.

    Args:
        model: the denoiser, also as `torch.compile` returned it.
        layout: where its stacks and its exit are; None to find it at the first call.
        scheduler: returns the pipeline's scheduler, which says at which step the trajectory is.
        method: what to apply.
        probe: also run the blocks at each skipped step and record how far the forecast was off. Slow; the samples are
            those of the method all the same.
        observe: told of every step at which the blocks ran.
        check: prove the layout at each branch's first step, once for each kind of call: what has other shapes or
            settings may take another way through the forward.

    Attributes:
        layout: where its stacks and its exit are; None before the first call where it was not given.
        on_start: called with the scheduler's timesteps and the step when a trajectory begins.
        loops: the reports of the trajectories that are over.

    Raises:
        SpectrumError: if the method cannot serve this denoiser, or one is on it already.
    """

    def __init__(
        self,
        model: nn.Module,
        layout: Denoiser | None,
        scheduler: Callable[[], Any],
        method: Method,
        probe: bool = False,
        observe: Callable[[Observation], None] | None = None,
        check: bool = True,
    ) -> None:
        self._as_called, self.model = model, uncompiled(model)
        self.layout = None if layout is None else layout.with_stacks(self.model).serving(method)
        if self.layout is not None and compiled_whole(model):  # stand-ins that learn would be compiled once more
            self.layout = replace(self.layout, feeders=(), refiners=())
        if self.layout is not None:
            self.layout.check(self.model)
        self._check = check
        self._proved: set[Any] = set()
        self.method, self.probe, self.observe = method, probe, observe
        self.on_start: Callable[[Any, int], None] = lambda timesteps, step: None
        self._scheduler = scheduler
        self._arguments = NamedArguments(self.model)
        self._layers, self._graphs = LayerHooks(self.model), uses_cuda_graphs(model)
        self._trajectory: Trajectory | None = None
        self.loops = Loops()
        self._read_signal, self._site = None, None
        self._weights = KnownWeights(method)
        if compiled_whole(self._as_called) and (method.front_blocks or method.site is Site.modules):
            refuse(
                f"{method.name} works inside the denoiser, which is compiled whole: compile its blocks alone, "
                "pipe.transformer.compile_repeated_blocks()"
            )
        self._put_on()

    def _put_on(self) -> None:
        refuse_other_cache(self.model, self.method.name)
        self._plain_forward = attach(self._as_called, self._around, lambda: self.end_call(True), self._copied)
        try:
            if self.layout is not None or (self.method.site is Site.output and self.method.time_only):
                self._make_site(self.layout)
        except BaseException:
            detach(self._as_called)
            raise

    def _copied(self, copy: Callable[[nn.Module], Any]) -> Any:
        """A copy of the denoiser, which is to have no method on it; the trajectory ends."""
        self.remove()
        try:
            return copy(self.model)
        finally:
            self._put_on()

    def _make_site(self, layout: Denoiser | None) -> CacheSite:
        """The method's site, and what reads its signal. At the output a method of time alone needs no layout."""
        method = self.method
        self._proved.clear()
        self._read_signal = None
        if layout is not None and not method.time_only:
            self._read_signal = signal_reader(method.signal, self.model, layout)
        self._site = site_of(self.model, layout, method)
        return self._site

    def _derive(self, call: DenoiserCall) -> CacheSite:
        """Find the layout by tracing the call, and make the site."""
        with same_random_numbers(latents_of(call.inputs).device):
            self.layout = layout_of_call(self.model, call)
        return self._make_site(self.layout)

    def _renew_site(self) -> None:
        """Make the site anew if a module that it looks at was replaced, as a LoRA replaces those that it adapts."""
        if self._site is not None and self.layout is not None and is_replaced(self.model, self._site.modules):
            self._site.remove()
            self._site = None
            if self.layout.source is Source.traced:
                self.layout = None
            else:
                self.layout.check(self.model)
                self._make_site(self.layout)

    def remove(self) -> None:
        """Take the hook off and free what it stored."""
        detach(self._as_called)
        if self._site is not None:
            self._site.remove()
        self.reset()

    def reset(self) -> None:
        """End the trajectory: free its features, keep its report."""
        if self._trajectory is not None:
            self.loops.add(self._trajectory.report())
        self._trajectory = None

    def begin_call(self, ends: bool) -> None:
        """The pipeline is called: a trajectory that is under way is over. See `Loops.begin_call`."""
        self.reset()
        self.loops.begin_call(ends)

    def end_call(self, by_reset: bool = False) -> None:
        """The trajectory is over, and with it the pipeline's call. See `Loops.end_call`."""
        self.reset()
        self.loops.end_call(by_reset)

    def at(self, timesteps: Any, step: int) -> bool:
        """Whether a trajectory with these timesteps is under way and its newest step is this one."""
        current = self._trajectory
        return current is not None and current.timesteps is timesteps and current.newest == step

    def close(self) -> None:
        """The pipeline begins another loop: what comes does not go on from this trajectory."""
        if self._trajectory is not None:
            self._trajectory.closed = True

    @property
    def running(self) -> bool:
        """Whether a trajectory is under way, so that features are held."""
        return self._trajectory is not None

    def reports(self) -> list[dict[str, Any]]:
        """`Trajectory.report` of each loop of the pipeline's latest call, oldest first."""
        return self.loops.reports(self._trajectory)

    def report(self) -> dict[str, Any]:
        """`Trajectory.report` of the latest trajectory; empty before the first."""
        return (self.reports() or [{}])[-1]

    def _around(self, forward: Callable[..., Any], name: str | None, args: tuple[Any, ...], kwargs: Any) -> Any:
        """Called instead of the denoiser's forward. An error ends the trajectory, so that no state is left."""
        try:
            inputs = self._arguments(args, kwargs)
            call = DenoiserCall(forward, self._plain_forward, args, kwargs, inputs, self._layers.on())
            return self._evaluate(call, name)
        except BaseException as error:
            self.reset()
            if isinstance(error, SpectrumError):
                self._layers.take_off()
            raise

    def _evaluate(self, call: DenoiserCall, name: str | None) -> Any:
        """Find the step, let the site run or skip it, store what it gives; the denoiser's output."""
        if self.layout is not None and self.layout.only_fills(call.inputs):
            return call.run()
        scheduler = self._scheduler()
        mark = self._mark(scheduler, call)
        trajectory, index = self._trajectory_at(scheduler, mark.step, call), mark.step
        trajectory.mark = mark
        branch = self._branch_of(trajectory, name, call, index)
        spare = call.copied() if self._check and branch.last < 0 and call.kinds not in self._proved else None
        branch.last = index
        site = self._site or self._derive(call)
        result = site.evaluate(call, self.step_of(trajectory, branch, call))
        if trajectory.overwritten:
            result = result.copied()
        last = index == len(trajectory.times) - 1
        trajectory.finite.check(index, result.ran, sample_of(result.output), last)
        if spare is not None:
            result = self._prove(site, spare, result)
        if result.ran:
            self.store(trajectory, branch, call, result)
        if self.probe and any(not part.ran for part in branch.parts):
            note_errors(branch, result, site.run_blocks(call))
        return result.output

    def _prove(self, site: CacheSite, call: DenoiserCall, result: SiteResult) -> SiteResult:
        """Prove the layout with a copy of the call that just ran. At the output site there is none."""
        if self.layout is not None:
            with same_random_numbers(latents_of(call.inputs).device):
                result = proved(site, self.model, self.layout, call, result, compiled_whole(self._as_called))
            self._proved.add(call.kinds)
        return result

    def step_of(self, trajectory: Trajectory, branch: Branch, call: DenoiserCall) -> Step:
        """What the site asks at this step; from its second step on a branch knows its samples."""
        if self.method.by_sample and branch.samples is None and branch.runs:
            split(self.method, branch, latents_of(call.inputs))
        if not branch.samples:
            return CurrentStep(self.method, trajectory, branch, call, self._read_signal)
        rows = len(latents_of(call.inputs))
        return SampleSteps(self.method, trajectory, branch, call, self._read_signal, rows)

    def store(self, trajectory: Trajectory, branch: Branch, call: DenoiserCall, result: SiteResult) -> None:
        """Keep what a step that ran gives."""
        velocity = sample_of(result.output)
        for part in (part for part in branch.parts if part.ran):
            if self.method.forecast is not None:
                stored = {slot: value.detach() for slot, value in result.stored.items()}
                part.store(trajectory.times[branch.last], rows_in(stored, part))
            if not self.method.time_only:
                own = velocity if part.rows is None else rows_of(velocity, part.rows, len(velocity))
                part.remember_run(own.detach())
        if self.observe is not None:
            if result.entry is None or EXIT not in result.features:
                refuse(f"{self.method.name} stores at method.site={self.method.site}: only site=exit can be observed")
            inputs = {key: value for key, value in call.inputs.items() if key != "self"}
            self.observe(Observation(branch.name, branch.last, inputs, result.entry, result.features[EXIT], velocity))

    def _mark(self, scheduler: Any, call: DenoiserCall) -> schedulers.Mark:
        current = self._trajectory
        last = current.mark if current is not None and current.timesteps is scheduler.timesteps else None
        return schedulers.position(scheduler, time_of(call.inputs), last)

    def _trajectory_at(self, scheduler: Any, step: int, call: DenoiserCall) -> Trajectory:
        """The trajectory that a call belongs to: the current one, or a new one if the scheduler was set anew."""
        current = self._trajectory
        same = current is not None and current.timesteps is scheduler.timesteps
        if current is not None and same and step >= current.newest:
            return current
        check_ranks(self.method, self.model)
        suspect = current is not None and current.goes_on_in(scheduler, step)
        refuse_other_cache(self.model, self.method.name)
        refuse_readers(self.model, latents_of(call.inputs))
        self._renew_site()
        self._layers = LayerHooks(self.model)
        times, span = schedulers.readings(scheduler, self.method.clock)
        check_step(self.model, step, len(times))
        check_fit(self.method, scheduler, len(times))
        known = self._weights.on(times, span)
        levels = [] if self.method.time_only else schedulers.levels(scheduler)
        self.on_start(scheduler.timesteps, step)
        self.reset()
        graphs = self._graphs or uses_cuda_graphs(self._as_called)
        self._trajectory = Trajectory(
            scheduler.timesteps, times, span, levels, suspect=suspect, overwritten=graphs, known=known
        )
        return self._trajectory

    def _branch_of(self, trajectory: Trajectory, name: str | None, call: DenoiserCall, step: int) -> Branch:
        """The CFG branch that a call belongs to, a new one if it begins one."""
        inputs = call.inputs
        who = caller(type(self.model).__name__, name, call, self.layout)
        branch = find_branch(trajectory, who, step)
        if branch is None:
            prepare(latents_of(inputs).device)
            label = name or f"branch {len(trajectory.branches)}"
            if any(other.name == label for other in trajectory.branches):
                label = f"{label} from step {step}"
            needs_grid = self.method.correct is not None or not self.method.time_only
            grid = token_grid(self.model, inputs) if needs_grid else None
            branch = Branch(label, step, self.method.max_features, who.name, who.condition, who.kinds, grid)
            branch.keeping = keeping(self.method, trajectory, step)
            trajectory.branches.append(branch)
        return branch
