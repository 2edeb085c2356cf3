"""Tables of records, as Markdown, LaTeX and CSV. Pure functions of records; torch is not imported."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eval import statistics
from eval.metrics.columns import METRICS
from eval.tables.comparison import column_titles, markdown_table, record_cells, shown_metrics
from eval.tables.experiments import Experiment, Row, find_record, made_on_same_data
from spectrum.records.record import Record

PUBLISHED = {
    "speedup": "speed-up", "psnr": "PSNR (dB)", "ssim": "SSIM", "lpips": "LPIPS", "image_reward": "ImageReward",
    "vbench_quality": "VBench quality", "fid": "FID",
}  # fmt: skip
NONE = "-"
EXPLAINED = (
    "Fidelity is to the uncached run on the same noise. Mean ± half of the 95 % bootstrap interval over samples, "
    "differences with their paired interval. Latency is denoising per image, speed-up its ratio to the uncached run in "
    "the same process, efficiency the speed-up over steps / runs. Euler at this latency is the PSNR of plain sampling "
    "with as many steps as take the same time, between the measured controls."
)


@dataclass(frozen=True)
class Filled:
    """An experiment with the record of each of its rows, None where it is missing."""

    experiment: Experiment
    rows: list[tuple[Row, Record | None]]
    controls: list[Record]
    """Every record of plain sampling with fewer steps on the same data, also at runs that are no row."""

    @property
    def records(self) -> list[Record]:
        """The records that are there."""
        return [record for _, record in self.rows if record is not None]

    @property
    def missing(self) -> list[Row]:
        """The rows that have none."""
        return [row for row, record in self.rows if record is None]


def match_rows(experiment: Experiment, records: Sequence[Record]) -> Filled:
    """Find each row's record; the uncached run first, then most runs first, as the experiment lists them."""
    same = made_on_same_data(records, experiment.data)
    pairs = [(row, find_record(row, same)) for row in experiment.rows]

    def order(pair: tuple[Row, Record | None]) -> tuple[bool, float]:
        row, record = pair
        return row.keys["method"] != "none", -float(row.keys.get("runs") or (record.nfe if record else 0))

    controls = [r for r in same if r.name == "fewer_steps"]
    return Filled(experiment, sorted(pairs, key=order), controls)


def heads(filled: Filled) -> list[str]:
    """Column heads: method, cost, each metric, worst cases, the paired difference, published figures."""
    found = list(column_titles(filled.records))
    if filled.records:
        found += ["PSNR, worst 5 %", "Euler at this latency"]
        found += [f"PSNR less {filled.experiment.against}'s"] if filled.experiment.against else []
    return found + [f"published {PUBLISHED[key]}" for key in _published(filled)]


def _published(filled: Filled) -> list[str]:
    return [key for key in PUBLISHED if any(row.published.get(key) for row, _ in filled.rows)]


def cells(filled: Filled, row: Row, record: Record | None) -> list[str]:
    """One row of the table, as text."""
    metrics = shown_metrics(filled.records)
    if record is None:
        blank = [row.label, *[NONE] * (len(heads(filled)) - 1 - len(_published(filled)))]
    else:
        blank = [cell or NONE for cell in record_cells(record, metrics)]
        blank += [_worst(record), same_latency(record, filled.controls)]
        blank += [difference(filled, row, record)] if filled.experiment.against else []
    return blank + [row.published.get(key) or NONE for key in _published(filled)]


def _worst(record: Record) -> str:
    value = record.metrics["psnr"].worst_5_percent if "psnr" in record.metrics else None
    return NONE if value is None else f"{value:.2f}"


def same_latency(record: Record, controls: Sequence[Record]) -> str:
    """PSNR of plain sampling with fewer steps at the record's speed-up, between the control's measured points.

    Speed-ups are ratios within each record's own process, so points of different runs may be joined.
    """
    points = sorted(
        (r.timing.speedup, psnr) for r in controls if r.timing is not None and (psnr := r.metric("psnr")) is not None
    )
    if record.name in ("none", "fewer_steps") or record.timing is None or len(points) < 2:
        return NONE
    at, speeds = record.timing.speedup, [speed for speed, _ in points]
    if not speeds[0] <= at <= speeds[-1]:
        return f"below {points[-1][1]:.2f}" if at > speeds[-1] else f"above {points[0][1]:.2f}"
    return f"{np.interp(at, speeds, [value for _, value in points]):.2f}"


