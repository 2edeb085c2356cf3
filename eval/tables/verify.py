"""Works out again, from a record's raw values, all in it that follows from others, and refuses what does not hold.

What it cannot know is what was measured: the digests of the samples, the value of each sample, the seconds of each
call. Only sampling again shows those.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

from eval import statistics
from eval.metrics.columns import METRICS
from eval.metrics.ids import asked, computed
from eval.timing import summary
from spectrum.config.identity import reference_of, settings_digest
from spectrum.config.labels import label_of
from spectrum.config.reader import choices
from spectrum.config.schema import ModelConfig, PromptsConfig, RunConfig, method_from
from spectrum.core.errors import refuse
from spectrum.records.digests import samples_digest
from spectrum.records.files import finite, identity
from spectrum.records.record import MetricEntry, Record
from spectrum.records.timing import Timing, round_nfe

RELATIVE = 1e-6
"""How far a number may lie from what it follows from: sums of another machine differ in their last digits."""
IDLE = 0.5
"""The highest 1-minute load average at which a timing is not forced."""
FREE_TEXT = ("licence", "size_gb")
"""What a model's config says for people alone."""
Problems = Iterator[str]
"""A line for each thing that does not hold, which begins with the field."""


def check_record(record: Record, reference: Record | None) -> None:
    """Refuse a record in which anything that follows from raw values is otherwise than they give.

    Args:
        record: the record.
        reference: that of the uncached run that it is compared with; None if it is not there.

    Raises:
        SpectrumError: with the field that is off.
    """
    problem = next(problems(record, reference), None)
    if problem is not None:
        refuse(f"the record {record.id} does not hold: {problem}: delete it and run its command again")


def problems(record: Record, reference: Record | None) -> Problems:
    """What does not hold in a record, the first first. See `check_record`."""
    yield from _settings(record)
    yield from _counts(record)
    yield from _runs(record)
    yield from _against(record, reference)
    for name, entry in record.metrics.items():
        yield from _metric(record, name, entry)
    yield from _dirty(record.git, "git")
    if record.timing is not None:
        yield from _timing(record, record.timing)
        yield from _conditions(record.timing)


def differs(field: str, stored: Any, made: Any, source: str) -> Problems:
    """A line if a field is otherwise than what it follows from.

    Args:
        field: its path in the record.
        stored: what the record says.
        made: what was worked out.
        source: what it was worked out from.
    """
    if not same(stored, finite(made)):
        yield f"{field} is {stored}, and {source} gives {made}"


def same(stored: Any, made: Any) -> bool:
    """Whether two pieces of JSON content are equal, numbers to within `RELATIVE`.

    Example:
        >>> same({"a": [1.0, None]}, {"a": [1.0 + 1e-9, None]}), same([1.0], [1.001]), same([1.0], [1.0, 2.0])
        (True, False, False)
    """
    if isinstance(stored, Mapping) and isinstance(made, Mapping):
        return stored.keys() == made.keys() and all(same(stored[key], made[key]) for key in made)
    if isinstance(stored, (list, tuple)) and isinstance(made, (list, tuple)):
        return len(stored) == len(made) and all(map(same, stored, made))
    if isinstance(stored, (int, float)) and isinstance(made, (int, float)) and bool not in (type(stored), type(made)):
        return math.isclose(stored, made, rel_tol=RELATIVE, abs_tol=1e-9)
    return stored == made


def _dirty(git: Mapping[str, Any], field: str) -> Problems:
    """A line if files of the code were changed when something was made."""
    if git.get("dirty"):
        yield f"{field}.dirty is true: it was made with code that no commit holds"
    if (git.get("commit") is None) != (git.get("dirty") is None):
        yield f"{field}.commit is {git.get('commit')}, and {field}.dirty is {git.get('dirty')}"


