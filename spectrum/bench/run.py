"""Runs a job: plan, sample the reference and the method on the same noise, time, measure, draw, report.

Each stage does what the stored record still lacks. So the same command goes on where it broke off, adds a metric
without sampling again, and returns at once when all is there.
"""

import dataclasses
import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock
from rich.console import Console

from eval.metrics.measure import measure, missing_metrics
from eval.metrics.pictures import Pictures
from eval.tables.comparison import print_table
from spectrum.api import Accelerated
from spectrum.bench import timing
from spectrum.bench.describe import describe, fits
from spectrum.bench.drawing import draw_pictures, wanted_pictures
from spectrum.bench.generate import generate
from spectrum.bench.job import Job
from spectrum.bench.ledger import Entry, whole_ledger
from spectrum.bench.loading import pipeline_of
from spectrum.bench.loggers import logger_of
from spectrum.bench.machine import check_shared_timing, conditions, load_before_timing, note_start, shareable
from spectrum.bench.progress import Progress
from spectrum.bench.prompts import Sample
from spectrum.bench.provenance import environment, hardware
from spectrum.bench.reference import check_reference, keep_reference
from spectrum.bench.requirements import check_prompts
from spectrum.bench.resolve import label
from spectrum.bench.sampling import check_memory, sample_batch
from spectrum.config.sampling import Sampling
from spectrum.config.schema import RunConfig
from spectrum.core.errors import SpectrumError
from spectrum.core.method import Method
from spectrum.models.offload import check_offload
from spectrum.models.pipelines import device_of
from spectrum.models.plans import cache_bytes, feature_bytes, plan_of
from spectrum.records.files import writable
from spectrum.records.record import MetricEntry, Record, parse_record, read_record, record_content, write_record
from spectrum.records.timing import Timing


def run(config: RunConfig, group: str | None = None) -> Path:
    """Do the job of a config.

    Args:
        config: the config.
        group: the multirun that it belongs to, for a logger.

    Returns:
        Its folder, which holds the samples, the pictures and `record.json`.

    Raises:
        SpectrumError: for every setting that cannot be run.
    """
    note_start()
    console = Console()
    check_prompts(config)
    job = Job.of(config)
    device = device_of(config.device)
    check_offload(config.offload, device)
    check_memory(Sampling.of(job.config), batch_size(job), features_bytes(job) if device.type == "cpu" else 0)
    logger = logger_of(config.logger, config.out, config.plugins)
    _print_plan(console, job)
    writable(job.folder.parent)
    if config.records:
        writable(Path(config.records), "records")
    with FileLock(job.folder.parent / f".{job.folder.name}.job.lock"):
        record = _stored_record(job, console)
        check_shared_timing(config, record)
        if record is None or not _complete(job, record):
            record = _do_what_lacks(job, record, console)
        else:
            _write(job, record)
            _draw_missing(job, record)
    if logger is not None:
        logger.run(record, job.folder, group)
    print_table([record], console)
    console.print(f"pictures, sheet, timeline and record: {job.folder}", highlight=False, soft_wrap=True)
    return job.folder


def batch_size(job: Job) -> int:
    """How many samples one call makes at most."""
    return min(len(job.samples), job.config.batch or 1)


def features_bytes(job: Job) -> int:
    """About how many bytes a call of the denoiser takes: what one block works on, and what the method stores.

    A block holds its input, queries, keys and values, and four times the width inside its MLP: eight features.
    """
    config, batch = job.config, batch_size(job)
    stored = cache_bytes(config, plan_of(config, job.method), batch) or 0
    return stored + 8 * batch * config.model.branches * feature_bytes(config)


def _print_plan(console: Console, job: Job) -> None:
    """Print what the method will do: runs, ideal speed-up, bytes; and whether older records are of other code."""
    config = job.config
    plan = plan_of(config, job.method)
    steps = config.model.steps
    runs = "decided by the data" if plan.nfe is None else f"{plan.nfe} of {steps}"
    ideal = "" if not plan.nfe else f", ideal speed-up {steps / plan.nfe:.2f}x"
    size = cache_bytes(config, plan, batch_size(job))
    most = "at most " if plan.nfe is None else ""
    cache = f"at {job.method.site}, its size in the record" if size is None else f"{most}{size / 2**20:.1f} MiB"
    console.print(f"[bold]{label(config)}[/bold] on {config.model.name}: block runs {runs}{ideal}, cache {cache}")
    if plan.runs and len(plan.runs) < plan.steps:
        console.print(f"run steps: {' '.join(map(str, plan.runs))}", highlight=False)
    for path in _of_other_code(job):
        console.print(
            f"the code of {config.method.name} has changed since {path} was made: it is not used, and the samples are "
            "made again",
            highlight=False,
            soft_wrap=True,
        )


