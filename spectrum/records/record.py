"""The record of one run: its schema, and reading and writing it. What a record says is data; nothing in it is run."""

import dataclasses
import functools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spectrum.core.errors import refuse
from spectrum.records.digests import record_digest
from spectrum.records.files import finite, write_json
from spectrum.records.timing import STRICT, Timing

FORMAT = 4
"""The format that this version writes. Raised when an older record could be misread."""


@dataclass(frozen=True)
class MetricEntry:
    """One metric of a record.

    Attributes:
        mean: the figure for tables; None where it is infinite, as the PSNR of equal pictures is, or not defined.
        asked: id of metric, parameters, samples and reference, by which it is known that it need not be computed again.
        id: the same with the backbone's digest.
        parameters: the metric's parameters, as they were typed.
        provenance: what it was computed with.
        interval: half-width of the 95 % interval of the mean; None for metrics of the whole set.
        worst_5_percent: mean of the worst 5 % of the values.
        worst_interval: half-width of the 95 % interval of that; None where there is none.
        values: one number a sample, or one a prompt, in order; None in it stands for one that is infinite or not
            defined.
        warning: what a reader of the figure has to know.
    """

    __pydantic_config__ = STRICT
    mean: float | None
    asked: str
    id: str
    parameters: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    interval: float | None = None
    worst_5_percent: float | None = None
    worst_interval: float | None = None
    values: list[float | None] | None = None
    warning: str = ""


@dataclass(frozen=True)
class PromptSource:
    """Where the prompts came from: a file and how many of it."""

    __pydantic_config__ = STRICT
    file: str | None
    limit: int | None


@dataclass(frozen=True)
class CacheBytes:
    """Bytes of stored features per sample: predicted before the run (None where that is impossible), and measured."""

    __pydantic_config__ = STRICT
    predicted_per_sample: int | None
    seen_per_sample: int


@dataclass(frozen=True)
class Record:
    """All that is known of one run.

    Attributes:
        format: `FORMAT`.
        id: the method's name and the digest of all that changes pixels; the name of the samples' folder.
        reference: the id of the uncached run that it is compared with.
        settings: the digest of the same without the method's code, by which a record of edited code is recognised.
        code: digest of the method's functions, see `spectrum.config.code`.
        label: what tables call it.
        model: the model's config.
        model_kind: embedded, real weights, or random weights, for people.
        model_identity: what pins the weights.
        method: the method's settings that are not defaults.
        schedule: the schedule's settings.
        prompts: the prompts.
        prompts_from: where they came from.
        seeds: the seeds of each prompt.
        batch: samples per denoiser call.
        samples: number of samples.
        steps: denoising steps of the uncached run.
        nfe: steps at which the blocks ran, the mean over samples.
        nfe_by_sample: the same for each sample, in order.
        digests: the first 16 hex digits of the SHA-256 of each sample's file, in order.
        reference_samples: the digest of the reference's `digests`, which the metrics were computed against.
        runs: by CFG branch, the run steps of the first sample.
        weights: `sum w` and `|w|_1` of each skipped step.
        forecast_errors: by CFG branch, relative L2 errors of feature and velocity at each skipped step.
        cache_bytes: size of the stored features.
        metrics: by name.
        left_out: metrics that could not be computed, each with the reason.
        timing: the timing pass; None if there was none.
        command: the command line that made the samples.
        spectrum: version of this project.
        git: commit, and whether any file of the code was changed or not yet in git.
        python: version.
        packages: versions.
        hardware: what the samples were made on.
        digest: of all the above, see `sealed`; empty until the record is written.
    """

    __pydantic_config__ = STRICT
    format: int
    id: str
    reference: str
    settings: str
    code: str
    label: str
    model: dict[str, Any]
    model_kind: str
    model_identity: str
    method: dict[str, Any]
    schedule: dict[str, Any]
    prompts: list[str]
    prompts_from: PromptSource
    seeds: list[int]
    batch: int
    samples: int
    steps: int
    nfe: float
    nfe_by_sample: list[float]
    digests: list[str]
    reference_samples: str
    runs: dict[str, list[int]]
    weights: list[dict[str, float]]
    forecast_errors: dict[str, list[dict[str, float]]]
    cache_bytes: CacheBytes
    metrics: dict[str, MetricEntry]
    left_out: dict[str, str]
    timing: Timing | None
    command: str
    spectrum: str
    git: dict[str, Any]
    python: str
    packages: dict[str, str | None]
    hardware: dict[str, Any]
    digest: str = ""

    @property
    def name(self) -> str:
        """The method's name."""
        return self.method["name"]

    @property
    def is_reference(self) -> bool:
        """Whether this is the uncached run itself."""
        return self.id == self.reference

    @property
    def caches(self) -> bool:
        """Whether its method forecasts anything; false for the uncached run and the controls."""
        return self.method.get("forecast") is not None

    @property
    def efficiency(self) -> float | None:
        """The speed-up over the ideal one of the runs that were timed, `speed-up / (steps / runs)`; None if untimed."""
        return None if self.timing is None else self.timing.speedup * self.timing.nfe / self.steps

    def metric(self, name: str) -> float | None:
        """The mean of a metric; None where it is absent or infinite."""
        return self.metrics[name].mean if name in self.metrics else None


