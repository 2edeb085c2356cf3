"""After a multirun: a table and a sheet over its jobs, one for each reference that they share.

Jobs may run in other processes, or on other machines with one file system, so each leaves a line in the sweep's folder.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from eval.figures import sheets
from eval.tables.comparison import comparison_csv, comparison_markdown, comparison_order, print_table
from spectrum.bench.loggers import logger_of
from spectrum.bench.prompts import numbered_samples
from spectrum.bench.workers import Worker, launched_worker
from spectrum.config.compose import as_list
from spectrum.records.files import identity, write_bytes, write_json
from spectrum.records.record import Record, read_record


def sweep_folder(config: DictConfig) -> Path:
    """The folder of a multirun, the same for all its jobs."""
    return Path(config.hydra.sweep.dir)


FAILED = "failed: "
"""What a job returns in the place of its folder when it failed, followed by the reason."""


class SweepEnd(BaseException):
    """Leaves a multirun with an error. No `Exception`: Hydra turns those of a callback into warnings.

    Attributes:
        error: what went wrong with the comparison itself; None if only jobs failed.
    """

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.error = error


class ComparisonCallback(Callback):
    """Collects what each job of a multirun left, and shows it together when the last one has ended.

    A job that failed is shown with its reason. Where several workers do the same jobs, the first one does this alone.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Forget the jobs of an earlier multirun in the same folder."""
        if not _worker(config).first:
            return
        for note in (sweep_folder(config) / "jobs").glob("*.json"):
            note.unlink()

    def on_job_end(self, config: DictConfig, job_return: Any, **kwargs: Any) -> None:
        """Leave a line for a job in the sweep's folder: the folder of its samples, or why it failed."""
        if not str(config.hydra.mode).endswith("MULTIRUN") or not _worker(config).first:
            return
        note = sweep_folder(config) / "jobs" / f"{config.hydra.job.num}.json"
        words = " ".join(config.hydra.overrides.task)
        if job_return.status == JobStatus.COMPLETED:
            value = str(job_return.return_value)
            failed = value.startswith(FAILED)
            found = {"error": value.removeprefix(FAILED)} if failed else {"folder": str(Path(value).resolve())}
        else:
            found = {"error": (str(getattr(job_return, "_return_value", "")) or "broken off").splitlines()[0]}
        write_json(note, {"job": words, **found})

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print each comparison, write its table and its sheet, and name the jobs that failed.

        Raises:
            SweepEnd: if a job or a comparison failed.
        """
        if not _worker(config).first:
            return
        try:
            failed = _compare_jobs(config)
        except Exception as error:
            raise SweepEnd(error) from None
        if failed:
            raise SweepEnd


def _worker(config: DictConfig) -> Worker:
    """Which of the processes that do the same jobs this is."""
    return launched_worker(str(config.hydra.launcher["_target_"]))


def _compare_jobs(config: DictConfig) -> int:
    """Print and write the comparisons of a multirun; the number of jobs that failed."""
    base = sweep_folder(config)
    notes = sorted((base / "jobs").glob("*.json"), key=lambda path: int(path.stem))
    jobs = [json.loads(path.read_text()) for path in notes]
    folders = list(dict.fromkeys(Path(job["folder"]) for job in jobs if "folder" in job))
    failed = [f"failed: {job['job']}: {job['error']}" for job in jobs if "error" in job]
    records = {folder: read_record(folder / "record.json") for folder in folders}
    settings: Any = OmegaConf.to_container(config.logger) if config.get("logger") else None
    logger = logger_of(settings, config.out, as_list(config.plugins))
    for reference in sorted({record.reference for record in records.values()}):
        compared = {f: r for f, r in records.items() if r.reference == reference}
        compared = dict(sorted(compared.items(), key=lambda item: comparison_order(item[1])))
        folder = base / identity([r.id for r in compared.values()])
        write_comparison(compared, folder, failed)
        if logger is not None:
            logger.comparison(list(compared.values()), folder, base.name)
    for line in failed:
        print(line)
    return len(failed)


def write_comparison(records: Mapping[Path, Record], folder: Path, failed: Sequence[str] = ()) -> None:
    """Print the comparison of runs of one reference, and write it under a folder.

    Args:
        records: by the folder of their samples, their records.
        folder: where `comparison.md`, `comparison.csv`, `records.json`, `sheet.png` and `report.html` go.
        failed: a line for each job that failed, for below the table.
    """
    from eval.reports.report import write_report  # as in draw_comparison_sheet
    from spectrum.bench.drawing import report_samples

    compared = list(records.values())
    below = "".join(f"\n{line}\n" for line in failed)
    write_bytes(folder / "comparison.md", (comparison_markdown(compared) + below).encode())
    write_bytes(folder / "comparison.csv", comparison_csv(compared).encode())
    write_json(folder / "records.json", [str(f / "record.json") for f in records])
    draw_comparison_sheet(folder / "sheet.png", records)
    samples = report_samples(numbered_samples(compared[0].prompts, compared[0].seeds))
    write_report(folder / "report.html", records, samples, failed)
    print_table(compared)
    Console().print(f"comparison: {folder}", highlight=False, soft_wrap=True)


def draw_comparison_sheet(path: Path, records: Mapping[Path, Record], columns: int = 8) -> None:
    """Draw the reference and every other run for the first prompts, with differences while there are few runs.

    Runs whose samples are not here are left out; without those of the reference there is no sheet.
    """
    from eval.metrics.pictures import load_images  # torch, which help and errors do not wait for

    folder, first = next(iter(records.items()))
    files = [f"{i:05d}-s{first.seeds[0]}.png" for i in range(min(columns, len(first.prompts)))]
    reference = folder.parent / first.reference
    if not _has_images(reference, files):
        return
    images = {f"all {first.steps} steps": load_images(reference / "images", files)}
    for folder, record in records.items():
        if not record.is_reference and _has_images(folder, files):
            images[f"{record.label}, {record.nfe:.3g} runs"] = load_images(folder / "images", files)
    sheets.draw_sheet(path, first.prompts[: len(files)], images, gain=4.0 if len(images) < 6 else None)


def _has_images(folder: Path, files: list[str]) -> bool:
    return all((folder / "images" / name).exists() for name in files)
