"""What a method by others has to have before it stands on the leaderboard, each as a check of its own."""

import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from eval.tables.experiments import load_experiment
from eval.tables.leaderboard import BUDGETS, MAIN, lacks, skips
from eval.tables.verify import check_record
from spectrum.api import Accelerated
from spectrum.bench.job import Job
from spectrum.bench.machine import ROUNDS
from spectrum.bench.provenance import hardware
from spectrum.bench.sampling import encoded, sample_batch
from spectrum.config.compose import compose
from spectrum.config.methods import uses_fit
from spectrum.config.prompt_lists import shipped_prompts
from spectrum.config.reader import choices, method_file
from spectrum.config.sampling import Sampling
from spectrum.core.errors import refuse
from spectrum.models.fitted import fits_of
from spectrum.models.pipelines import device_of, load_pipeline
from spectrum.records.digests import LENGTH
from spectrum.records.files import identity
from spectrum.records.record import Record, read_record


@dataclass(frozen=True)
class Rules:
    """What a submission is made on. Tests make these smaller.

    Attributes:
        words: the settings of a run beside its method and its number of runs, as they are typed.
        data: what the records are made on, see `Experiment.data`.
        budgets: the numbers of block runs.
        rounds: the fewest rounds of a timing.
    """

    words: tuple[str, ...] = ("seeds=[0,1,2]", "batch=1", "eval=table")
    data: Mapping[str, Any] = field(default_factory=lambda: load_experiment(MAIN).data)
    budgets: tuple[int, ...] = BUDGETS
    rounds: int = ROUNDS


@dataclass(frozen=True)
class Submission:
    """A method with its records.

    Attributes:
        name: the method's name, that of its file in `configs/method`.
        plugins: packages outside the project that hold its functions.
        folder: the folder of its records.
        committed: the folder of all committed records.
        rules: what it is made on.
    """

    name: str
    plugins: tuple[str, ...]
    folder: Path
    committed: Path
    rules: Rules

    def words(self, runs: int | str) -> list[str]:
        """The settings of its run with a number of block runs."""
        plugins = [f"plugins=[{','.join(self.plugins)}]"] if self.plugins else []
        return [f"method={self.name}", f"runs={runs}", *self.rules.words, *plugins]

    @functools.cached_property
    def jobs(self) -> dict[int, Job]:
        """Its job for each number of runs, worked out from its file and its fit alone."""
        return {runs: Job.of(compose(self.words(runs))) for runs in self.rules.budgets}

    @functools.cached_property
    def records(self) -> dict[int, Record]:
        """Its record for each number of runs.

        Raises:
            SpectrumError: if one is not there, or is of other settings or other code.
        """
        found = {}
        for runs, job in self.jobs.items():
            path = self.folder / f"{job.folder.name}.json"
            if not path.exists():
                refuse(f"there is no record {path}, of {self.name} as it is now with {runs} runs: type {self.command}")
            found[runs] = read_record(path)
        return found

    @property
    def command(self) -> str:
        """The command that makes its records."""
        runs = ",".join(map(str, self.rules.budgets))
        words = [f'"{word}"' if "[" in word else word for word in self.words(runs)]
        return f"python run.py --multirun {' '.join(words)} timing={self.rules.rounds} records={self.folder}"

    def reference(self, record: Record) -> Record | None:
        """The record of the uncached run that a record is compared with: beside it, or among the committed ones."""
        places = [folder / f"{record.reference}.json" for folder in (self.folder, self.committed)]
        return next((read_record(path) for path in places if path.exists()), None)


def composes(submission: Submission) -> None:
    """Its file composes, names it, and skips steps."""
    name = submission.name
    if name not in choices("method"):
        refuse(f"there is no configs/method/{name}.yaml: write one, see docs/add-a-method.md")
    if method_file(name)[0]["name"] != name:
        refuse(f"configs/method/{name}.yaml calls its method {method_file(name)[0]['name']}: write name: {name}")
    if not skips(name):
        refuse(f"{name} skips no step: there is nothing to compare")
    for job in submission.jobs.values():
        if job.base_folder == job.folder:
            refuse(f"{name} skips no step: there is nothing to compare")


def fitted_on_calibration(submission: Submission) -> None:
    """All that is fitted for it was fitted on calibration prompts, and says so."""
    config = next(iter(submission.jobs.values())).config
    _no_coefficients(submission.name, method_file(submission.name)[0])
    typed = compose(submission.words(submission.rules.budgets[0]))
    fit = fits_of(config.model).get(submission.name)
    if fit is None or not (uses_fit(typed, {submission.name: fit}) or "by_runs" in fit):
        return
    fit_with = f"fit it again with python scripts/calibrate.py model=tiny method={submission.name} write=true"
    about = fit.get("fitted_on")
    if not about or "prompts" not in about:
        refuse(f"{submission.name} has fitted values, and no note of the prompts that they were fitted on: {fit_with}")
    prompts = list(shipped_prompts("calibration"))
    if about["prompts"] not in {identity(prompts[:count]) for count in range(1, len(prompts) + 1)}:
        refuse(f"{submission.name} was fitted on other prompts than the calibration list: {fit_with}")


