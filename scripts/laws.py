"""The laws that scripts/coverage.py draws tables from: invented ones, and ones made of the values in records."""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from spectrum.core.errors import refuse
from spectrum.records.record import Record, read_records

LIKENESS = 0.2
"""Correlation of the seeds of one prompt, on the scale on which the values are normal."""
GRID = 200_000
"""Points of a law at which its mean is worked out."""
ROUNDS = 9
"""Rounds of a timing."""

Law = Callable[[NDArray[Any]], NDArray[Any]]
"""A law of values, as a rising function of a standard normal number."""


def psnr_like(z: NDArray[Any]) -> NDArray[Any]:
    """PSNR in dB: normal, with a left tail that is half as long again two deviations out."""
    return 28 + 4 * np.where(z < 0, z * (1 - 0.25 * z), z)


INVENTED: dict[str, Law] = {
    "PSNR-like": psnr_like,
    "SSIM-like": lambda z: special.ndtr(1.5 + 0.9 * z),
    "LPIPS-like": lambda z: np.exp(z - 3.8),
}
SCALES: dict[str, tuple[str, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "psnr": ("PSNR of records", np.asarray, np.asarray),
    "ssim": ("SSIM of records", special.logit, special.expit),
    "st_lpips": ("ST-LPIPS of records", np.log, np.exp),
    "clip_score": ("CLIP of records", np.asarray, np.asarray),
}
"""By metric: what its law is called, the scale on which methods differ by mean and spread alone, and the way back."""
LOWER_IS_BETTER = ("LPIPS-like", "ST-LPIPS of records")


def measured(records: Sequence[Record], metric: str, scale: Callable[[Any], Any]) -> list[NDArray[Any]]:
    """The values of a metric in each record of a caching method, on a scale, if all are finite there."""
    found = []
    for record in (record for record in records if record.caches):
        entry = record.metrics.get(metric)
        stored = (entry.values if entry else None) or []
        with np.errstate(divide="ignore", invalid="ignore"):
            values = scale(np.array([np.nan if value is None else value for value in stored], dtype=np.float64))
        if len(values) > 1 and np.isfinite(values).all():
            found.append(values)
    return found


def pooled(samples: list[NDArray[Any]], back: Callable[[Any], Any] = np.asarray) -> Law:
    """A law with the shape of all methods' values together, and the mean and spread of the middle one.

    Args:
        samples: the values of each method, on the scale on which they are pooled.
        back: from that scale to the values.
    """
    spread = [values.std(ddof=1) for values in samples]
    unit = np.sort(np.concatenate([(v - v.mean()) / s for v, s in zip(samples, spread, strict=True) if s > 0]))
    at = special.ndtri((np.arange(len(unit)) + 0.5) / len(unit))
    mean, deviation = np.median([values.mean() for values in samples]), np.median(spread)
    return lambda z: back(mean + deviation * np.interp(z, at, unit))


def laws_of_records(folder: Path) -> tuple[dict[str, Law], dict[str, Law]]:
    """The laws of the metrics' values, and of the differences between two methods on the same samples.

    Args:
        folder: the folder of the records; those of caching methods are taken.

    Raises:
        SpectrumError: for a file that is no whole record, and where fewer than two have values of a metric.
    """
    records = read_records(folder)
    values: dict[str, Law] = {}
    differences: dict[str, Law] = {}
    for metric, (name, scale, back) in SCALES.items():
        samples = measured(records, metric, scale)
        pairs = [back(a) - back(b) for a, b in itertools.pairwise(samples) if len(a) == len(b)]
        if not pairs:
            refuse(
                f"records={folder} has no two records of caching methods with values of {metric}: type records=FOLDER "
                "with both"
            )
        values[name] = pooled(samples, back)
        differences[name] = pooled(pairs)
    return values, differences


def drawn(rng: np.random.Generator, law: Law, prompts: int, seeds: int, likeness: float = LIKENESS) -> list[float]:
    """One table's values by a law, prompts outermost."""
    own, shared = rng.standard_normal((prompts, seeds)), rng.standard_normal((prompts, 1))
    return law(np.sqrt(likeness) * shared + np.sqrt(1 - likeness) * own).ravel().tolist()


def truths(law: Law, lower_is_better: bool) -> tuple[float, float]:
    """The mean of a law, and the mean of its worst 5 %."""
    values = np.sort(law(special.ndtri((np.arange(GRID) + 0.5) / GRID)))
    worst = values[-GRID // 20 :] if lower_is_better else values[: GRID // 20]
    return float(values.mean()), float(worst.mean())


def seed_ranks(rng: np.random.Generator, prompts: int) -> NDArray[Any]:
    """Spearman's correlation of three seeds of each prompt between two runs whose scores correlate by 0.8."""
    scores = rng.standard_normal((prompts, 3))
    others = 0.8 * scores + 0.6 * rng.standard_normal((prompts, 3))
    gaps = scores.argsort(1).argsort(1) - others.argsort(1).argsort(1)
    return 1 - (gaps**2).sum(1) / 4


def slowed(rng: np.random.Generator, scale: float, median: float = 3.0) -> list[float]:
    """Speed-ups of the rounds of a row, by its true median: a few rounds are far off, as with other work beside."""
    return (median * np.exp(scale * rng.standard_t(3, ROUNDS))).tolist()
