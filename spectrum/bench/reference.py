"""Keeps a record of the uncached run beside those of the runs that are compared with it."""

from filelock import FileLock, Timeout

from spectrum.bench.describe import describe, fits
from spectrum.bench.generate import whole_ledger
from spectrum.bench.job import Job
from spectrum.bench.provenance import environment
from spectrum.models.pipelines import device_of
from spectrum.records.record import read_record, write_record


def keep_reference(job: Job) -> None:
    """Write the record of a job's uncached run to the folder of all records, unless it is there.

    Tables check every record against it: that both are of the same prompts, seeds and weights, and against which
    pictures the metrics were computed. It has the metrics and the timing that a run of `method=none` gave it, if any.

    Args:
        job: the job of a method; nothing is written where it names no folder of all records.
    """
    base = Job.of(job.base)
    shared, ledger = base.shared_record_path, whole_ledger(job.base_folder, job.samples)
    if shared is None or shared.exists() or ledger is None:
        return
    try:
        with FileLock(base.folder.parent / f".{base.folder.name}.job.lock", timeout=0):
            record = read_record(base.record_path) if base.record_path.exists() else None
            if record is None or not fits(record, ledger, ledger):
                record = describe(base, ledger, ledger, {}, environment(device_of(job.config.device)))
            write_record(shared, record)
    except Timeout:
        return  # its own job is at work, and will write it