def _no_coefficients(name: str, own: Mapping[str, Any]) -> None:
    """Refuse lists of numbers in a method's file: they were fitted, and the file cannot say on what."""
    for part in ("forecast", "drift", "correct", "fallback"):
        for key, value in (own[part] or {}).items():
            if isinstance(value, list) and any(isinstance(number, float) for number in value):
                refuse(
                    f"configs/method/{name}.yaml has a list of numbers under {part}.{key}, and no note of the prompts "
                    f"that they were fitted on: write {key}: null there, and keep them beside the weights with "
                    "fitted_on, as python scripts/calibrate.py does"
                )


def complete(submission: Submission) -> None:
    """Its records hold, are made with committed code, and have every metric and a timing."""
    for runs, record in submission.records.items():
        if record.git["commit"] is None or record.git["dirty"]:
            again = _again(submission)
            refuse(f"the record {record.id} was made with code that no commit holds: commit it, and type {again}")
        lacking = list(lacks(record, list(submission.jobs[runs].config.eval)))
        if lacking:
            refuse(f"the record {record.id} lacks {lacking[0]}: type {submission.command}")
        timing = record.timing
        if timing is not None and len(timing.rounds) < submission.rules.rounds:
            refuse(
                f"the record {record.id} was timed in {len(timing.rounds)} rounds, and {submission.rules.rounds} are "
                f"needed: type {_again(submission, 'timing')}"
            )
        if timing is not None and timing.conditions.forced:
            again = _again(submission, "timing")
            refuse(f"the record {record.id} was timed on a loaded machine: when it is idle type {again}")
        if abs(record.nfe - runs) > 0.5:
            refuse(f"the record {record.id} ran the blocks {record.nfe:.3g} times, and not {runs}: fit it again")
        check_record(record, submission.reference(record))


def _again(submission: Submission, part: str = "samples") -> str:
    return f'{submission.command} "redo=[{part}]"'


def runs_here(submission: Submission) -> None:
    """It samples on the embedded model; on the record's machine, with its torch, its first picture is the record's."""
    pipe = None
    for runs, job in submission.jobs.items():
        pipe = pipe or load_pipeline(job.config.model, device_of(job.config.device), job.config.offload)
        with Accelerated(pipe, job.method) as handle:
            picture = sample_batch(pipe, job.samples[:1], Sampling.of(job.config))[0]
            report = handle.report()
        if not any(branch["skipped"] for branch in report.values()) and job.config.method.steps is None:
            refuse(f"{submission.name} with runs={runs} skipped no step on the embedded model")
        record = submission.records[runs]
        digest = hashlib.sha256(encoded(picture, job.config.model.fps)).hexdigest()[:LENGTH]
        here = hardware(device_of(job.config.device), job.config.offload), version("torch")
        older = {"kernels": "AVX2"} if record.hardware["device"] == "cpu" else {}  # those that do not say had these
        if here == ({**older, **record.hardware}, record.packages.get("torch")) and digest != record.digests[0]:
            refuse(
                f"{submission.name} with runs={runs} makes another first picture here than the record {record.id} has: "
                f"type {_again(submission)}"
            )


def to_commit(submission: Submission) -> Iterator[tuple[Path, Record]]:
    """Each record of a submission, and of its uncached run, that is not among the committed ones, with its place there.

    Raises:
        SpectrumError: if another record stands there, or the committed uncached pictures are others.
    """
    for record in submission.records.values():
        for own in (submission.reference(record), record):
            if own is None:
                continue
            path = submission.committed / f"{own.id}.json"
            if not path.exists():
                yield path, own
                continue
            there = read_record(path)
            if own.is_reference and there.digests != own.digests:
                refuse(
                    "the uncached pictures of this machine are other ones than those that all rows are compared with "
                    "(another CPU or version of torch): send the method without records, and we sample it"
                )
            if not own.is_reference and there.digest != own.digest:
                refuse(f"{path} is another record, and nothing is overwritten: delete it if it is yours")


def free(submission: Submission) -> None:
    """No other record stands in the place of its records; see `to_commit`."""
    list(to_commit(submission))


CHECKS: Mapping[str, Callable[[Submission], None]] = {
    "its file composes": composes,
    "what it needs was fitted on calibration prompts": fitted_on_calibration,
    "its records are complete": complete,
    "no other record stands in their place": free,
    "it runs on the embedded model": runs_here,
}
"""By what holds afterwards; each raises `SpectrumError` with what to type."""
