"""Metrics of stored samples: those asked for and not yet there."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from eval.metrics.columns import METRICS
from eval.metrics.metric import AbsentError, metric_of
from eval.metrics.pictures import Pictures
from spectrum.records.files import identity
from spectrum.records.record import MetricEntry


def asked(name: str, parameters: Mapping[str, Any], sample: str, reference: str) -> str:
    """Names a metric of one set of samples against one reference."""
    return identity([name, dict(parameters), sample, reference])


def missing_metrics(
    wanted: Mapping[str, Mapping[str, Any]], have: Mapping[str, MetricEntry], sample: str, reference: str
) -> dict[str, Mapping[str, Any]]:
    """Those of the `wanted` metrics, with their parameters, that `have` does not hold."""
    return {n: p for n, p in wanted.items() if n not in have or have[n].asked != asked(n, p, sample, reference)}


def measure(
    wanted: Mapping[str, Mapping[str, Any]],
    samples: Pictures,
    reference: Pictures | None,
    prompts: Sequence[str],
    names: tuple[str, str],
    say: Callable[[str], None],
) -> tuple[dict[str, MetricEntry], dict[str, str]]:
    """Compute the `wanted` metrics: (what a record stores of each, the message of each that is absent).

    Metrics of pictures see a video's frames, each with its prompt; a sample's value is the mean over its frames.
    `names` are the ids of samples and reference. A metric's `id` also covers the digest of its backbone, so that two
    figures under one id were made with the same weights.
    """
    each = [prompt for prompt in prompts for _ in range(samples.frames)]
    found: dict[str, MetricEntry] = {}
    left_out: dict[str, str] = {}
    for name, parameters in wanted.items():
        try:
            result = metric_of(name, parameters)(samples, reference, each)
            if result.values is not None and len(result.values) == len(samples):
                result = result.by_sample(samples.frames)
        except AbsentError as error:
            left_out[name] = str(error)
            say(f"{name} is left out: {error}")
            continue
        key = asked(name, parameters, *names)
        stored = result.stored(higher_is_better=METRICS[name].better == "higher")
        found[name] = MetricEntry(asked=key, id=identity([key, result.provenance.get("sha256")]), **stored)
    return found, left_out
