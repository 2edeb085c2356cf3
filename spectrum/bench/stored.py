"""What is known of a job already: its record, and whether that has all that is asked for."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

from eval.metrics.measure import missing_metrics
from spectrum.bench.describe import fits
from spectrum.bench.job import Job
from spectrum.bench.ledger import whole_ledger
from spectrum.bench.machine import shareable
from spectrum.core.errors import SpectrumError
from spectrum.records.record import Record, read_record


def of_other_code(job: Job) -> list[Path]:
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


def stored_record(job: Job, say: Callable[[str], None]) -> Record | None:
    """What is known of a job already, less what `redo` asks to make again and records of other pictures.

    Args:
        job: the job.
        say: is given a line for each record that is not used.
    """
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
            say(f"{path} is of other pictures than those in {job.folder.parent}: it is not used, but made again")
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


def complete(job: Job, record: Record) -> bool:
    """Whether a stored record has all that is asked for.

    A metric that could not be computed counts as done once the images are gone: it cannot be tried again.
    """
    lacking = missing_metrics(job.config.eval, record.metrics, *job.ids)
    if job.config.timing and record.timing is None:
        return False
    return not lacking or not (whole_ledger(job.folder, job.samples) or set(lacking) - set(record.left_out))