def difference(filled: Filled, row: Row, record: Record) -> str:
    """Mean PSNR less that of the experiment's named method at the same runs, with its paired 95 % interval."""
    rivals = [
        other
        for r, other in filled.rows
        if other is not None and r.keys["method"] == filled.experiment.against and _setting(r) == _setting(row)
    ]
    own = record.metrics["psnr"].values if "psnr" in record.metrics else None
    if not rivals or rivals[0] is record or not own or not any(v is not None for v in own):
        return NONE
    mean, low, high = statistics.paired(own, rivals[0].metrics["psnr"].values or [])
    return f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"


def _setting(row: Row) -> dict[str, Any]:
    return {key: value for key, value in row.keys.items() if key != "method" and not key.startswith("method.")}


def about(filled: Filled) -> str:
    """What the measured rows were made on, one paragraph."""
    if not filled.records:
        return "No row of this table has been measured; published figures stand alone."
    first = filled.records[0]
    kinds = sorted({r.model_kind for r in filled.records})
    chips = sorted({f"{t.hardware['cpu']} with {t.hardware['threads']} threads" if "gpu" not in t.hardware
                    else t.hardware["gpu"] for t in (r.timing for r in filled.records) if t})  # fmt: skip
    commits = sorted({str(r.git["commit"])[:9] for r in filled.records})
    batches = sorted({str(r.timing.batch) for r in filled.records if r.timing})
    timed = f" Timed on {', '.join(chips)}, {first.model['dtype']}, batch {', '.join(batches)}." if chips else ""
    notes = sorted({f"{METRICS[n].title}: {m.warning}." for r in filled.records for n, m in r.metrics.items()
                    if m.warning})  # fmt: skip
    made = (
        f"Model `{first.model['name']}` ({', '.join(kinds)}), {first.samples} samples "
        f"({len(first.prompts)} prompts x {len(first.seeds)} seeds), {first.steps} steps.{timed} "
        f"torch {first.packages['torch']}, commit {', '.join(commits)}. "
    )
    return " ".join([made + EXPLAINED, *notes])


def markdown(filled: Filled) -> str:
    """The table with what it was made on, and under it the commands of what is missing."""
    text = f"{about(filled)}\n\n{markdown_table(heads(filled), [cells(filled, *pair) for pair in filled.rows])}"
    if filled.missing:
        commands = "\n".join(row.command for row in filled.missing)
        text += f"\nNot measured yet; these commands make the missing rows:\n\n```bash\n{commands}\n```\n"
    return text


def latex(filled: Filled) -> str:
    """The table as a booktabs tabular, with the missing rows' commands as comments."""
    escape = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "±": r"$\pm$"}

    def clean(text: str) -> str:
        return "".join(escape.get(letter, letter) for letter in text)

    titles = heads(filled)
    lines = [f"% {about(filled)}", rf"\begin{{tabular}}{{l{'r' * (len(titles) - 1)}}}", r"\toprule"]
    lines += [" & ".join(map(clean, titles)) + r" \\", r"\midrule"]
    lines += [" & ".join(map(clean, cells(filled, *pair))) + r" \\" for pair in filled.rows]
    lines += [r"\bottomrule", r"\end{tabular}", *(f"% missing: {row.command}" for row in filled.missing)]
    return "\n".join(lines) + "\n"


def plain(filled: Filled) -> str:
    """The table as CSV with full numbers: mean, half-interval and worst 5 % of every metric in columns of their own."""
    metrics = shown_metrics(filled.records)
    parts = [(name, part) for name in metrics for part in ("mean", "interval", "worst_5_percent")]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    columns = ["method", "id", "nfe", "steps", "seconds", "speedup", "efficiency"]
    writer.writerow([*columns, *(f"{name}_{part}" for name, part in parts), "missing_command"])
    for row, record in filled.rows:
        if record is None:
            writer.writerow([row.label, *[""] * (len(columns) - 1 + len(parts)), row.command])
            continue
        timing = record.timing
        cost = [""] * 3
        if timing:
            cost = [timing.seconds_per_sample["candidate"]["denoise"], timing.speedup, record.efficiency]
        values = [getattr(record.metrics.get(name), part, "") for name, part in parts]
        writer.writerow([record.label, record.id, record.nfe, record.steps, *cost, *values, ""])
    return out.getvalue()