def _settings(record: Record) -> Problems:
    """The digests of all settings, of the code and of the reference, and the label."""
    try:
        model, method = ModelConfig(**record.model), method_from(record.method)
    except (TypeError, ValueError) as error:
        yield f"model or method has settings that are none ({error})"
        return
    config = RunConfig(model, method, record.schedule, PromptsConfig(), {}, seeds=record.seeds, batch=record.batch)
    made = [
        settings_digest(each, record.prompts, record.model_identity, record.spectrum)
        for each in (config, reference_of(config))
    ]
    source = "what the record says of model, method, schedule, sampling, prompts, seeds and version"
    yield from differs("settings", record.settings, made[0], source)
    digest = record.settings if method.forecast is None else identity([record.settings, record.code])
    yield from differs("id", record.id, f"{record.name}-{digest}", "the digest of settings and code")
    yield from differs("reference", record.reference, f"none-{made[1]}", source)
    yield from differs("steps", record.steps, model.steps, "the model's config")
    if record.name in choices("method"):
        yield from differs("label", record.label, label_of(method, record.schedule), "method and schedule")


def _counts(record: Record) -> Problems:
    """How many samples there are, and how often the blocks ran for each."""
    count = len(record.prompts) * len(record.seeds)
    yield from differs("samples", record.samples, count, "prompts x seeds")
    for name in ("digests", "nfe_by_sample"):
        yield from differs(f"number of {name}", len(getattr(record, name)), count, "prompts x seeds")
    by_sample = record.nfe_by_sample
    yield from differs("nfe", record.nfe, sum(by_sample) / max(1, len(by_sample)), "nfe_by_sample")
    limit = record.prompts_from.limit
    if limit is not None and len(record.prompts) > limit:
        yield f"prompts_from.limit is {limit}, and there are {len(record.prompts)} prompts"
    if record.batch < 1:
        yield f"batch is {record.batch}, and no call has so few samples"


def _runs(record: Record) -> Problems:
    """The run steps of the first sample, against its number of them and the steps that were skipped."""
    steps = record.method.get("steps") or record.steps
    every = set(range(steps))
    for name, runs in record.runs.items():
        if sorted(set(runs)) != runs or not set(runs) <= every:
            yield f"runs.{name} are no rising steps below {steps}"
    lengths = [len(runs) for runs in record.runs.values()]
    first = record.nfe_by_sample[0]
    if not lengths or not min(lengths) <= first <= max(lengths):
        yield f"runs has {lengths} steps by CFG branch, and nfe_by_sample says {first} for the first sample"
    if record.weights:
        skipped = every - set().union(*record.runs.values())
        yield from differs("weights.step", [w["step"] for w in record.weights], sorted(skipped), "runs")
    fixed = record.weights or not record.caches
    if fixed and any(count != first for count in record.nfe_by_sample):
        yield "nfe_by_sample differs between samples, and the method decides by time alone"
    if not record.caches:
        yield from differs("nfe_by_sample", first, steps, "a method that skips no step")


def _against(record: Record, reference: Record | None) -> Problems:
    """What a record and the uncached run that it is compared with must share."""
    if reference is None:
        yield f"reference is {record.reference}, and there is no such record"
        return
    if (record.name == "none") != record.is_reference or not reference.is_reference:
        yield f"reference is {record.reference}, and an uncached run alone is its own reference"
    for name in ("id", "prompts", "seeds", "steps", "samples", "model_identity", "model_kind"):
        wanted = getattr(reference, name)
        stored = record.reference if name == "id" else getattr(record, name)
        yield from differs("reference" if name == "id" else name, stored, wanted, f"the reference {reference.id}")
    for key in sorted({*record.model, *reference.model} - set(FREE_TEXT)):
        yield from differs(f"model.{key}", record.model.get(key), reference.model.get(key), f"the reference {reference.id}")
    made = samples_digest(reference.digests)
    yield from differs("reference_samples", record.reference_samples, made, f"the reference {reference.id}")
    values = record.metrics["psnr"].values if "psnr" in record.metrics else None
    equal = [own == other for own, other in zip(record.digests, reference.digests, strict=False)]
    if values is not None and len(values) == len(equal) and [value is None for value in values] != equal:
        yield "metrics.psnr.values are infinite (null) for other samples than those whose digest is the reference's"


