"""Runs a job: plan, sample the reference and the method on the same noise, time, measure, draw, report.

Each stage does what the stored record still lacks. So the same command goes on where it broke off, adds a metric
without sampling again, and returns at once when all is there.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from eval.metrics.measure import measure, missing_metrics
from eval.metrics.pictures import Pictures
from eval.tables.comparison import print_table
from spectrum.api import Accelerated
from spectrum.bench import timing
from spectrum.bench.describe import describe, fits
from spectrum.bench.drawing import draw_pictures, wanted_pictures
from spectrum.bench.generate import finished, generate
from spectrum.bench.job import Job
from spectrum.bench.ledger import Entry, whole_ledger
from spectrum.bench.loading import pipeline_of
from spectrum.bench.locks import held
from spectrum.bench.loggers import logger_of
from spectrum.bench.machine import check_shared_timing, conditions, load_before_timing, note_start
from spectrum.bench.made_on import check_kind
from spectrum.bench.profile_stage import print_profile, profile_of
from spectrum.bench.progress import Progress
from spectrum.bench.provenance import environment, hardware, kernels_of
from spectrum.bench.reference import check_reference, keep_reference
from spectrum.bench.requirements import check_prompts
from spectrum.bench.resolve import label
from spectrum.bench.sampling import check_memory, sample_batch
from spectrum.bench.stored import complete, of_other_code, stored_record
from spectrum.bench.workers import ALONE, Worker, on_own_device
from spectrum.config.sampling import Sampling
from spectrum.config.schema import RunConfig
from spectrum.models.memory import BLOCK
from spectrum.models.offload import check_offload
from spectrum.models.pipelines import device_of
from spectrum.models.plans import cache_bytes, feature_bytes, plan_of
from spectrum.records.files import writable
from spectrum.records.record import MetricEntry, Record, parse_record, record_content, write_record
from spectrum.records.timing import Timing


def run(config: RunConfig, group: str | None = None, worker: Worker = ALONE) -> Path:
    """Do the job of a config.

    Args:
        config: the config.
        group: the multirun that it belongs to, for a logger.
        worker: which of the processes that share the samples this is; all but the first make samples alone.

    Returns:
        Its folder, which holds the samples, the pictures and `record.json`.

    Raises:
        SpectrumError: for every setting that cannot be run.
    """
    note_start()
    config = on_own_device(config, worker)
    check_prompts(config)
    job = Job.of(config)
    device = device_of(config.device)
    check_offload(config.offload, device)
    more = features_bytes(job) if device.type == "cpu" and config.check_memory else 0
    check_memory(Sampling.of(job.config), job.batch, more)
    if not worker.first:
        _share(job, worker)
        return job.folder
    console = Console()
    logger = logger_of(config.logger, config.out, config.plugins)
    _print_plan(console, job)
    writable(job.folder.parent)
    if config.records:
        writable(Path(config.records), "records")
    with held(job.folder.parent / f".{job.folder.name}.job.lock"):
        record = stored_record(job, functools.partial(console.print, highlight=False, soft_wrap=True))
        check_shared_timing(config, record)
        loaded = functools.cache(lambda: pipeline_of(job, console))
        if record is None or not complete(job, record):
            record = _do_what_lacks(job, record, console, worker, loaded)
        else:
            _write(job, record)
            _draw_missing(job, record)
        profiled = profile_of(loaded, job, console) if config.profile else None
    if logger is not None:
        logger.run(record, job.folder, group)
    print_table([record], console)
    if profiled is not None:
        print_profile(profiled, console)
    console.print(f"pictures, sheet, timeline and record: {job.folder}", highlight=False, soft_wrap=True)
    return job.folder


def _share(job: Job, worker: Worker) -> None:
    """Make samples of a job together with the worker that does all the rest, until all are there."""
    record = stored_record(job, lambda line: None)
    if record is None or not complete(job, record):
        console = Console(quiet=True, force_terminal=False)
        with Progress(console) as progress:
            _sample_both(job, worker, functools.cache(lambda: pipeline_of(job, console)), progress)


def features_bytes(job: Job) -> int:
    """About how many bytes a call of the denoiser takes: what one block works on, and what the method stores."""
    config, batch = job.config, job.batch
    stored = cache_bytes(config, plan_of(config, job.method), batch) or 0
    return stored + BLOCK * batch * config.model.branches * feature_bytes(config)


def _print_plan(console: Console, job: Job) -> None:
    """Print what the method will do: runs, ideal speed-up, bytes; and whether older records are of other code."""
    config = job.config
    plan = plan_of(config, job.method)
    steps = config.model.steps
    runs = "decided by the data" if plan.nfe is None else f"{plan.nfe} of {steps}"
    ideal = "" if not plan.nfe else f", ideal speed-up {steps / plan.nfe:.2f}x"
    size = cache_bytes(config, plan, job.batch)
    most = "at most " if plan.nfe is None else ""
    cache = f"at {job.method.site}, its size in the record" if size is None else f"{most}{size / 2**20:.1f} MiB"
    console.print(f"[bold]{label(config)}[/bold] on {config.model.name}: block runs {runs}{ideal}, cache {cache}")
    if plan.runs and len(plan.runs) < plan.steps:
        console.print(f"run steps: {' '.join(map(str, plan.runs))}", highlight=False)
    for path in of_other_code(job):
        console.print(
            f"the code of {config.method.name} has changed since {path} was made: it is not used, and the samples are "
            "made again",
            highlight=False,
            soft_wrap=True,
        )


def _write(job: Job, record: Record) -> None:
    """Write the record to the samples' folder, and to the folder of all records where one is named."""
    write_record(job.record_path, record)
    if job.shared_record_path is not None:
        keep_reference(job)
        write_record(job.shared_record_path, record)


