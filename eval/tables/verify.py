"""Works out again, from a record's raw values, all in it that follows from others, and refuses what does not hold.

What it cannot know is what was measured: the digests of the samples, the value of each sample, the seconds of each
call. Only sampling again shows those.
"""

from collections.abc import Sequence
from pathlib import Path

from eval import statistics
from eval.metrics.columns import METRICS
from eval.metrics.ids import asked, computed
from eval.tables.derived import Problems, by_time_alone, differs, dirty, rising
from eval.tables.planned import planned_problems
from eval.tables.verify_timing import timing_problems
from spectrum.config.identity import ALWAYS, reference_of, settings_digest
from spectrum.config.labels import label_of
from spectrum.config.prompt_lists import PROMPTS, shipped_prompts
from spectrum.config.reader import method_files
from spectrum.config.schema import ModelConfig, PromptsConfig, RunConfig, method_from
from spectrum.core.errors import refuse
from spectrum.records.digests import samples_digest
from spectrum.records.files import identity
from spectrum.records.record import MetricEntry, Record

FREE_TEXT = ("licence", "size_gb")
"""What a model's config says for people alone."""


def check_record(record: Record, reference: Record | None) -> None:
    """Refuse a record in which anything that follows from raw values is otherwise than they give.

    Args:
        record: the record.
        reference: that of the uncached run that it is compared with; None if it is not there.

    Raises:
        SpectrumError: with the field that is off.
    """
    if reference is None:
        refuse(
            f"the record {record.id} is compared with {record.reference}, and there is no such record: type its "
            f"command with method=none: {record.command}"
        )
    problem = next(problems(record, reference), None)
    if problem is not None:
        refuse(f"the record {record.id} does not hold: {problem}: delete it and run its command again")


def check_records(records: Sequence[Record]) -> None:
    """Refuse records of which one does not hold, and timings of one pass that do not say the same of it.

    Args:
        records: all records of a folder.

    Raises:
        SpectrumError: with the record and the field that is off.
    """
    by_id = {record.id: record for record in records}
    passes: dict[str, Record] = {}
    for record in records:
        check_record(record, by_id.get(record.reference))
        if record.timing is None:
            continue
        first = passes.setdefault(record.timing.process, record)
        own, other = ((r.timing.hardware, r.timing.conditions) for r in (record, first) if r.timing is not None)
        if own != other:
            refuse(
                f"the timings of {first.id} and {record.id} are of one pass and say different things of the machine: "
                "time them again, see docs/results.md"
            )


def problems(record: Record, reference: Record) -> Problems:
    """What does not hold in a record, the first first. See `check_record`."""
    config = _config(record)
    if config is None:
        yield "model or method has a setting that this version does not know"
        return
    yield from _settings(record, config)
    yield from _counts(record)
    yield from planned_problems(record, config)
    yield from _runs(record)
    yield from _against(record, reference)
    for name, entry in record.metrics.items():
        yield from _metric(record, name, entry)
    yield from dirty(record.git, "git")
    if record.timing is not None:
        yield from timing_problems(record, record.timing)


def _config(record: Record) -> RunConfig | None:
    """The config that a record says it was made with; None if this version does not know one of its settings."""
    try:
        model, method = ModelConfig(**record.model), method_from(record.method)
    except (TypeError, ValueError):
        return None
    return RunConfig(model, method, record.schedule, PromptsConfig(), {}, seeds=record.seeds, batch=record.batch)


def _settings(record: Record, config: RunConfig) -> Problems:
    """The digests of all settings, of the code and of the reference, and the label."""
    model, method = config.model, config.method
    made = [
        settings_digest(each, record.prompts, record.model_identity, record.spectrum)
        for each in (config, reference_of(config))
    ]
    source = "what the record says of model, method, schedule, sampling, prompts, seeds and version"
    yield from differs("settings", record.settings, made[0], source)
    digest = record.settings if method.forecast is None else identity([record.settings, record.code])
    yield from differs("id", record.id, f"{record.name}-{digest}", "the digest of settings and code")
    yield from differs("reference", record.reference, f"none-{made[1]}", source)
    if method.forecast is None:
        yield from differs("schedule", record.schedule, ALWAYS, "a method that forecasts nothing")
    yield from differs("steps", record.steps, model.steps, "the model's config")
    if record.name in method_files():
        label = label_of(method, record.schedule, method_files()[record.name])
        yield from differs("label", record.label, label, "method and schedule")


