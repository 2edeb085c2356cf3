"""Fits plans on a model's calibration prompts, for `spectrum fit` and the studies of plans."""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eval.statistics import interval
from spectrum.bench.prompts import numbered_samples, read_prompts
from spectrum.bench.provenance import environment
from spectrum.bench.sampling import sample_batch
from spectrum.bench.sources import sources_digest
from spectrum.config.methods import build_method, method_config
from spectrum.config.sampling import Sampling
from spectrum.config.schema import RunConfig
from spectrum.config.targets import bound_function
from spectrum.core.clock import Clock
from spectrum.core.errors import refuse
from spectrum.core.forecast import Forecast, Weights, newton, reuse
from spectrum.core.method import Method, Site
from spectrum.core.weights import checked_weights
from spectrum.hooks.scheduler import readings
from spectrum.models.kept_plans import setting_of
from spectrum.models.pipeline_plans import setting_of_pipeline
from spectrum.models.pipelines import device_of
from spectrum.planning.evaluate import Evaluate
from spectrum.planning.gain import products_of
from spectrum.planning.gap import Settings
from spectrum.planning.journal import Journal
from spectrum.planning.local import LOCAL, local_weights
from spectrum.planning.make import as_file, make
from spectrum.planning.planners import check_budget, check_steps, given
from spectrum.planning.player import Player
from spectrum.planning.published import rule
from spectrum.planning.rollout import Rollouts
from spectrum.planning.spread import spread
from spectrum.records.files import identity
from spectrum.records.plan_file import FITTED, PlanFile, Setting

WITHOUT_SCORES = (given, rule)
"""Planners that score nothing, so that what they refuse is known before anything is sampled."""
Begin = Callable[[str, int, str], Callable[[int], None]]
"""Called with a stage's name, its number of parts and what they are; what it returns is told how many more are done."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a plan is asked to be.

    Attributes:
        runs: number of run steps.
        site: where features are stored.
        memory: how many of the newest run steps a forecast uses; None for all.
        shared: whether the CFG branches share their weights.
        seed: of the planner.
        forecast: where the weights come from: `fitted`, `local`, or a method whose forecast gives them.
        judge: whether it is found out what the plan is worth.
    """

    runs: int
    site: Site = Site.output
    memory: int | None = 3
    shared: bool = True
    seed: int = 0
    forecast: str = FITTED
    judge: bool = True

    @property
    def scored(self) -> list[Any]:
        """What of it the score of a schedule depends on."""
        return [str(self.site), self.memory, self.shared, self.forecast]


def forecast_of(name: str, sigmas: Sequence[float] = ()) -> Forecast:
    """The forecast of a method, on the step clock, for plans that take their weights from it.

    Where there are fewer run steps than its polynomials have coefficients, which its own schedule does not let happen,
    their degree is as high as the run steps allow.

    Args:
        name: a file of `configs/method`.
        sigmas: (steps,) of the run, for a method on the sigma clock.

    Raises:
        SpectrumError: for a method whose forecast is no weighted sum that the run steps alone determine.
    """
    config = method_config(name)
    method, target = config.method, str((config.method.forecast or {}).get("_target_", ""))
    if method.forecast is None or method.correct is not None or method.clock == Clock.timestep or "planned" in target:
        refuse(
            f"forecast={name}: its weights do not follow from the run steps; type a method such as fora or taylorseer"
        )
    always = {"_target_": "spectrum.core.schedule.always"}
    built = build_method(dataclasses.replace(method, drift=None), always)
    degree = (method.forecast or {}).get("degree")
    found = built.forecast
    assert found is not None
    if built.weights_by_data:
        refuse(f"forecast={name}: its weights follow from each sample's features, so no plan can have them")
    if built.clock is Clock.sigma:
        return _by_sigma(built, [*sigmas, 0.0])
    if degree is None:
        return found

    def lowered(times: Sequence[float], target: float, span: tuple[float, float]) -> Weights:
        if len(times) == 1:
            return reuse(times, target, span)
        own: Any = functools.partial(found, **{"degree": min(degree, len(times) - 1)})
        return own(times, target, span)

    return lowered


def _by_sigma(method: Method, grid: Sequence[float]) -> Forecast:
    """The forecast of a method on the sigma clock, as one on the step clock of a run that steps along `grid`."""

    def weights(times: Sequence[float], target: float, span: tuple[float, float]) -> Weights:
        readings = [grid[int(time)] for time in (*times, target)]
        return np.array(checked_weights(method, readings[:-1], readings[-1], (0.0, max(grid)), readings=grid))

    return weights


class _Batch(NamedTuple):
    """Samples that a pipeline is called for at once."""

    player: Player
    call: Callable[[], Any]
    samples: int


