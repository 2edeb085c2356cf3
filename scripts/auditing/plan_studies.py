"""Works out the tables of plan studies, Markdown and CSV, from the values in results/plan_study."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from auditing import arithmetic as own
from auditing.findings import Findings

GROUP = "figures of plan studies"
WORST = "PSNR, worst 5 %"


def check_plan_studies(studies: Path, tables: Path, findings: Findings) -> None:
    """Work the table of every study out again.

    Args:
        studies: the folder of the studies.
        tables: the folder of the tables.
        findings: what was compared.
    """
    for path in sorted(studies.glob("*.json")):
        study = json.loads(path.read_text())
        rows, per = study["rows"], len(study["seeds"])
        with (tables / f"{study['name']}.csv").open(newline="") as file:
            _check_csv(study["name"], list(csv.DictReader(file)), rows, per, findings)
        text = (tables / f"{study['name']}.md").read_text()
        _check_cells(study["name"], text, rows, per, findings)


def _figures(row: dict[str, Any], per: int) -> dict[str, float | None]:
    """The figures of a row: mean, half of its interval, and the mean of the worst twentieth."""
    half, _ = own.test_of_mean(row["psnr"], per)
    return {"psnr": own.mean(row["psnr"]), "psnr_interval": half, "psnr_worst": own.worst_mean(row["psnr"], True)}


def _check_csv(
    name: str, lines: Sequence[dict[str, str]], rows: Sequence[dict[str, Any]], per: int, findings: Findings
) -> None:
    findings.compare(GROUP, f"{name} lines", len(lines), len(rows))
    for number, (line, row) in enumerate(zip(lines, rows, strict=False)):
        for key, value in _figures(row, per).items():
            findings.compare(GROUP, f"{name} line {number} {key}", float(line[key]), value)
        findings.compare(GROUP, f"{name} line {number} nfe", float(line["nfe"]), float(row["nfe"]))


def _check_cells(name: str, text: str, rows: Sequence[dict[str, Any]], per: int, findings: Findings) -> None:
    """Each `mean ± half` of a Markdown table is that of a row, and each row has its cell."""
    made = [_figures(row, per) for row in rows]
    lines = [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    heads = lines[0]
    at = heads.index(WORST) if WORST in heads else None
    shown = [cell for line in lines[2:] for number, cell in enumerate(line) if "±" in cell and number != at]
    wanted = [f"{figures['psnr']:.2f} ± {figures['psnr_interval']:.2f}" for figures in made]
    findings.compare(GROUP, f"{name} cells", " ".join(sorted(shown)), " ".join(sorted(wanted)))
    if at is not None:
        shown = [line[at].partition(" ± ")[0] for line in lines[2:]]
        findings.compare(GROUP, f"{name} worst", " ".join(shown), " ".join(f"{own['psnr_worst']:.2f}" for own in made))
