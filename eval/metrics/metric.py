"""What every metric is: a function of samples, their reference and their prompts, keyword parameters aside.

`metric(samples, reference, prompts, **parameters) -> Result`. `samples` and `reference` are `Pictures`, read in batches
as the metric asks for them; a metric that needs no reference ignores it. Values are float64.
"""

import dataclasses
import hashlib
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from eval import statistics
from eval.metrics.columns import METRICS
from eval.metrics.pictures import Pictures
from spectrum.core.errors import SpectrumError, refuse

BATCH = 64


class AbsentError(SpectrumError):
    """A metric's weights or package is not on this machine. The message names it and says how to get it."""


@dataclass(frozen=True)
class Result:
    """What a metric says of one set of samples.

    Attributes:
        aggregate: the figure for tables; the mean of `values` where there are any.
        values: one number a sample, in order; None for a metric of the whole set.
        provenance: what it was computed with: backbone, its file's digest, sample count, package versions.
        warning: what a reader of the figure has to know, or empty.
    """

    aggregate: float
    values: list[float] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    warning: str = ""

    @classmethod
    def per_sample(cls, values: Sequence[float], **provenance: Any) -> "Result":
        """The result of a metric that has a value for each sample; the mean is over the finite ones."""
        mean, _ = statistics.interval(values, resamples=1)
        return cls(mean, [float(v) for v in values], provenance)

    def by_sample(self, frames: int) -> "Result":
        """With one value a sample where it holds one for each of a video's `frames`: their mean."""
        if self.values is None or frames == 1:
            return self
        groups = [self.values[i : i + frames] for i in range(0, len(self.values), frames)]
        values = [float(np.mean([v for v in group if np.isfinite(v)] or group)) for group in groups]
        mean, _ = statistics.interval(values, resamples=1)
        return dataclasses.replace(self, aggregate=mean, values=values)

    def stored(self, higher_is_better: bool = True) -> dict[str, Any]:
        """As a record holds it: with the half-width of the 95 % bootstrap interval and the mean of the worst 5 %."""
        entry: dict[str, Any] = {"mean": self.aggregate, "provenance": self.provenance}
        if self.warning:
            entry["warning"] = self.warning
        if self.values is not None:
            _, entry["interval"] = statistics.interval(self.values)
            entry["worst_5_percent"] = statistics.worst(self.values, higher_is_better=higher_is_better)
            entry["values"] = self.values
        return entry


Metric = Callable[..., Result]


def metric_of(name: str, parameters: Mapping[str, Any]) -> Metric:
    """The function of a metric with its parameters bound. Refuses an unknown name or parameter."""
    if name not in METRICS:
        refuse(f"there is no metric {name}; there are {', '.join(METRICS)}")
    module, _, attribute = METRICS[name].function.rpartition(".")
    function = getattr(importlib.import_module(f".{module}", __package__), attribute)
    known = [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for key in parameters:
        if key not in known:
            refuse(f"eval.{name}.{key} is no parameter of {name}: it takes {', '.join(known) or 'none'}")
    return lambda samples, reference, prompts: function(samples, reference, prompts, **parameters)


def need_reference(name: str, reference: Pictures | None) -> Pictures:
    """The reference, or the error that there is none."""
    if reference is None:
        return refuse(f"{name} compares with the uncached run, and there is no reference here")
    return reference


def paired_batches(name: str, samples: Pictures, reference: Pictures | None, batch: int = BATCH) -> Any:
    """Batches of (samples, reference) tensors of one size. Refuses sets that do not match."""
    other = need_reference(name, reference)
    if len(samples) != len(other):
        refuse(f"{name} compares in pairs: {samples} has {len(samples)} pictures, {other} has {len(other)}")
    if samples.size != other.size:
        refuse(f"{name} compares in pairs: {samples} has pictures of {samples.size}, {other} of {other.size} pixels")
    return zip(samples.batches(batch), other.batches(batch), strict=True)


def package(name: str, install: str, metric: str) -> Any:
    """Import a package that only some metrics need. Raises `AbsentError` with the command that installs it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        reason = str(error).splitlines()[0]
        how = "type pip install -r requirements-eval.lock"
        raise AbsentError(f"{metric} needs the package {install} ({reason}): {how}") from None


def short(path: Path) -> str:
    """A path as a record may hold it: from the working folder or the home folder where it lies in one of them."""
    full = path.absolute()
    if full.is_relative_to(Path.cwd()):
        return full.relative_to(Path.cwd()).as_posix()
    return f"~/{full.relative_to(Path.home()).as_posix()}" if full.is_relative_to(Path.home()) else str(path)


def weights_file(metric: str, path: str | Path, how: str) -> tuple[Path, str]:
    """A file of weights and its SHA-256. Raises `AbsentError`, with `how` to get it, where it is not there."""
    found = Path(path).expanduser()
    if not found.is_file():
        raise AbsentError(f"{metric} needs the weights {short(found)}, which are not on this machine: {how}")
    return found, hashlib.sha256(found.read_bytes()).hexdigest()
