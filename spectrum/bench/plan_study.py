"""Studies of plans: each row fits a plan on calibration prompts and samples the held-out prompts with it."""

import functools
import io
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spectrum.api import Accelerated
from spectrum.bench.fitting import Asked, Begin, Fitting
from spectrum.bench.prompts import numbered_samples, read_prompts
from spectrum.bench.provenance import environment
from spectrum.bench.resolve import resolve
from spectrum.bench.sampling import in_8_bits, sample_batch
from spectrum.bench.sources import sources_digest
from spectrum.config.compose import compose
from spectrum.config.reader import plan_study
from spectrum.config.sampling import Sampling
from spectrum.config.schema import RunConfig
from spectrum.core.clock import Clock
from spectrum.core.method import Method, Site
from spectrum.hooks.scheduler import readings
from spectrum.models.identity import model_identity
from spectrum.models.kept_plans import method_of
from spectrum.models.pipelines import device_of, load_pipeline
from spectrum.models.solvers import with_solver
from spectrum.planning.carry import carried
from spectrum.planning.make import psnr
from spectrum.records.files import identity, write_bytes
from spectrum.records.plan_file import FITTED, PlanFile
from spectrum.records.study_file import StudyRow

OPTIONS = ("runs", "site", "memory", "branches", "seed", "forecast")
"""Keys of a row that say what its plan is asked to be."""
AT = "at."
"""Before keys of a row that say what it is sampled with, where that is not what its plan is fitted for."""
SOLVER = "solver"


@dataclass(frozen=True)
class Trial:
    """A row to measure.

    Attributes:
        keys: what sets it apart.
        sampled: overrides of all rows' sampling.
        fits: overrides of all rows' fits.
    """

    keys: Mapping[str, Any]
    sampled: Mapping[str, Any]
    fits: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """Its keys on one line."""
        return " ".join(f"{key}={value}".replace(" ", "") for key, value in self.keys.items())

    @property
    def fitted(self) -> bool:
        """Whether it has a plan, and no method without one."""
        return "method" not in self.keys

    @property
    def fit_words(self) -> tuple[str, ...]:
        """The overrides of the config that its plan is fitted with."""
        own = {k: v for k, v in self.keys.items() if k not in OPTIONS and not k.startswith(AT)}
        words = {"prompts": "calibration", "prompts.limit": 8, "batch": 8, **self.fits, **own}
        return _words(words)

    @property
    def sample_words(self) -> tuple[str, ...]:
        """The overrides of the config that it is sampled with, the method aside."""
        own = {k.removeprefix(AT): v for k, v in self.keys.items() if k.startswith(AT) and k != AT + SOLVER}
        return _words({**self.sampled, **own})

    @property
    def method_words(self) -> tuple[str, ...]:
        """The overrides that choose its method, for a row that has no plan of its own."""
        return _words({key: value for key, value in self.keys.items() if not key.startswith(AT)})

    @property
    def plan(self) -> str | None:
        """The digest of the kept plan that it samples with; None for any other row."""
        if self.fitted or self.keys["method"] != "planned":
            return None
        return (resolve(compose([*self.sample_words, *self.method_words]))[0].method.plan or {}).get("digest")

    @property
    def id(self) -> str:
        """Names all that its figures depend on: code, settings, weights, the prompts of both sides, and its plan."""
        sides = [_made_on(self.sample_words), _made_on(self.fit_words) if self.fitted else None]
        return identity([sources_digest(), dict(self.keys), dict(self.sampled), dict(self.fits), sides, self.plan])

    @property
    def solver(self) -> str | None:
        """The scheduler class that it is sampled with; None for the pipeline's own."""
        return self.keys.get(AT + SOLVER)

    @property
    def asked(self) -> Asked:
        """What its plan is asked to be."""
        get = self.keys.get
        forecast = get("forecast", FITTED)
        runs: int = self.keys["runs"]
        memory = get("memory", 3 if forecast == FITTED else 0) or None
        shared = get("branches", "shared") == "shared"
        return Asked(runs, Site(get("site", "output")), memory, shared, get("seed", 0), forecast, judge=False)


@functools.cache
def _made_on(words: tuple[str, ...]) -> list[Any]:
    """The weights and the prompts of a config."""
    config = compose(["method=none", *words])
    return [model_identity(config.model), read_prompts(config.prompts)]