def _counts(record: Record) -> Problems:
    """How many samples there are, and how often the blocks ran for each."""
    count = len(record.prompts) * len(record.seeds)
    yield from differs("samples", record.samples, count, "prompts x seeds")
    for name in ("digests", "nfe_by_sample"):
        yield from differs(f"number of {name}", len(getattr(record, name)), count, "prompts x seeds")
    by_sample = record.nfe_by_sample
    yield from differs("nfe", record.nfe, sum(by_sample) / max(1, len(by_sample)), "nfe_by_sample")
    source = record.prompts_from
    if source.limit is not None and len(record.prompts) > source.limit:
        yield f"prompts_from.limit is {source.limit}, and there are {len(record.prompts)} prompts"
    if source.file is not None and (PROMPTS / source.file).is_file():
        listed = shipped_prompts(Path(source.file).stem)[: source.limit]
        yield from differs("prompts", record.prompts, listed, f"the list {source.file}")
    if record.batch < 1:
        yield f"batch is {record.batch}, and no call has so few samples"


def _runs(record: Record) -> Problems:
    """The run steps of the first sample, against its number of them and the steps that were skipped."""
    steps = record.method.get("steps") or record.steps
    for name, runs in record.runs.items():
        if not rising(runs, steps):
            yield f"runs.{name} are no rising steps below {steps}"
    lengths = [len(runs) for runs in record.runs.values()]
    first = record.nfe_by_sample[0]
    if not lengths or not min(lengths) <= first <= max(lengths):
        yield f"runs has {lengths} steps by CFG branch, and nfe_by_sample says {first} for the first sample"
    if by_time_alone(record) and any(count != first for count in record.nfe_by_sample):
        yield "nfe_by_sample differs between samples, and the method decides by time alone"
    if not record.caches:
        yield from differs("nfe_by_sample", first, steps, "a method that skips no step")


def _against(record: Record, reference: Record) -> Problems:
    """What a record and the uncached run that it is compared with must share."""
    if (record.name == "none") != record.is_reference or not reference.is_reference:
        yield f"reference is {record.reference}, and an uncached run alone is its own reference"
    for name in ("id", "prompts", "seeds", "steps", "samples", "model_identity", "model_kind"):
        wanted = getattr(reference, name)
        stored = record.reference if name == "id" else getattr(record, name)
        yield from differs("reference" if name == "id" else name, stored, wanted, f"the reference {reference.id}")
    for key in sorted({*record.model, *reference.model} - set(FREE_TEXT)):
        yield from differs(
            f"model.{key}", record.model.get(key), reference.model.get(key), f"the reference {reference.id}"
        )
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
    column = METRICS[name]
    if column.per == "set" or (column.elsewhere and "source" in entry.provenance):
        yield from _whole_set(record, field, entry)
        return
    if entry.values is None:
        yield f"{field}.values is missing, and the metric has one for each {column.per}"
        return
    of_samples, count = column.per == "sample", len(entry.values)
    wanted = record.samples if of_samples else len(record.prompts)
    if count != wanted:
        yield from differs(f"number of {field}.values", count, wanted, "samples" if of_samples else "prompts")
        return
    per = len(record.seeds) if of_samples else 1
    mean, half = statistics.interval(entry.values, per)
    lowest, lowest_half = statistics.worst(entry.values, per, higher_is_better=column.better == "higher")
    made = {"mean": mean, "interval": half, "worst_5_percent": lowest, "worst_interval": lowest_half}
    for key, value in made.items():
        yield from differs(f"{field}.{key}", getattr(entry, key), value, "values")


def _whole_set(record: Record, field: str, entry: MetricEntry) -> Problems:
    """What can be said of a metric of the whole set: from how many samples it is, and that nothing else is claimed."""
    if entry.mean is None:
        yield f"{field}.mean is missing"
    for key in ("values", "interval", "worst_5_percent", "worst_interval"):
        if getattr(entry, key) is not None:
            yield f"{field}.{key} is {getattr(entry, key)}, and a metric of the whole set has none"
    pictures = record.samples * (record.model.get("frames") or 1)
    if "source" in entry.provenance:  # the other package says nothing of the samples
        return
    for key in sorted({"samples", "reference"} & {"samples", *entry.provenance}):
        if entry.provenance.get(key) not in (record.samples, pictures):
            yield f"{field}.provenance.{key} is {entry.provenance.get(key)}, and there are {record.samples} samples"
