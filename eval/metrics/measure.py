"""Decides which metrics a record still lacks, and computes them."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from eval.metrics.columns import METRICS
from eval.metrics.ids import asked, computed
from eval.metrics.metric import AbsentError, metric_of
from eval.metrics.pictures import Pictures
from spectrum.records.record import MetricEntry

Begin = Callable[[str, int], Callable[[int], None]]
"""From a metric's name and a number of pictures to what is told of how many of them have been read."""


def missing_metrics(
    wanted: Mapping[str, Mapping[str, Any]], have: Mapping[str, MetricEntry], sample: str, reference: str
) -> dict[str, Mapping[str, Any]]:
    """The metrics that a record does not hold yet.

    Args:
        wanted: the parameters of each metric that is asked for, by name.
        have: the record's metrics, by name.
        sample: id of the samples.
        reference: id of the reference.

    Returns:
        Those of `wanted` that `have` lacks, or holds for other parameters, samples or another reference.

    Example:
        >>> missing_metrics({"psnr": {}, "ssim": {}}, {}, "fora-1", "none-1")
        {'psnr': {}, 'ssim': {}}
    """
    return {n: p for n, p in wanted.items() if n not in have or have[n].asked != asked(n, p, sample, reference)}


def measure(
    wanted: Mapping[str, Mapping[str, Any]],
    samples: Pictures,
    reference: Pictures | None,
    prompts: Sequence[str],
    names: tuple[str, str],
    say: Callable[[str], None],
    begin: Begin = lambda name, total: _tell_nobody,
    *,
    seeds: int = 1,
) -> tuple[dict[str, MetricEntry], dict[str, str]]:
    """Compute metrics.

    A metric of pictures gets the frames of a video, each with the video's prompt, and a video's value is the mean over
    its frames.

    Args:
        wanted: the parameters of each metric, by name.
        samples: the method's pictures or videos.
        reference: the uncached run's, in the same order; None if there are none.
        prompts: one prompt per sample.
        names: ids of the samples and of the reference.
        say: called with a line for each metric that cannot be computed here.
        begin: called with a metric's name and the number of pictures in `samples` once the metric begins to read them;
            what it returns is told of how many have been read, batch by batch. It is not called for a metric that reads
            none.
        seeds: samples of each prompt, which follow one another. Intervals resample prompts, with their samples in them.

    Returns:
        Two dicts by the metric's name: what a record stores of it, and for those that cannot be computed here the
        reason. The `id` of an entry covers the digest of the backbone's weights, so that two figures with the same id
        were made with the same weights.

    Raises:
        SpectrumError: for unknown metrics and parameters, and for samples that cannot be measured.
    """
    frame_prompts = [prompt for prompt in prompts for _ in range(samples.frames)]
    found: dict[str, MetricEntry] = {}
    left_out: dict[str, str] = {}
    for name, parameters in wanted.items():
        samples.on_read = _begun_when_read(begin, name, len(samples))
        try:
            result = metric_of(name, parameters, seeds)(samples, reference, frame_prompts)
            if METRICS[name].per == "sample" and result.values is not None and len(result.values) == len(samples):
                result = result.mean_over_frames(samples.frames)
        except AbsentError as error:
            left_out[name] = str(error)
            say(f"{name} is left out: {error}")
            continue
        finally:
            samples.on_read = _tell_nobody
        request = asked(name, parameters, *names)
        per = seeds if METRICS[name].per == "sample" else 1
        entry = result.record_entry(higher_is_better=METRICS[name].better == "higher", per=per)
        made = {"asked": request, "id": computed(request, result.provenance), "parameters": dict(parameters)}
        found[name] = MetricEntry(**made, **entry)
    return found, left_out


def _begun_when_read(begin: Begin, name: str, total: int) -> Callable[[int], None]:
    """What `Pictures.on_read` calls, so that a metric begins with its first batch."""
    begun = functools.cache(lambda: begin(name, total))
    return lambda count: begun()(count)


def _tell_nobody(count: int) -> None:
    """Takes the place of what is told of pictures read where nobody asks."""