def _draw_missing(job: Job, record: Record) -> None:
    """Draw the pictures of a complete record that are not there, if its samples and its reference's are."""
    lacking = [name for name in wanted_pictures(job, record) if not (job.folder / name).exists()]
    if lacking and all(whole_ledger(folder, job.samples) for folder in (job.folder, job.base_folder)):
        draw_pictures(job, record)


def _do_what_lacks(
    job: Job, record: Record | None, console: Console, worker: Worker, loaded: Callable[[], Any]
) -> Record:
    """Sample, time and measure what is lacking; the record, written."""
    config, sampling = job.config, Sampling.of(job.config)
    with Progress(console) as progress:
        base, ledger = _sample_both(job, worker, loaded, progress)
        if record is None or not fits(record, ledger, base):
            here = environment(device_of(config.device), config.offload)
            record = describe(job, ledger, base, _probe(loaded, job, sampling), here)
            write_record(job.record_path, record)
        check_shared_timing(config, record)
        seconds = record.timing or (_time(progress, loaded(), job) if config.timing else None)
        record = dataclasses.replace(record, timing=seconds)
        write_record(job.record_path, record)  # so that an error in a metric costs neither timing nor what is known
        metrics, left_out = _measure(job, record, ledger, console, progress)
    record = dataclasses.replace(record, metrics={**record.metrics, **metrics}, left_out=left_out)
    record = parse_record(record_content(record), str(job.record_path))
    _write(job, record)
    draw_pictures(job, record)
    return record


def _sample_both(
    job: Job, worker: Worker, loaded: Callable[[], Any], progress: Progress
) -> tuple[list[Entry], list[Entry]]:
    """The ledgers of the reference and of the method; samples that are not there are made."""
    found = []
    for folder in (job.base_folder, job.folder):
        if finished(job.samples, folder, worker) is None:
            check_kind(folder, kernels_of(device_of(job.config.device)))
    for name, config, method, folder in (
        ("reference", job.base, job.uncached, job.base_folder),
        (job.config.method.name, job.config, job.method, job.folder),
    ):
        sampling, ledger = Sampling.of(config), finished(job.samples, folder, worker)
        advance = progress.start(name, len(job.samples) * sampling.steps)
        if ledger is None:
            ledger = generate(loaded(), method, job.samples, sampling, folder, advance, worker)
        else:
            advance(len(job.samples) * sampling.steps)
        if folder == job.base_folder:
            check_reference(job)
        found.append(ledger)
    return found[0], found[1]


def _probe(loaded: Callable[[], Any], job: Job, sampling: Sampling) -> dict[str, Any]:
    """The report of a run in which every forecast is compared with the true feature; empty if none is asked for."""
    batch = job.samples[: min(job.config.probe, job.config.batch or 1)]
    if job.method.forecast is None or not batch:
        return {}
    with Accelerated(loaded(), job.method, probe=True) as handle:
        sample_batch(loaded(), batch, sampling)
        return handle.report()


def _time(progress: Progress, pipe: Any, job: Job) -> Timing:
    load = load_before_timing(job.config)
    reference, own = timing.Side(job.uncached, Sampling.of(job.base)), timing.Side(job.method, Sampling.of(job.config))
    batches = timing.batches_of(job.samples, job.batch, job.config.timing)
    advance = progress.start("timing", timing.sample_steps(reference, [own], batches))
    (rounds,) = timing.timed_rounds(pipe, reference, [own], batches, advance)
    where, machine = conditions(load), hardware(device_of(job.config.device), job.config.offload)
    return timing.timing_of(job.folder.name, rounds, machine, where, timing.process_id(where))


def _measure(
    job: Job, record: Record, ledger: list[Entry], console: Console, progress: Progress
) -> tuple[dict[str, MetricEntry], dict[str, str]]:
    """The metrics that the record lacks, and the reason for each that could not be computed."""
    files = [entry["file"] for entry in ledger]
    samples, reference = (Pictures(folder / "images", files) for folder in (job.folder, job.base_folder))
    prompts = [entry["prompt"] for entry in ledger]
    lacking = missing_metrics(job.config.eval, record.metrics, *job.ids)
    say = functools.partial(console.print, markup=False)
    begin = functools.partial(progress.start, unit="pictures" if samples.frames == 1 else "frames")
    return measure(lacking, samples, reference, prompts, job.ids, say, begin, seeds=len(job.config.seeds))