def _words(settings: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(f"{key}={value}".replace(", ", ",") for key, value in settings.items())


def trials_of(name: str) -> list[Trial]:
    """The rows of a study: the products of the lists in each of its blocks.

    Args:
        name: of a file in `configs/plan_study`.

    Raises:
        SpectrumError: if there is no such study.
    """
    about = plan_study(name)
    found: dict[str, Trial] = {}
    for block in about["rows"]:
        lists = {key: value if isinstance(value, list) else [value] for key, value in block.items()}
        for values in itertools.product(*lists.values()):
            trial = Trial(dict(zip(lists, values, strict=True)), about["sampled"], about.get("fitted", {}))
            found.setdefault(trial.text, trial)
    return list(found.values())


class PlanBench:
    """Measures the rows of studies; what they have in common is sampled once.

    Args:
        journals: a folder for what planners score.
        store: a folder for uncached pictures.
        begin: begins a stage of the progress.
    """

    def __init__(self, journals: Path, store: Path, begin: Begin) -> None:
        self._journals, self._store, self._begin = journals, store, begin
        self._fitting: tuple[Any, Fitting] | None = None
        self._judge = functools.lru_cache(maxsize=4)(self._new_judge)

    def measured(self, trial: Trial) -> StudyRow:
        """Measure a row.

        Raises:
            SpectrumError: for a plan that cannot be fitted, and a method that cannot be run.
        """
        judge = self._judge(trial.sample_words, trial.solver)
        plan = self._plan(trial) if trial.fitted else None
        if plan is not None:
            plan = plan if len(judge.sigmas) == plan.setting.steps else carried(plan, judge.sigmas)
            method, sampling = method_of(plan, force=True), None
            weights, digest = plan.weights, None
        else:
            config, method = resolve(compose([*trial.sample_words, *trial.method_words]))
            sampling = Sampling.of(config)
            weights, digest = (config.method.forecast or {}).get("weights"), (config.method.plan or {}).get("digest")
        values, runs, nfe = judge.psnr(method, sampling)
        return StudyRow(
            keys=dict(trial.keys),
            run_steps=runs if method.time_only else [],
            nfe=nfe,
            psnr=values,
            expected=plan.expected.psnr if plan and plan.expected else None,
            full_runs=plan.full_runs if plan else None,
            weights=weights,
            made_with=environment(device_of(judge.config.device)),
            plan=digest,
        )

    def _plan(self, trial: Trial) -> PlanFile:
        config = compose(["method=none", *trial.fit_words])
        planner = config.planner or {}
        key = (*(word for word in trial.fit_words if not word.startswith("planner")), trial.asked.site)
        if self._fitting is None or self._fitting[0] != key:
            self.close()
            pipe = load_pipeline(config.model, device_of(config.device))
            self._fitting = key, Fitting(config, [pipe], trial.asked.site, self._begin)
        return self._fitting[1].plan(planner, trial.asked, self._journals)

    def _new_judge(self, words: tuple[str, ...], solver: str | None) -> "Judge":
        return Judge(compose(["method=none", *words]), solver, self._store, self._begin)

    def close(self) -> None:
        """Free what the latest plan was fitted with."""
        if self._fitting is not None:
            self._fitting[1].__exit__()
            self._fitting = None


class Judge:
    """The held-out samples of one setting, uncached; methods are compared with them.

    Args:
        config: model, prompts, seeds and batch size.
        solver: scheduler class that takes the place of the pipeline's own; None leaves it.
        store: a folder for the uncached pictures, so that they are sampled once.
        begin: begins a stage of the progress.

    Attributes:
        config: the config.
        sigmas: the sigma of each step.
    """

    def __init__(self, config: RunConfig, solver: str | None, store: Path, begin: Begin) -> None:
        self.config, self._sampling = config, Sampling.of(config)
        self._pipe = with_solver(load_pipeline(config.model, device_of(config.device)), solver)
        prompts = read_prompts(config.prompts)
        samples = numbered_samples(prompts, config.seeds)
        size = config.batch or 1
        self._batches = [samples[first : first + size] for first in range(0, len(samples), size)]
        how = [vars(self._sampling), model_identity(config.model), config.model.dtype, config.device, solver]
        path = store / f"reference-{identity([sources_digest(), how, prompts, config.seeds, size])}.npz"
        if not path.exists():
            write_bytes(path, self._reference(begin("reference", len(samples), "samples")))
        with np.load(path) as kept:
            self.sigmas: Sequence[float] = kept["sigmas"].tolist()
            pixels = torch.from_numpy(kept["pixels"]).float() / 255
        self._images = pixels.split([len(batch) for batch in self._batches])

    def _reference(self, advance: Callable[[int], None]) -> bytes:
        """The uncached pictures in 8 bits a channel, and the grid of sigmas, as a file of NumPy's."""
        parts = []
        for batch in self._batches:
            parts.append(in_8_bits(sample_batch(self._pipe, batch, self._sampling)))
            advance(len(batch))
        sigmas = readings(self._pipe.scheduler, Clock.sigma)[0][: self._sampling.steps]
        out = io.BytesIO()
        np.savez(out, pixels=torch.cat(parts).numpy(), sigmas=np.array(sigmas))
        return out.getvalue()

    def psnr(self, method: Method, sampling: Sampling | None = None) -> tuple[list[float], list[int], float]:
        """Sample with a method.

        Args:
            method: the method.
            sampling: the steps and solver of a control; None for those of the reference.

        Returns:
            The PSNR of each sample in dB, the run steps of the first sample, and the mean number of run steps.
        """
        values: list[float] = []
        steps: list[int] = []
        counts: list[float] = []
        sampling = sampling or self._sampling
        pipe = with_solver(self._pipe, sampling.solver)
        with Accelerated(pipe, method) as handle:
            for batch, images in zip(self._batches, self._images, strict=True):
                own = in_8_bits(sample_batch(pipe, batch, sampling)).float() / 255
                values += psnr(own, images).tolist()
                branch = next(iter(handle.report().values()))
                steps = steps or branch["run_steps"]
                each = branch["samples"] if len(branch["samples"]) == len(batch) else branch["samples"] * len(batch)
                counts += [len(own["run_steps"]) for own in each]
        return values, steps, sum(counts) / len(counts)
