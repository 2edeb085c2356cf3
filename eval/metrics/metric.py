"""What every metric is: a function `metric(samples, reference, prompts, **parameters) -> Result`.

`samples` and `reference` are `Pictures`, which the metric reads in batches; `reference` is the uncached run on the same
noise, or None. `prompts` has one prompt per picture. A metric that needs only some of them ignores the rest. Parameters
are keyword-only, and are typed as `eval.NAME.PARAMETER=VALUE`. One that is called `seeds` is not typed: a metric that
compares the samples of a prompt with one another declares it, and gets how many there are.
"""

import dataclasses
import hashlib
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np
from torch import Tensor

from eval import statistics
from eval.metrics.columns import METRICS
from eval.metrics.pictures import Pictures
from spectrum.core.errors import SpectrumError, refuse

BATCH = 64
"""Pictures that a metric reads at a time."""
SEEDS = "seeds"
"""The parameter that is not typed: how many samples each prompt has."""


class AbsentError(SpectrumError):
    """A metric cannot be computed here: its weights or its package is missing, or it does not apply to these samples.

    The message says which, and how to get what is missing. A run leaves the metric out and goes on.
    """


@dataclass(frozen=True)
class Result:
    """What a metric found for one set of samples.

    Attributes:
        aggregate: the figure for tables; the mean of the finite `values` if there are any.
        values: one number per sample, or per prompt if the metric compares seeds, in order; None for a metric of the
            whole set, such as a Frechet distance.
        provenance: what it was computed with: backbone, SHA-256 of the backbone's file, number of samples, versions.
        warning: what a reader of the figure has to know; empty if there is nothing.
    """

    aggregate: float
    values: list[float] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    warning: str = ""

    @classmethod
    def per_sample(cls, values: Sequence[float], **provenance: Any) -> "Result":
        """The result of a metric that has one value per sample.

        Args:
            values: one number per sample, in order. The aggregate is the mean of the finite ones.
            **provenance: what it was computed with.

        Example:
            >>> Result.per_sample([30.0, 20.0, float("inf")], backbone="none").aggregate
            25.0
        """
        mean, _ = statistics.interval(values)
        return cls(mean, [float(v) for v in values], provenance)

    def mean_over_frames(self, frames: int) -> "Result":
        """Turn one value per frame into one value per video.

        Args:
            frames: frames of each video; `values` holds those of the first video first.

        Returns:
            The result with the mean of each video's finite values, and the mean over the videos as its aggregate. It is
            unchanged if `frames` is 1 or it has no values.

        Example:
            >>> Result.per_sample([1.0, 3.0, 5.0, 5.0]).mean_over_frames(2).values
            [2.0, 5.0]
        """
        if self.values is None or frames == 1:
            return self
        groups = [self.values[i : i + frames] for i in range(0, len(self.values), frames)]
        values = [float(np.mean([v for v in group if np.isfinite(v)] or group)) for group in groups]
        mean, _ = statistics.interval(values)
        return dataclasses.replace(self, aggregate=mean, values=values)

    def record_entry(self, higher_is_better: bool = True, per: int = 1) -> dict[str, Any]:
        """The fields of a record's `MetricEntry`, except for its ids.

        Args:
            higher_is_better: which way the metric points; decides which 5 % of the values are the worst.
            per: values of one prompt; prompts are what the intervals resample.

        Returns:
            `mean` and `provenance`; `warning` if there is one; and for a metric with values, `values`, `interval`
            (half-width of the 95 % interval of the mean), `worst_5_percent` (mean of the worst 5 %) and
            `worst_interval` (half-width of its interval).
        """
        entry: dict[str, Any] = {"mean": self.aggregate, "provenance": self.provenance}
        if self.warning:
            entry["warning"] = self.warning
        if self.values is not None:
            _, entry["interval"] = statistics.interval(self.values, per)
            entry["worst_5_percent"], entry["worst_interval"] = statistics.worst(
                self.values, per, higher_is_better=higher_is_better
            )
            entry["values"] = self.values
        return entry


Metric = Callable[[Pictures, Pictures | None, Sequence[str]], Result]


