"""Keeps a record of the uncached run beside those of the runs that are compared with it."""

from pathlib import Path

from spectrum.bench.describe import describe, fits
from spectrum.bench.job import Job
from spectrum.bench.ledger import whole_ledger
from spectrum.bench.locks import held
from spectrum.bench.provenance import environment
from spectrum.core.errors import refuse
from spectrum.models.pipelines import device_of
from spectrum.records.record import read_record, write_record


def check_reference(job: Job) -> None:
    """Refuse to add to a folder of all records whose rows are compared with other uncached pictures than a job's.

    Args:
        job: the job; that of the uncached run itself may replace its record.

    Raises:
        SpectrumError: with what differs and what to type.
    """
    shared = Path(job.config.records or "") / f"{job.base_folder.name}.json"
    if not job.config.records or job.folder == job.base_folder or not shared.exists():
        return
    ledger = whole_ledger(job.base_folder, job.samples)
    if not fits(read_record(shared), ledger, ledger):
        refuse(
            f"the uncached pictures in {job.base_folder} are other ones than those of {shared} (made on another CPU or "
            "version of torch, or anew): on a CPU with AVX-512 delete them and set ATEN_CPU_CAPABILITY=avx2 "
            "ONEDNN_MAX_CPU_ISA=AVX2; elsewhere type records=FOLDER with an empty folder, or delete "
            f"{shared} and the records that are compared with it, and run their commands again"
        )


def keep_reference(job: Job) -> None:
    """Write the record of a job's uncached run to the folder of all records, unless it is there and is of its pictures.

    Tables check every record against it: that both are of the same prompts, seeds and weights, and against which
    pictures the metrics were computed. It has the metrics and the timing that a run of `method=none` gave it, if any.

    Args:
        job: the job of a method; nothing is written where it names no folder of all records.

    Raises:
        SpectrumError: if the record that is there is of other pictures, see `check_reference`.
    """
    check_reference(job)
    base = Job.of(job.base)
    shared, ledger = base.shared_record_path, whole_ledger(job.base_folder, job.samples)
    if shared is None or shared.exists() or ledger is None:
        return
    with held(base.folder.parent / f".{base.folder.name}.job.lock", wait=False) as mine:
        if not mine:
            return  # its own job is at work, and will write it
        record = read_record(base.record_path) if base.record_path.exists() else None
        if record is None or not fits(record, ledger, ledger):
            here = environment(device_of(job.config.device), job.config.offload)
            record = describe(base, ledger, ledger, {}, here)
        write_record(shared, record)
