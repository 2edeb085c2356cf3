"""The pictures that a job leaves beside its samples (sheet, film, timeline, forecast errors), and its report."""

from collections.abc import Sequence

from eval.figures import sheets
from eval.metrics.pictures import Pictures, load_images
from eval.reports.report import ReportSample, write_report
from spectrum.bench.job import Job
from spectrum.bench.prompts import Sample
from spectrum.config.sampling import Sampling
from spectrum.records.record import Record

SHOWN = 8


def wanted_pictures(job: Job, record: Record) -> list[str]:
    """The files that `draw_pictures` makes for a record, but for the film, which needs a package."""
    names = ["sheet.png", "timeline.png", "report.html"]
    return [*names, "error.png"] if any(record.forecast_errors.values()) else names


def draw_pictures(job: Job, record: Record) -> None:
    """Draw a job's sheet, its film if it has videos, its timeline, its forecast errors if probed, and its report.

    Args:
        job: the job, whose samples and reference are on disk.
        record: its record.
    """
    shown, folder, config = job.samples[:SHOWN], job.folder, job.config
    files = [sample.file for sample in shown]
    images = {
        f"all {config.model.steps} steps": load_images(job.base_folder / "images", files),
        f"{config.method.name}, {record.nfe:.3g} runs": load_images(folder / "images", files),
    }
    sheets.draw_sheet(folder / "sheet.png", [sample.prompt for sample in shown], images)
    if config.model.frames:
        videos = [list(Pictures(f / "images", files[:4]).videos()) for f in (job.base_folder, folder)]
        sheets.write_film(folder / "film.mp4", videos, config.model.fps or 8)
    steps = Sampling.of(config).steps
    sheets.draw_timeline(folder / "timeline.png", record.runs, steps, f"{record.label}: steps that ran the blocks")
    if any(record.forecast_errors.values()):
        title = f"{record.label}: forecast against the true feature, {min(config.probe, config.batch or 1)} samples"
        sheets.draw_forecast_errors(folder / "error.png", record.forecast_errors, title)
    write_report(folder / "report.html", {folder: record}, report_samples(job.samples))


def report_samples(samples: Sequence[Sample]) -> list[ReportSample]:
    """A job's samples as its report knows them."""
    return [ReportSample(sample.file, sample.prompt, sample.seed) for sample in samples]
