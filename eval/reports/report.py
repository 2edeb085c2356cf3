"""Writes `report.html`: the table, the plots and the samples of one or several runs, and what they were made with.

The file holds everything that it shows, and its page may load nothing: a browser needs no network for it.
"""

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jinja2

from eval.figures import figures
from eval.figures.plotting import figure_bytes
from eval.metrics.columns import METRICS
from eval.reports.gallery import SIDE, ReportSample, build_gallery
from eval.tables.comparison import column_titles, record_cells, record_numbers, shown_metrics
from eval.timing import hardware_text
from spectrum.records.files import write_bytes
from spectrum.records.record import Record

__all__ = ["ReportSample", "report_html", "write_report"]


@dataclass(frozen=True)
class Plot:
    """A figure of a report.

    Attributes:
        uri: the SVG as a data URI.
        text: what it shows, also for those who cannot see it.
        wide: whether it takes the whole width of the page.
    """

    uri: str
    text: str
    wide: bool


def write_report(
    path: Path, records: Mapping[Path, Record], samples: Sequence[ReportSample], failed: Sequence[str] = ()
) -> None:
    """Write the report of one run, or of several with the same reference, whole or not at all.

    Args:
        path: the HTML file.
        records: by the folder of their samples, the records. The reference's samples lie in the folder beside theirs
            that their `reference` names; where samples are gone, the report has no gallery of them.
        samples: all samples, in the order of the records' values.
        failed: a line for each job that failed.
    """
    write_bytes(path, report_html(records, samples, failed).encode())


def report_html(records: Mapping[Path, Record], samples: Sequence[ReportSample], failed: Sequence[str] = ()) -> str:
    """The report's text. See `write_report` for the arguments."""
    found = list(records.values())
    metrics = shown_metrics(found)
    gallery = build_gallery(records, samples)
    page = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return page.get_template("report.html").render(
        title=_title(found),
        made_with=made_with(found),
        heads=column_titles(found),
        lines=[_line(record, metrics) for record in found],
        notes=list(_notes(found)),
        failed=failed,
        plots=_plots(found),
        gallery=asdict(gallery),
        side=SIDE,
        about=[(record.label, facts(record)) for record in found],
    )


def _title(records: Sequence[Record]) -> str:
    first = records[0]
    if len(records) == 1:
        return f"{first.label} on {first.model['name']}"
    return f"{len(records)} runs compared on {first.model['name']}"


def made_with(records: Sequence[Record]) -> str:
    """What figures of these records were made with, in one line: model, its kind, samples, device, versions, commit."""
    first = records[0]
    kinds = sorted({record.model_kind for record in records})
    machines = sorted({_machine(record.hardware) for record in records})
    torches = sorted({str(record.packages.get("torch")) for record in records})
    diffusers = sorted({str(record.packages.get("diffusers")) for record in records})
    commits = sorted({_commit(record) for record in records})
    prompts, seeds = _counted(len(first.prompts), "prompt"), _counted(len(first.seeds), "seed")
    samples = f"{_counted(first.samples, 'sample')} ({prompts} x {seeds})"
    return (
        f"{first.model['name']} ({', '.join(kinds)}), {first.model['width']}x{first.model['height']}, "
        f"{first.model['dtype']}, {first.steps} steps, {samples}; {', '.join(machines)}; "
        f"torch {', '.join(torches)}, diffusers {', '.join(diffusers)}, commit {', '.join(commits)}"
    )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _machine(hardware: Mapping[str, Any]) -> str:
    if "gpu" in hardware:
        return str(hardware["gpu"])
    return f"{hardware.get('device')}: {hardware_text(hardware)}"


def _commit(record: Record) -> str:
    commit = record.git.get("commit")
    if not commit:
        return "unknown"
    return str(commit)[:9] + (" with changes" if record.git.get("dirty") else "")


def facts(record: Record) -> list[tuple[str, str]]:
    """What one run was made with: (name, value) in the order of reading."""
    packages = ", ".join(f"{name} {version}" for name, version in record.packages.items() if version)
    timing = "none" if record.timing is None else f"{_machine(record.timing.hardware)}, batch {record.timing.batch}"
    return [
        ("id", record.id),
        ("model", f"{record.model['name']} ({record.model_kind})"),
        ("weights", record.model_identity),
        ("device", _machine(record.hardware)),
        ("timing", timing),
        ("versions", f"spectrum {record.spectrum}, Python {record.python}, {packages}"),
        ("commit", _commit(record)),
        ("command", record.command),
    ]


def _line(record: Record, metrics: Sequence[str]) -> list[tuple[str, str | float]]:
    """A line of the table: each cell's text, and the value that it is sorted by (empty where it has none)."""
    numbers = [record.label, *record_numbers(record, metrics)]
    if record.is_reference:  # equal to itself: better than any other
        best = [float("inf") if METRICS[name].better == "higher" else float("-inf") for name in metrics]
        same = [METRICS[name].identical is not None for name in metrics]
        start = len(numbers) - len(metrics)
        numbers[start:] = [b if s else n for b, s, n in zip(best, same, numbers[start:], strict=True)]
    texts = record_cells(record, metrics)
    return [(text, "" if number is None else number) for text, number in zip(texts, numbers, strict=True)]


def _notes(records: Sequence[Record]) -> Iterator[str]:
    """What a reader of the table has to know: warnings, and metrics that could not be computed."""
    warnings = {
        f"{METRICS[name].title if name in METRICS else name}: {entry.warning}"
        for record in records
        for name, entry in record.metrics.items()
        if entry.warning
    }
    absent = {reason for record in records for reason in record.left_out.values()}
    yield from sorted(warnings)
    yield from (f"Left out: {reason}" for reason in sorted(absent))


def _plots(records: Sequence[Record]) -> list[Plot]:
    """The plots that these records allow."""
    found: list[Plot] = []
    compared = [record for record in records if not record.is_reference]
    metric = next((name for name in shown_metrics(records) if METRICS[name].identical is not None), None)
    if metric is not None and len(compared) > 1:
        title = METRICS[metric].title
        found.append(_plot(figures.quality_panel(compared, metric, "runs"), f"{title} against block runs"))
        if any(record.timing for record in compared):
            made = figures.quality_panel(compared, metric, "speedup")
            found.append(_plot(made, f"{title} against the measured speed-up"))
    found.append(_plot(figures.timelines_figure(records, ""), "Steps that ran the blocks (first CFG branch)", True))
    probed = [record for record in compared if any(record.forecast_errors.values())]
    if probed:
        text = "Relative error of the forecast velocity at each skipped step"
        found.append(_plot(figures.errors_figure(probed, ""), text, True))
    return found


def _plot(figure: Any, text: str, wide: bool = False) -> Plot:
    svg = figure_bytes(figure, "svg", text)
    return Plot(f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}", text, wide)