def metric_of(name: str, parameters: Mapping[str, Any], seeds: int = 1) -> Metric:
    """A metric with its parameters bound.

    Args:
        name: a key of `eval.metrics.columns.METRICS`.
        parameters: values of the metric's keyword-only parameters, by name; the others keep their defaults.
        seeds: samples of each prompt, for a metric that declares `seeds`.

    Returns:
        A function of samples, reference and prompts.

    Raises:
        SpectrumError: for an unknown metric or parameter, and for a value that the metric cannot be computed with.

    Example:
        >>> import torch
        >>> black, grey = torch.zeros(1, 3, 8, 8), torch.full((1, 3, 8, 8), 0.1)
        >>> psnr = metric_of("psnr", {})
        >>> round(psnr(Pictures(grey), Pictures(black), ["a prompt"]).aggregate, 3)
        20.0
    """
    if name not in METRICS:
        refuse(f"there is no metric {name}; there are {', '.join(METRICS)}")
    function = _function_at(METRICS[name].function)
    known = {p.name: p.annotation for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY}
    given = {SEEDS: seeds} if known.pop(SEEDS, None) else {}
    for key, value in parameters.items():
        if key not in known:
            refuse(f"eval.{name}.{key} is no parameter of {name}: it takes {', '.join(known) or 'none'}")
        _check_value(f"eval.{name}.{key}", value, known[key])
    if METRICS[name].check:
        _function_at(METRICS[name].check)(**parameters)
    return lambda samples, reference, prompts: function(samples, reference, prompts, **parameters, **given)


def _function_at(path: str) -> Callable[..., Any]:
    """A function by its path from `eval.metrics` on."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(f".{module}", __package__), name)


def _check_value(key: str, value: Any, kind: Any) -> None:
    """Refuse a value of a parameter that is typed as one of a few words, or as text."""
    if get_origin(kind) is Literal and value not in get_args(kind):
        refuse(f"{key}={value} is unknown: type {' or '.join(get_args(kind))}")
    if kind in (str, str | None) and not isinstance(value, kind):
        refuse(f"{key} must be text, got {value!r}: type {key}=NAME, or a path")


def need_reference(name: str, reference: Pictures | None) -> Pictures:
    """The reference, for a metric that cannot do without.

    Args:
        name: the metric, for the message.
        reference: the uncached run's pictures.

    Raises:
        SpectrumError: if there is no reference.
    """
    if reference is None:
        return refuse(f"{name} compares with the uncached run, and there is no reference here")
    return reference


def paired_batches(
    name: str, samples: Pictures, reference: Pictures | None, batch: int = BATCH
) -> Iterator[tuple[Tensor, Tensor]]:
    """Read samples and reference together, batch by batch.

    Args:
        name: the metric, for messages.
        samples: the method's pictures.
        reference: the uncached run's pictures, in the same order.
        batch: pictures per batch.

    Returns:
        Pairs of tensors, both (n, 3, height, width) float32 in [0, 1] with n up to `batch`.

    Raises:
        SpectrumError: if there is no reference, or the two differ in number or in size.
    """
    other = need_reference(name, reference)
    if len(samples) != len(other):
        refuse(f"{name} compares in pairs: {samples} has {len(samples)} pictures, {other} has {len(other)}")
    if samples.size != other.size:
        refuse(f"{name} compares in pairs: {samples} has pictures of {samples.size}, {other} of {other.size} pixels")
    return zip(samples.batches(batch), other.batches(batch), strict=True)


def import_package(name: str, install: str, metric: str) -> Any:
    """Import a package that only some metrics need.

    Args:
        name: the module to import.
        install: the name that the package is installed by.
        metric: the metric that needs it, for the message.

    Raises:
        AbsentError: if it cannot be imported, with the command that installs it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        reason = str(error).splitlines()[0]
        how = "type pip install -r requirements-eval.lock"
        raise AbsentError(f"{metric} needs the package {install} ({reason}): {how}") from None


def portable_path(path: Path) -> str:
    """A path without the machine's folders, fit for a record.

    Args:
        path: any path.

    Returns:
        The path relative to the working folder if it lies there, else `~/...` if it lies in the home folder, else as it
        is.
    """
    full = path.absolute()
    if full.is_relative_to(Path.cwd()):
        return full.relative_to(Path.cwd()).as_posix()
    return f"~/{full.relative_to(Path.home()).as_posix()}" if full.is_relative_to(Path.home()) else str(path)


def weights_file(metric: str, path: str | Path, how: str) -> tuple[Path, str]:
    """Find the file of a backbone's weights.

    Args:
        metric: the metric that needs it, for the message.
        path: where it should be; `~` is the home folder.
        how: what to do to get the file, for the message.

    Returns:
        The path and the SHA-256 of the file, 64 hex digits.

    Raises:
        AbsentError: if there is no such file.
    """
    found = Path(path).expanduser()
    if not found.is_file():
        raise AbsentError(f"{metric} needs the weights {portable_path(found)}, which are not on this machine: {how}")
    return found, hashlib.sha256(found.read_bytes()).hexdigest()
