"""Scores of methods on a trace: of one method, of every stored run, and how well they agree with the closed loop."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torchmetrics.functional import spearman_corrcoef

from spectrum.bench.replay import replay, summary
from spectrum.bench.trace import Trace
from spectrum.config.methods import build_method
from spectrum.config.schema import ModelConfig, method_from
from spectrum.config.targets import shipped_targets
from spectrum.core.errors import SpectrumError, refuse
from spectrum.core.method import Method
from spectrum.models.fitted import fits_of
from spectrum.records.record import Record, read_records


@dataclass(frozen=True)
class Row:
    """How a method did on a trace: a line of the table. Errors are means over the skipped steps of every branch.

    Attributes:
        name: what the table calls the method.
        runs: run steps, the mean over the branches.
        distance: steps since the last run.
        feature, velocity: relative L2 errors of the feature and of the denoiser's output.
        total: `sum w`.
        l1: the largest `|w|_1`.
        reference: the id of the uncached run of a record; None where the method is of no record.
        psnr: the PSNR in dB that the record's own run gave, None where it has none.
    """

    name: str
    runs: float
    distance: float
    feature: float
    velocity: float
    total: float
    l1: float
    reference: str | None = None
    psnr: float | None = None


def score(name: str, trace: Trace, model: Any, method: Method) -> Row:
    """Score one method on a trace.

    Args:
        name: what the table calls it.
        trace: a full run.
        model: the denoiser that it was made with.
        method: the method.

    Returns:
        Its row.

    Raises:
        SpectrumError: if the method skips no step of the trace, or stores something that a trace does not hold.
    """
    runs, scores = replay(trace, model, method)
    if not scores:
        refuse(f"{name} skips no step of this trace, so there is nothing to score: type another method or schedule")
    mean = summary(scores)
    return Row(
        name=name,
        runs=sum(map(len, runs.values())) / len(runs),
        distance=mean["distance"],
        feature=mean["feature"],
        velocity=mean["velocity"],
        total=mean["total"],
        l1=max(s.l1 for s in scores),
    )


def scores_of_records(
    folder: Path, trace: Trace, model: Any, config: ModelConfig, say: Callable[[str], None]
) -> list[Row]:
    """Score the method of each record of a caching method on the traced model.

    Records of another number of steps are not counted. A record that a trace cannot score is left out. What a record
    names is not imported unless a shipped config names it too.

    Args:
        folder: the records.
        trace: a full run.
        model: the denoiser that it was made with.
        config: that model's config.
        say: told of each record that is left out, and why.

    Returns:
        A row for each record that is left, with its reference and PSNR.

    Raises:
        SpectrumError: if no record is left.
    """
    rows = []
    for record in read_records(folder):
        same = record.model_identity == trace.about["model"] and record.model["name"] == config.name
        same = same and record.steps == trace.steps
        if not (same and record.caches):
            continue
        try:
            method = method_of_record(record, fits_of(config))
            row = score(record.label, trace, model, method)
            rows.append(replace(row, reference=record.reference, psnr=record.metric("psnr")))
        except SpectrumError as error:
            say(f"left out: {record.id}: {error}")
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
    pair = torch.tensor([list(x), list(y)], dtype=torch.float64)
    return spearman_corrcoef(pair[0], pair[1]).item()


def agreement(rows: Sequence[Row]) -> list[tuple[int, float]]:
    """How well the velocity errors on a trace rank records as the PSNR of their own runs does.

    Args:
        rows: scored records.

    Returns:
        By reference that has at least three records with a PSNR: (how many, Spearman's rank correlation of velocity
        error and lost PSNR).
    """
    found = []
    for reference in sorted({row.reference for row in rows if row.reference is not None}):
        pairs = [(-r.velocity, r.psnr) for r in rows if r.reference == reference and r.psnr is not None]
        if len(pairs) > 2:
            found.append((len(pairs), rank_correlation(*zip(*pairs, strict=True))))
    return found