class Fitting:
    """The samples that a model's plans are fitted on, sampled uncached once, until the `with` block ends.

    Args:
        config: the model, the prompts and the batch size.
        pipes: its pipeline, with nothing on it; several on as many devices share the batches.
        site: where features are stored.
        begin: begins a stage of the progress.

    Raises:
        SpectrumError: for prompts that cannot be read, and a pipeline that steps otherwise than asked.
    """

    def __init__(self, config: RunConfig, pipes: Sequence[Any], site: Site, begin: Begin) -> None:
        self._config, self._begin, self.site = config, begin, site
        self._sampling = Sampling.of(config)
        self._prompts = read_prompts(config.prompts)
        samples = numbered_samples(self._prompts, config.seeds)
        self._size = config.batch or config.model.batch
        with contextlib.ExitStack() as stack:
            players = [stack.enter_context(Player(pipe, site)) for pipe in pipes]
            uncached = begin("uncached", len(samples), "samples")
            batches = []
            for number, first in enumerate(range(0, len(samples), self._size)):
                at, batch = number % len(pipes), samples[first : first + self._size]
                call = functools.partial(sample_batch, pipes[at], batch, self._sampling)
                batches.append(_Batch(players[at], call, len(batch)))

            def sampled(batch: _Batch) -> Rollouts:
                found = Rollouts(batch.player, batch.call)
                uncached(batch.samples)
                return found

            self._rollouts = spread(sampled, batches)
            check_steps(self._rollouts[0].steps, self._sampling.steps)
            self._setting = _setting(config, pipes[0])
            self._players = stack.pop_all()

    def __enter__(self) -> "Fitting":
        return self

    def __exit__(self, *error: Any) -> None:
        self._players.close()

    def plan(self, planner: dict[str, Any], asked: Asked, journals: Path | None) -> PlanFile:
        """Fit a plan.

        Args:
            planner: the planner's config.
            asked: what the plan is asked to be, at this site.
            journals: a folder for a file of what was scored, so that a broken fit goes on, and another budget or
                planner does not sample it again; None for none.

        Raises:
            SpectrumError: for a budget that no schedule has, and a planner with unknown parameters.
        """
        config, steps = self._config, self._sampling.steps
        check_budget(steps, asked.runs)
        function = bound_function(planner, "planner", "the planner lacks a parameter: type planner=NAME")
        fit = asked.forecast == FITTED
        scored = self._begin("schedules", _scores(planner, steps, asked.runs), "schedules")
        evaluate = self.evaluate(asked, journals, lambda: scored(1))
        search = functools.partial(function, steps=steps, runs=asked.runs, seed=asked.seed)
        made = make(evaluate, search, lambda folds: self._begin("left out", folds, "folds"), asked.judge and fit)
        half = interval(made.left_out.tolist(), len(config.seeds))[1]
        planned_by = {**{k: v for k, v in planner.items() if k != "_partial_"}, "seed": asked.seed}
        made_with = environment(device_of(config.device.partition(",")[0]))
        half = half if math.isfinite(half) else None
        return as_file(made, asked.site, self._setting, self._prompts, planned_by, made_with, half, asked.forecast)

    def evaluate(self, asked: Asked, journals: Path | None, scored: Callable[[], None] = lambda: None) -> Evaluate:
        """What scores schedules for a plan by sampling with them.

        Args:
            asked: what the plan is asked to be, at this site.
            journals: see `plan`.
            scored: called after each schedule that was scored.
        """
        fit = asked.forecast == FITTED
        settings = Settings(
            memory=asked.memory,
            shared=asked.shared,
            fit=fit,
            prior=newton if fit else self._forecast(asked.forecast),
            seeds=len(self._config.seeds),
        )
        return Evaluate(self._rollouts, settings, self._journal(asked, journals), scored)

    def _forecast(self, name: str) -> Callable[[Sequence[float], float, tuple[float, float]], Any]:
        """The forecast that a plan takes its weights from."""
        if name != LOCAL:
            return forecast_of(name, self._setting.sigmas)
        return local_weights(products_of(self._rollouts), self._rollouts[0].moves)

    def _journal(self, asked: Asked, journals: Path | None) -> Journal:
        """The journal of all that changes a score."""
        config = self._config
        whole = [dataclasses.asdict(config.model), dataclasses.asdict(self._setting), config.device]
        about = identity([*whole, sources_digest(), *asked.scored, self._prompts, config.seeds, self._size])
        return Journal(None if journals is None else journals / f"{config.model.name}-{about}.journal", about)


def _scores(planner: dict[str, Any], steps: int, runs: int) -> int:
    """About how many schedules and beginnings of schedules a planner scores, for the progress."""
    beginnings = planner.get("width", 0) * (runs - 1) * (steps - runs + 1)
    return max(1, beginnings + planner.get("tries", 0) + planner.get("iterations", 0))


def fit_plans(
    config: RunConfig, pipes: Sequence[Any], asked: Sequence[Asked], journals: Path | None, begin: Begin
) -> Iterator[PlanFile]:
    """Fit plans from the same uncached runs, one after the other.

    Args:
        config: the model, the prompts, the planner, and the batch size.
        pipes: see `Fitting`.
        asked: what each plan is asked to be, all at one site.
        journals: see `Fitting.plan`.
        begin: begins a stage of the progress.

    Raises:
        SpectrumError: see `Fitting`; for a wrong budget and planner before anything is sampled.
    """
    planner = config.planner or {}
    steps = Sampling.of(config).steps
    function: Any = bound_function(planner, "planner", "the planner lacks a parameter: type planner=NAME")
    for own in asked:
        check_budget(steps, own.runs)
        if function.func in WITHOUT_SCORES:
            function(None, steps=steps, runs=own.runs, seed=own.seed)
    with Fitting(config, pipes, asked[0].site, begin) as fitting:
        for own in asked:
            yield fitting.plan(planner, own, journals)


def _setting(config: RunConfig, pipe: Any) -> Setting:
    """What a plan is fitted for, with the grid of sigmas that the pipeline has just sampled on."""
    sigmas, _ = readings(pipe.scheduler, Clock.sigma)
    weights = setting_of_pipeline(pipe, config.model.steps).weights
    solver = type(pipe.scheduler).__name__
    return dataclasses.replace(setting_of(config.model), solver=solver, sigmas=sigmas, weights=weights)
