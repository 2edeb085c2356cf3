"""Works out the table of the benchmark on a CPU from the raw seconds in results/cpu."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from auditing import arithmetic as own
from auditing.findings import Findings

GROUP = "figures of the benchmark on a CPU"
PRINTED = 1e-5
"""Six digits are printed."""


def check_cpu(folder: Path, tables: Path, findings: Findings) -> None:
    """Work out speed-ups, NFE and PSNR of every side of the embedded model, and images per minute.

    Args:
        folder: that of the raw values.
        tables: that of the tables.
        findings: what was compared.
    """
    part = json.loads((folder / "embedded.json").read_text())
    with (tables / "cpu.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    findings.compare(GROUP, "sides", [line["side"] for line in lines], [*part["sides"]])
    for line in lines:
        side = part["sides"][line["side"]]
        made: dict[str, float | None] = {"nfe": sum(side["calls"]) / max(part["uncached"]["calls"])}
        for clock, names in (("denoise", ("speedup", "low", "high")), ("cpu", ("cpu_speedup", "cpu_low", "cpu_high"))):
            made |= dict(zip(names, own.median_with_ends(_ratios(side, clock)), strict=True))
        made |= {"held_bytes": side["held"], "psnr": own.mean([v for v in side["psnr"] if v is not None])}
        for name, value in made.items():
            shown = None if line[name] == "same" else float(line[name].split()[0])
            findings.compare(GROUP, f"{line['side']} {name}", shown, value, PRINTED)
    _check_throughput(json.loads((folder / "throughput.json").read_text()), (tables / "cpu.md").read_text(), findings)


def _ratios(side: Mapping[str, Any], clock: str) -> list[float]:
    """Of each round, the mean of the uncached calls around a call over that call."""
    return [(r["before"][clock] + r["after"][clock]) / 2 / r["candidate"][clock] for r in side["rounds"]]


def _check_throughput(part: Mapping[str, Any], page: str, findings: Findings) -> None:
    """The images per minute of each side and how many times a loop's they are, in the order of the page's lines."""
    shown = page.partition("times the cached loop |\n")[2].splitlines()[1 : 1 + len(part["rounds"][0])]
    for line, name in zip(shown, part["rounds"][0], strict=True):
        made = [f"{np.median([rates[name] for rates in part['rounds']]):.1f}"]
        for loop in ("loop none", "loop spectrum"):
            value, low, high = own.median_with_ends([rates[name] / rates[loop] for rates in part["rounds"]])
            made.append("1" if name == loop else f"{value:.2f} [{low:.2f}, {high:.2f}]")
        cells = [cell.strip() for cell in line.split("|")[3:6]]
        for what, cell, wanted in zip(("a minute", "of none", "of spectrum"), cells, made, strict=True):
            findings.compare(GROUP, f"images {what}, {name}", cell, wanted)
