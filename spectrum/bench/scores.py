"""Scores of methods on a trace: of one method, of every stored run, and how well they agree with the closed loop."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spectrum.bench.replay import replay, summary
from spectrum.bench.trace import Trace
from spectrum.config.methods import build_method
from spectrum.config.schema import ModelConfig, method_from
from spectrum.config.targets import shipped_targets
from spectrum.core.errors import SpectrumError, refuse
from spectrum.core.method import Method
from spectrum.models.fitted import fits_of
from spectrum.records.record import Record, read_records


def score(name: str, trace: Trace, model: Any, method: Method) -> dict[str, Any]:
    """One line of the table: runs and the means of `spectrum.bench.replay.summary`, |w|_1 at its largest."""
    runs, scores = replay(trace, model, method)
    mean = sum(map(len, runs.values())) / len(runs)
    return {"name": name, "runs": mean, **summary(scores), "l1": max((s.l1 for s in scores), default=1.0)}


def scores_of_records(folder: Path, trace: Trace, model: Any, config: ModelConfig) -> list[dict[str, Any]]:
    """A row for each record of a caching method on the traced model, with its reference and closed-loop PSNR.

    Records of another number of steps are not counted. A record that a trace cannot score is left out with a
    line that says why. What a record names is not imported unless a shipped config names it too.

    Raises:
        SpectrumError: if no record is left.
    """
    rows = []
    for record in read_records(folder):
        same = record.model_identity == trace.about["model"] and record.model["name"] == config.name
        same = same and record.steps == trace.steps
        if not (same and record.caches):
            continue
        closed = {"reference": record.reference, "psnr": record.metric("psnr")}
        try:
            method = method_of_record(record, fits_of(config))
            rows.append(score(record.label, trace, model, method) | closed)
        except SpectrumError as error:
            print(f"left out: {record.id}: {error}", file=sys.stderr)
    return rows or refuse(f"{folder} has no record of a caching method on the traced weights that can be scored")


def method_of_record(record: Record, fits: Mapping[str, Any]) -> Method:
    """The method that made a record, from functions that shipped configs name.

    Raises:
        SpectrumError: if the record names others, or its settings are no method's.
    """
    try:
        settings = method_from(record.method)
    except (TypeError, ValueError) as error:
        return refuse(f"its method cannot be read ({error})")
    return build_method(settings, record.schedule, fits, allowed=shipped_targets())


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's rank correlation, with the mean rank for equal values.

    Example:
        >>> round(rank_correlation([1, 2, 3], [10, 20, 15]), 3)
        0.5
    """
    import torch
    from torchmetrics.functional import spearman_corrcoef

    pair = torch.tensor([list(x), list(y)], dtype=torch.float64)
    return spearman_corrcoef(pair[0], pair[1]).item()


def agreement(rows: list[dict[str, Any]]) -> list[tuple[int, float]]:
    """(how many, Spearman's rank correlation of velocity error and lost PSNR) of the rows of each reference."""
    found = []
    for reference in sorted({r["reference"] for r in rows}):
        same = [r for r in rows if r["reference"] == reference and r["psnr"] is not None]
        if len(same) > 2:
            found.append((len(same), rank_correlation([-r["velocity"] for r in same], [r["psnr"] for r in same])))
    return found