def _of_other_code(job: Job) -> list[Path]:
    """Records with the same settings that other code of the method made."""
    places = [job.folder.parent.glob(f"{job.config.method.name}-*/record.json")]
    if job.config.records:
        places.append(Path(job.config.records).glob(f"{job.config.method.name}-*.json"))
    found = []
    if job.record_path.exists() or ((shared := job.shared_record_path) is not None and shared.exists()):
        return []
    for path in (path for place in places for path in place):
        try:
            record = read_record(path)
        except SpectrumError:
            continue  # another version's, or damaged: this job does not use it
        if record.settings == job.settings and record.id != job.folder.name:
            found.append(path)
    return found


def _stored_record(job: Job, console: Console) -> Record | None:
    """What is known of this job already, less what `redo` asks to make again and records of other pictures."""
    redo = set(job.config.redo)
    if "samples" in redo:
        shutil.rmtree(job.folder, ignore_errors=True)
        return None
    paths = [path for path in (job.shared_record_path, job.record_path) if path is not None and path.exists()]
    ledgers = [whole_ledger(folder, job.samples) for folder in (job.folder, job.base_folder)]
    found: list[Record] = []
    for path in paths:
        record = read_record(path)
        if path == job.record_path and job.shared_record_path and record.timing and not shareable(record.timing):
            record = dataclasses.replace(record, timing=None)
        if fits(record, *ledgers):
            found.append(record)
        else:
            line = f"{path} is of other pictures than those in {job.folder.parent}: it is not used, but made again"
            console.print(line, highlight=False, soft_wrap=True)
    if not found:
        return None
    record = found[0]
    for other in (
        r for r in found[1:] if (r.digests, r.reference_samples) == (record.digests, record.reference_samples)
    ):
        metrics = {**other.metrics, **record.metrics}
        record = dataclasses.replace(record, metrics=metrics, timing=record.timing or other.timing)
    if "metrics" in redo:
        record = dataclasses.replace(record, metrics={}, left_out={})
    return dataclasses.replace(record, timing=None) if "timing" in redo else record


def _complete(job: Job, record: Record) -> bool:
    """Whether a stored record has all that is asked for.

    A metric that could not be computed counts as done once the images are gone: it cannot be tried again.
    """
    lacking = missing_metrics(job.config.eval, record.metrics, *job.ids)
    if job.config.timing and record.timing is None:
        return False
    return not lacking or not (whole_ledger(job.folder, job.samples) or set(lacking) - set(record.left_out))


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


def _do_what_lacks(job: Job, record: Record | None, console: Console) -> Record:
    """Sample, time and measure what is lacking; the record, written."""
    config, sampling = job.config, Sampling.of(job.config)
    loaded = functools.cache(lambda: pipeline_of(job, console))
    with Progress(console) as progress:
        base = _sample(progress, "reference", loaded, job.uncached, Sampling.of(job.base), job.samples, job.base_folder)
        check_reference(job)
        ledger = _sample(progress, config.method.name, loaded, job.method, sampling, job.samples, job.folder)
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


def _sample(
    progress: Progress,
    name: str,
    loaded: Callable[[], Any],
    method: Method,
    sampling: Sampling,
    todo: list[Sample],
    folder: Path,
) -> list[Entry]:
    """The ledger of all samples; those that are not there are made."""
    there = whole_ledger(folder, todo)
    advance = progress.start(name, len(todo) * sampling.steps)
    if there is not None:
        advance(len(todo) * sampling.steps)
        return there
    return generate(loaded(), method, todo, sampling, folder, advance)


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
    batches = timing.batches_of(job.samples, batch_size(job), job.config.timing)
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