@functools.cache
def _adapter() -> Any:
    """What checks a record against the schema; building it takes 10 ms."""
    import pydantic

    return pydantic.TypeAdapter(Record)


def parse_record(content: Any, source: str, text: str | None = None) -> Record:
    """A record from JSON content.

    Args:
        content: what the JSON holds.
        source: where it comes from, for messages.
        text: the JSON itself, if it is at hand: writing 100 000 samples once more takes as long as reading them.

    Raises:
        SpectrumError: if it is no record, of another format, damaged, or changed after it was written.
    """
    import pydantic

    if not isinstance(content, dict) or "id" not in content or "metrics" not in content:
        refuse(f"{source} is no record of run.py: take it out of the folder")
    if content.get("format") != FORMAT:
        refuse(
            f"the record {source} has format {content.get('format', 1)}, and this version {FORMAT}: delete it and run "
            f"{content.get('command', 'its command')} again"
        )
    _check_configs(content, source)
    try:
        record: Record = _adapter().validate_json(json.dumps(content) if text is None else text)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return refuse(
            f"the record {source} is damaged at {where} ({first['msg']}): delete it and run its command again"
        )
    if record.digest != record_digest(content):
        refuse(f"the record {source} was changed after it was written: delete it and run its command again")
    return record


_READ = {"model": ("name", "height", "width", "dtype", "call"), "method": ("name",), "schedule": ("_target_",)}
"""The keys of a record's configs that are read; the others are for people."""


def _check_configs(content: dict[str, Any], source: str) -> None:
    for part, keys in _READ.items():
        lacking = [key for key in keys if not isinstance(content.get(part), dict) or key not in content[part]]
        if lacking:
            refuse(f"the record {source} lacks {part}.{lacking[0]}: delete it and run its command again")


def read_record(path: Path) -> Record:
    """The record in a file.

    Raises:
        SpectrumError: if the file is missing, cannot be read, is no record, or is of another format.
    """
    try:
        text = path.read_text()
        content = json.loads(text)
    except OSError as error:
        return refuse(f"there is no record {path} ({error.strerror}): type the folder of a run")
    except ValueError as error:
        reason = str(error).splitlines()[0]
        return refuse(f"the record {path} cannot be read ({reason}): delete it and run its command again")
    return parse_record(content, str(path), text)


def read_records(folder: Path) -> list[Record]:
    """Every record in a folder, by file name.

    Raises:
        SpectrumError: for a file that is no whole record, or is not named by its record's id.
    """
    paths = sorted(folder.glob("*.json"))
    found = [read_record(path) for path in paths]
    for path, record in zip(paths, found, strict=True):
        if path.stem != record.id:
            refuse(f"{path} holds the record {record.id}: rename it to {record.id}.json, or delete it")
    return found


def sealed(record: Record) -> Record:
    """The record with the digest of all that it says, by which `parse_record` sees that nothing was changed since."""
    return dataclasses.replace(record, digest=record_digest(_plain(record)))


def record_content(record: Record) -> dict[str, Any]:
    """A record as JSON content, sealed."""
    return finite(_plain(sealed(record)))


def _plain(value: Any) -> Any:
    """What `dataclasses.asdict` gives, without copying the values of 100 000 samples one by one."""
    if dataclasses.is_dataclass(value):
        return {entry.name: _plain(getattr(value, entry.name)) for entry in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [part if type(part) in (float, str, int) else _plain(part) for part in value]
    return value


def write_record(path: Path, record: Record) -> None:
    """Write a record as JSON, sealed, whole or not at all."""
    write_json(path, record_content(record))
