"""The main job: plan, sample the reference and the method on the same noise, measure, time, report.

Each stage does what the stored record still lacks, so the same command goes on where it broke off, adds a metric
without sampling anew, and returns at once when all is there.
"""

import dataclasses
import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from eval.measure import measure, missing
from eval.metric import metric_of
from eval.pictures import Pictures, load_images
from spectrum import report, timing
from spectrum.config import RunConfig
from spectrum.generate import Sampling, draw, generate, sample_id, whole_ledger
from spectrum.library import Accelerated
from spectrum.logger import logger_of
from spectrum.method import Method
from spectrum.pipeline import device_of, load_pipeline, model_identity, model_kind
from spectrum.prepare import cache_bytes, label, plan_of, reference_of, resolve
from spectrum.prompts import Sample, check_length, read_prompts, samples
from spectrum.record import environment, hardware
from spectrum.solver import with_solver
from spectrum.store import FORMAT, finite, identity, read_record, writable, write_json


@dataclasses.dataclass(frozen=True)
class Job:
    """A config worked out: its method, the uncached run to compare with, its samples, and where all of it lies."""

    config: RunConfig
    method: Method
    base: RunConfig
    uncached: Method
    prompts: list[str]
    todo: list[Sample]
    folder: Path
    base_folder: Path

    @classmethod
    def of(cls, config: RunConfig) -> "Job":
        """Resolve a config. Raises `SpectrumError` for every setting that cannot be run."""
        prompts = read_prompts(config.prompts)
        config, method = resolve(config)
        for name, parameters in config.eval.items():
            metric_of(name, parameters)
        base = reference_of(config)
        out = Path(config.out) / config.model.name
        return cls(
            config=config,
            method=method,
            base=base,
            uncached=resolve(base)[1],
            prompts=prompts,
            todo=samples(prompts, config.seeds),
            folder=out / f"{config.method['name']}-{sample_id(config, prompts)}",
            base_folder=out / f"none-{sample_id(base, prompts)}",
        )

    @property
    def names(self) -> tuple[str, str]:
        """Ids of the samples and of their reference."""
        return self.folder.name, self.base_folder.name

    @property
    def stored(self) -> Path:
        """Where its record belongs beside its samples."""
        return self.folder / "record.json"


def run(config: RunConfig, group: str | None = None) -> Path:
    """Do the job of a config and return its folder, which holds the pictures and `record.json`.

    `group` names the multirun it belongs to, for a logger.
    """
    console = Console()
    job = Job.of(config)
    logger = logger_of(config.logger, config.out)
    announce(console, job)
    writable(job.folder.parent)
    if config.records:
        writable(Path(config.records), "records")
    with FileLock(job.folder.parent / f".{job.folder.name}.job.lock"):
        record = _stored(job)
        if record is not None and _complete(job, record):
            _keep(job, record)
        else:
            record = _work(job, record, console)
    if logger is not None:
        logger.run(record, job.folder, group)
    report.show([record], console)
    console.print(f"pictures, sheet, timeline and record: {job.folder}", highlight=False, soft_wrap=True)
    return job.folder


def announce(console: Console, job: Job) -> None:
    """Print the plan: runs, ideal speed-up, bytes."""
    config = job.config
    plan = plan_of(config, job.method)
    steps = config.model.steps
    runs = "decided by the data" if plan.nfe is None else f"{plan.nfe} of {steps}"
    ideal = "" if not plan.nfe else f", ideal speed-up {steps / plan.nfe:.2f}x"
    size = cache_bytes(config, plan, min(len(job.todo), config.batch))
    most = "at most " if plan.nfe is None else ""
    cache = f"at {job.method.site}, its size in the record" if size is None else f"{most}{size / 2**20:.1f} MiB"
    console.print(f"[bold]{label(config)}[/bold] on {config.model.name}: block runs {runs}{ideal}, cache {cache}")
    if plan.runs and plan.skipped:
        console.print(f"run steps: {' '.join(map(str, plan.runs))}", highlight=False)


