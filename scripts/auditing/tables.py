"""Works out the committed tables from the records: every number of a CSV, every cell of the Markdown and LaTeX."""

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from auditing import arithmetic as own
from auditing.cells import cells_of
from auditing.findings import SHARE, Findings
from auditing.records import METRICS, Record, seeds_of, timing_figures

Line = dict[str, str]


def check_tables(records: Mapping[str, Record], tables: Path, findings: Findings, others: Iterable[str] = ()) -> None:
    """Work every table of a folder out again.

    Args:
        records: the records by id.
        tables: the folder.
        findings: what was compared.
        others: the names of tables that are made of something else than records.
    """
    others = set(others)
    for path in sorted(tables.glob("*.csv")):
        with path.open(newline="") as file:
            lines = list(csv.DictReader(file))
        if path.stem in others:
            continue
        shown = [(line, records.get(line["id"])) for line in lines]
        if all(record is None for _, record in shown):
            findings.leave("a table none of whose rows has a record of this format")
            continue
        for line, record in shown:
            if line["id"] and record is None:
                findings.compare("rows of tables", f"{path.stem} {line['id']}", "no such record", "its record")
        heads, rows = markdown_rows(path.with_suffix(".md").read_text())
        _check_csv(path.stem, shown, records, against_of(heads), findings)
        beyond = [beyond_controls(record, records.values()) if record else "" for _, record in shown]
        _check_cells(path, heads, rows, shown, beyond, findings)
        _check_order(path, [record for _, record in shown if record is not None], findings)


def markdown_rows(text: str) -> tuple[list[str], list[list[str]]]:
    """The heads and rows of the first table in a Markdown text."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return cells[0], cells[2:]


def against_of(heads: Sequence[str]) -> str | None:
    """The method that a table's PSNRs are compared with, from its heads."""
    found = [head.removeprefix("PSNR less ").removesuffix("'s") for head in heads if head.startswith("PSNR less ")]
    return found[0] if found else None


def _check_csv(
    name: str,
    shown: Sequence[tuple[Line, Record | None]],
    records: Mapping[str, Record],
    against: str | None,
    findings: Findings,
) -> None:
    """Compare every number of a CSV with what the records' raw values give."""
    rivals = [r for _, r in shown if r is not None and r["method"]["name"] == against]
    for line, record in shown:
        if record is None:
            continue
        where = f"{name} {record['id']}"
        for column, made in numbers_of(record).items():
            if column in line:
                findings.compare("numbers of tables", f"{where} {column}", number(line[column]), made)
        for metric, entry in record["metrics"].items():
            for part in ("interval", "worst_interval"):
                stored = number(line[f"{metric}_{part}"])
                findings.compare("numbers of tables", f"{where} {metric}_{part}", stored, entry[part])
        _check_difference(where, line, record, rivals, records, findings)
        _check_at_latency(where, line, record, records, findings)
    if against is not None:
        p = [number(line["psnr_difference_p"]) for line, _ in shown]
        for (line, _), made in zip(shown, own.holm(p), strict=True):
            stored = number(line["psnr_difference_p_holm"])
            findings.compare("p values adjusted by Holm", f"{name} {line['id']}", stored, made)


def number(text: str) -> float | None:
    """A cell of a CSV as a number; None where it is empty."""
    return float(text) if text else None


def numbers_of(record: Record) -> dict[str, float | None]:
    """The numbers of a record's line in a CSV that follow from its raw values, by column."""
    found: dict[str, float | None] = {"nfe": float(np.mean(record["nfe_by_sample"])), "steps": float(record["steps"])}
    timing = record["timing"]
    made = timing_figures(timing["rounds"], timing["batch"]) if timing else {}
    found |= {"seconds": made.get("candidate denoise"), "speedup": made.get("speedup")}
    found |= {"speedup_low": made.get("low"), "speedup_high": made.get("high"), "timed_nfe": made.get("nfe")}
    found["efficiency"] = made["speedup"] * made["nfe"] / record["steps"] if timing else None
    for metric, entry in record["metrics"].items():
        values = entry["values"]
        found[f"{metric}_mean"] = entry["mean"] if values is None else own.mean(values)
        higher = METRICS.get(metric, ("", 0, True))[2]
        found[f"{metric}_worst_5_percent"] = None if values is None else own.worst_mean(values, higher)
    if "psnr" in record["metrics"] and record["metrics"]["psnr"]["values"] and (record["model"]["frames"] or 1) == 1:
        found["psnr_of_mean_mse"] = own.psnr_of_mean_error(record["metrics"]["psnr"]["values"])
    return found


def _check_difference(
    where: str,
    line: Line,
    record: Record,
    rivals: Sequence[Record],
    records: Mapping[str, Record],
    findings: Findings,
) -> None:
    """Compare the paired differences of a row: PSNR to its rival at the same runs, CLIP to the uncached run."""
    near = [other for other in rivals if abs(other["nfe"] - record["nfe"]) <= 0.75]
    rival = min(near, key=lambda other: abs(other["nfe"] - record["nfe"]), default=None)
    gaps = _gaps(record, rival, "psnr") if rival is not record else None
    mean, low, high, p = (number(line[f"psnr_difference{end}"]) for end in ("", "_low", "_high", "_p"))
    findings.compare("paired differences", f"{where} PSNR", mean, own.mean(gaps) if gaps else None)
    half, chance = own.test_of_mean(gaps, seeds_of(record, "psnr")) if gaps else (None, None)
    stored = None if low is None or high is None else (high - low) / 2
    findings.compare("intervals of differences", f"{where} PSNR", stored, half)
    findings.compare("p values of differences", f"{where} PSNR", p, chance)
    gaps = _gaps(record, records.get(record["reference"]), "clip_score")
    if line["clip_difference"] and gaps:
        findings.compare("paired differences", f"{where} CLIP", number(line["clip_difference"]), own.mean(gaps))
        half = own.test_of_mean(gaps, seeds_of(record, "clip_score"))[0]
        stored = number(line["clip_difference_interval"])
        findings.compare("intervals of differences", f"{where} CLIP", stored, half)