def _metric(record: Record, name: str, entry: MetricEntry) -> Problems:
    """The ids of a metric, and all that follows from its values."""
    field = f"metrics.{name}"
    if name not in METRICS:
        yield f"{field} is no metric of this version"
        return
    request = asked(name, entry.parameters, record.id, record.reference)
    yield from differs(f"{field}.asked", entry.asked, request, "metric, parameters, id and reference")
    yield from differs(f"{field}.id", entry.id, computed(entry.asked, entry.provenance), "asked and sha256")
    if entry.values is None:
        yield from _whole_set(record, field, entry)
        return
    of_samples, count = METRICS[name].per == "sample", len(entry.values)
    wanted = record.samples if of_samples else len(record.prompts)
    if count != wanted:
        yield from differs(f"number of {field}.values", count, wanted, "samples" if of_samples else "prompts")
        return
    per = len(record.seeds) if of_samples else 1
    mean, half = statistics.interval(entry.values, per)
    lowest, lowest_half = statistics.worst(entry.values, per, higher_is_better=METRICS[name].better == "higher")
    made = {"mean": mean, "interval": half, "worst_5_percent": lowest, "worst_interval": lowest_half}
    for key, value in made.items():
        yield from differs(f"{field}.{key}", getattr(entry, key), value, "values")


def _whole_set(record: Record, field: str, entry: MetricEntry) -> Problems:
    """What can be said of a metric of the whole set: from how many samples it is, and that nothing else is claimed."""
    if entry.mean is None:
        yield f"{field}.mean is missing, and there are no values"
    for key in ("interval", "worst_5_percent", "worst_interval"):
        if getattr(entry, key) is not None:
            yield f"{field}.{key} is {getattr(entry, key)}, and there are no values that it follows from"
    count, pictures = entry.provenance.get("samples"), record.samples * (record.model.get("frames") or 1)
    imported = "source" in entry.provenance  # from a results file of another package
    if not imported and count not in (record.samples, pictures):
        yield f"{field}.provenance.samples is {count}, and there are {record.samples} samples"


def _timing(record: Record, timing: Timing) -> Problems:
    """All of a timing that follows from its rounds."""
    if not timing.rounds:
        yield "timing.rounds is empty"
        return
    yield from differs("timing.id", timing.id, identity([record.id, timing.hardware]), "id and hardware")
    places = itertools.product(range(len(record.prompts)), record.seeds)
    files = {f"{index:05d}-s{seed}.png" for index, seed in places}
    steps = record.method.get("steps") or record.steps
    for number, timed in enumerate(timing.rounds):
        field = f"timing.rounds.{number}"
        if len(set(timed.samples)) != timing.batch or not set(timed.samples) <= files:
            yield f"{field}.samples are not {timing.batch} of the record's samples"
        if not len(timed.runs) == len(timed.calls) == timing.batch:
            yield f"{field}.runs and .calls are not of {timing.batch} samples"
            return
        yield from differs(f"{field}.nfe", timed.nfe, round_nfe(timed.runs, timed.calls), "runs and calls")
        if any(set(runs) - set(range(steps)) for own in timed.runs for runs in own.values()):
            yield f"{field}.runs has steps that are not below {steps}"
        seconds = [timed.before, timed.candidate, timed.after]
        if not all(0 < side["denoise"] <= side["total"] for side in seconds):
            yield f"{field} has a call whose seconds are not 0 < denoise <= total"
            return
    for key, made in summary(timing.rounds, timing.batch).items():
        yield from differs(f"timing.{key}", getattr(timing, key), made, "rounds")


def _conditions(timing: Timing) -> Problems:
    """What a timing says of the machine and of the code."""
    where = timing.conditions
    yield from _dirty(where.git, "timing.conditions.git")
    yield from differs("timing.conditions.threads", where.threads, timing.hardware.get("threads"), "timing.hardware")
    load = where.load[0] if where.load else 0.0
    if abs(load - IDLE) > 0.005 and where.forced != (load > IDLE):  # what is stored is rounded
        yield f"timing.conditions.forced is {where.forced}, and the load average before it was {load}"