def _stored(job: Job) -> dict[str, Any] | None:
    """What is known of this run already, less what `fresh` asks to make again."""
    fresh = set(job.config.fresh)
    if "samples" in fresh:
        shutil.rmtree(job.folder, ignore_errors=True)
        return None
    shelf = [Path(job.config.records) / f"{job.folder.name}.json"] if job.config.records else []
    found = [read_record(path) for path in (*shelf, job.stored) if path.exists()]
    if not found:
        return None
    record = {**found[0], "metrics": dict(found[0]["metrics"])}
    for other in found[1:]:
        record["metrics"] = {**other["metrics"], **record["metrics"]}
        record["timing"] = record["timing"] or other["timing"]
    record |= {"metrics": {}, "left_out": {}} if "metrics" in fresh else {}
    record |= {"timing": None} if "timing" in fresh else {}
    return record


def _complete(job: Job, record: dict[str, Any]) -> bool:
    """Whether a stored record says all that is asked for.

    A metric that was absent counts as said when the pictures are gone too, since it cannot be tried again.
    """
    lacking = missing(job.config.eval, record["metrics"], *job.names)
    if job.config.timing and not record["timing"]:
        return False
    return not lacking or not (whole_ledger(job.folder, job.todo) or set(lacking) - set(record["left_out"]))


def _keep(job: Job, record: dict[str, Any]) -> None:
    """Lay a record beside its samples, and on the shelf of records where one is named."""
    write_json(job.stored, record)
    if job.config.records:
        write_json(Path(job.config.records) / f"{record['id']}.json", record)


def _work(job: Job, record: dict[str, Any] | None, console: Console) -> dict[str, Any]:
    """Sample, measure and time what is lacking; the record, stored."""
    config, sampling = job.config, Sampling.of(job.config)
    loaded = functools.cache(lambda: _load(job))
    with _progress(console) as progress:
        _sample(progress, "reference", loaded, job.uncached, Sampling.of(job.base), job.todo, job.base_folder)
        own = _sample(progress, config.method["name"], loaded, job.method, sampling, job.todo, job.folder)
        made = record or describe(job, own, _probe(loaded, job, sampling), environment(device_of(config.device)))
        seconds = made["timing"] or (_time(progress, loaded(), job) if config.timing else None)
    files = [entry["file"] for entry in own]
    pictures, reference = (Pictures(folder / "images", files) for folder in (job.folder, job.base_folder))
    prompts = [entry["prompt"] for entry in own]
    lacking = missing(config.eval, made["metrics"], *job.names)
    metrics, left_out = measure(lacking, pictures, reference, prompts, job.names, lambda line: console.print(line))
    whole = finite({**made, "timing": seconds, "metrics": {**made["metrics"], **metrics}, "left_out": left_out})
    _keep(job, whole)
    _draw(job, whole)
    return whole


def _load(job: Job) -> Any:
    model = job.config.model
    pipe = load_pipeline(model, device_of(job.config.device))
    with_solver(pipe, Sampling.of(job.config).solver)
    limit = model.call.get("max_sequence_length") or getattr(pipe, "tokenizer_max_length", 77)
    check_length(pipe, job.prompts, limit)
    return pipe


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description:>12}"), BarColumn(), MofNCompleteColumn(), TextColumn("sample steps"))
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console)


def _sample(
    progress: Progress,
    name: str,
    loaded: Callable[[], Any],
    method: Method,
    sampling: Sampling,
    todo: list[Sample],
    folder: Path,
) -> list[dict[str, Any]]:
    there = whole_ledger(folder, todo)
    task = progress.add_task(name, total=len(todo) * sampling.steps)
    if there is not None:
        progress.update(task, completed=len(todo) * sampling.steps)
        return there
    return generate(loaded(), method, todo, sampling, folder, lambda n: progress.update(task, advance=n))