def _gaps(record: Record, other: Record | None, metric: str) -> list[float | None] | None:
    """A metric of one record less that of another, sample by sample; None where either has no values."""
    both = [r["metrics"].get(metric, {}).get("values") for r in (record, other) if r is not None]
    if len(both) < 2 or not all(values and any(v is not None for v in values) for values in both):
        return None
    return own.differences(both[0], both[1])


def _check_at_latency(
    where: str, line: Line, record: Record, records: Mapping[str, Record], findings: Findings
) -> None:
    """Compare the PSNR of plain sampling with as many steps as take the row's time."""
    at, points = _points(record, records.values())
    made = own.between(at, points, len(record["seeds"])) if at else None
    for number_of, column in enumerate(("psnr_at_latency", "psnr_at_latency_interval")):
        stored = number(line[column])
        findings.compare("Euler at this latency", f"{where} {column}", stored, made[number_of] if made else None)


def beyond_controls(record: Record, records: Iterable[Record]) -> str:
    """What stands under "Euler at this latency" where a row is faster or slower than every control."""
    at, points = _points(record, records)
    if at is None or len(points) < 2:
        return "-"
    beyond = at[0] > points[-1][0][0]
    return f"{'below' if beyond else 'above'} {own.mean(points[-1 if beyond else 0][1]):.2f}"


def _points(
    record: Record, records: Iterable[Record]
) -> tuple[own.Speedup | None, list[tuple[own.Speedup, own.Values]]]:
    """(a row's speed-up, speed-up and PSNRs of plain sampling with fewer steps on the same data, slowest first)."""
    if record["timing"] is None or record["method"]["name"] in ("none", "fewer_steps"):
        return None, []
    points = []
    for other in records:
        psnr = other["metrics"].get("psnr", {}).get("values") or []
        control = other["method"]["name"] == "fewer_steps" and other["timing"] is not None
        if control and same_data(other, record) and any(value is not None for value in psnr):
            points.append((_speedup(other), psnr))
    return _speedup(record), sorted(points, key=lambda point: point[0][0])


def _speedup(record: Record) -> own.Speedup:
    made = timing_figures(record["timing"]["rounds"], record["timing"]["batch"])
    return made["speedup"], made["low"], made["high"]


def same_data(record: Record, other: Record) -> bool:
    """Whether two records were made with the same model, size, steps, prompts, seeds and batch."""
    keys = ("prompts", "seeds", "batch", "steps", "model_identity")
    model = ("name", "height", "width", "dtype", "call")
    return all(record[key] == other[key] for key in keys) and all(
        record["model"][k] == other["model"][k] for k in model
    )


def _check_cells(
    path: Path,
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    shown: Sequence[tuple[Line, Record | None]],
    beyond: Sequence[str],
    findings: Findings,
) -> None:
    """Compare the Markdown's cells with the CSV's numbers as text, and the LaTeX and the README with the Markdown."""
    findings.compare("cells of tables", f"{path.stem} number of rows", len(rows), len(shown))
    for row, (line, record), outside in zip(rows, shown, beyond, strict=False):
        for head, cell in zip(heads, row, strict=True):
            if record is None or head.startswith("published "):
                continue
            made = cells_of(line, record, head, outside)
            findings.compare("cells of tables", f"{path.stem} {record['id']} {head}", cell, made)
    plain = [list(heads), *map(list, rows)]
    findings.compare("cells in LaTeX", path.stem, latex_rows(path.with_suffix(".tex").read_text()), plain)
    readme = path.parent.parent.parent / "README.md"
    front = readme.read_text() if readme.exists() else ""
    mark = re.search(rf"<!-- table {path.stem} -->\n\n(.*?)\n<!-- end -->", front, re.S)
    if mark:
        text = path.with_suffix(".md").read_text().partition("\n\n")[2]
        findings.compare("tables in the README", path.stem, mark[1], text)


def latex_rows(text: str) -> list[list[str]]:
    """The rows of a booktabs tabular as plain text."""
    found = []
    for line in text.splitlines():
        if line.endswith(r" \\"):
            plain = line.removesuffix(r" \\").replace(r"\&", "\0").replace(r"$\pm$", "±")
            plain = re.sub(r"\\([%_#])", r"\1", plain)
            found.append([cell.replace("\0", "&") for cell in plain.split(" & ")])
    return found


def _check_order(path: Path, records: Sequence[Record], findings: Findings) -> None:
    """Compare in how many resamples the order of a table's rows comes back."""
    text = path.with_suffix(".md").read_text()
    for rows, runs, share in re.findall(r"of the (\d+) rows at (\d+) runs in (\d+) %", text):
        near = [r for r in records if abs(r["nfe"] - int(runs)) <= 0.5 and r["method"]["name"] != "none"]
        findings.compare("orders of methods", f"{path.stem} rows at {runs} runs", int(rows), len(near))
        values = [record["metrics"]["psnr"]["values"] for record in near]
        made = own.order_share(values, seeds_of(near[0], "psnr"))
        findings.compare("orders of methods", f"{path.stem} at {runs} runs", int(share) / 100, made, SHARE)