def _probe(loaded: Callable[[], Any], job: Job, sampling: Sampling) -> dict[str, Any]:
    batch = job.todo[: min(job.config.probe, job.config.batch)]
    if job.method.forecast is None or not batch:
        return {}
    with Accelerated(loaded(), job.method, probe=True) as handle:
        draw(loaded(), batch, sampling)
        return handle.report()


def _time(progress: Progress, pipe: Any, job: Job) -> dict[str, Any]:
    task = progress.add_task("timing", total=None)
    sides = (job.uncached, Sampling.of(job.base)), (job.method, Sampling.of(job.config))
    batch = job.todo[: min(4, job.config.batch)]
    seconds = timing.compare(pipe, sides[0], sides[1], batch, job.config.timing)
    progress.update(task, total=1, completed=1)
    where = hardware(device_of(job.config.device))
    return {"id": identity([job.folder.name, where]), "hardware": where, **seconds}


def block_runs(entry: dict[str, Any]) -> float:
    """Steps at which the blocks ran for one sample: the mean over the CFG branches that were called the most often.

    A branch that guidance leaves out at some steps says nothing of the whole run.
    """
    most = max(entry.get("calls", {}).values(), default=0)
    counts = [len(runs) for name, runs in entry["runs"].items() if entry.get("calls", {}).get(name, most) == most]
    return sum(counts) / len(counts)


def describe(job: Job, ledger: list[dict[str, Any]], probed: dict[str, Any], made: dict[str, Any]) -> dict[str, Any]:
    """The record of sampled pictures, before anything is measured or timed."""
    config = job.config
    plan = plan_of(config, job.method)
    shown = max(1, min(config.probe, config.batch, len(ledger)))
    return {
        "format": FORMAT,
        "id": job.folder.name,
        "reference": job.base_folder.name,
        "label": label(config),
        "model": dataclasses.asdict(config.model),
        "model_kind": model_kind(config.model),
        "model_identity": model_identity(config.model),
        "method": config.method,
        "schedule": config.schedule,
        "prompts": job.prompts,
        "prompts_from": {"file": config.prompts.file, "limit": config.prompts.limit},
        "seeds": config.seeds,
        "batch": config.batch,
        "samples": len(ledger),
        "steps": config.model.steps,
        "nfe": sum(map(block_runs, ledger)) / len(ledger),
        "runs": ledger[0]["runs"],
        "weights": [{"step": s.step, "sum": s.total, "l1": s.l1} for s in plan.skipped],
        "forecast_errors": {name: branch["errors"] for name, branch in probed.items()},
        "cache_bytes": {
            "predicted_per_sample": cache_bytes(config, plan),
            "seen_per_sample": sum(b["cache_bytes"] for b in probed.values()) // shown,
        },
        "metrics": {},
        "left_out": {},
        "timing": None,
        **made,
    }


def _draw(job: Job, record: dict[str, Any]) -> None:
    shown, folder, config = job.todo[:8], job.folder, job.config
    files = [sample.file for sample in shown]
    pictures = {
        f"all {config.model.steps} steps": load_images(job.base_folder / "images", files),
        f"{config.method['name']}, {record['nfe']:.3g} runs": load_images(folder / "images", files),
    }
    report.sheet(folder / "sheet.png", [sample.prompt for sample in shown], pictures)
    if config.model.frames:
        rows = [list(Pictures(f / "images", files[:4]).videos()) for f in (job.base_folder, folder)]
        report.film(folder / "film.mp4", rows, config.model.fps or 8)
    steps = Sampling.of(config).steps
    report.timeline(folder / "timeline.png", record["runs"], steps, f"{record['label']}: steps that ran the blocks")
    if any(record["forecast_errors"].values()):
        title = f"{record['label']}: forecast against the true feature, {min(config.probe, config.batch)} samples"
        report.forecast_errors(folder / "error.png", record["forecast_errors"], title)
