"""A job: a config worked out, with the folders of its samples and of its reference's."""

import dataclasses
from pathlib import Path

from eval.metrics.metric import metric_of
from spectrum.bench.identity import sample_id, settings_id
from spectrum.bench.prompts import Sample, numbered_samples, read_prompts
from spectrum.bench.resolve import resolve
from spectrum.config.identity import reference_of
from spectrum.config.schema import RunConfig
from spectrum.core.method import Method


@dataclasses.dataclass(frozen=True)
class Job:
    """A config worked out.

    Attributes:
        config: the config, with what was fitted filled in.
        method: its method.
        settings: the digest of its settings without the method's code.
        base: the config of the uncached run that it is compared with.
        uncached: the method of that.
        prompts: the prompts.
        samples: every prompt with every seed.
        folder: where its samples, pictures and record go.
        base_folder: where those of the uncached run go.
    """

    config: RunConfig
    method: Method
    settings: str
    base: RunConfig
    uncached: Method
    prompts: list[str]
    samples: list[Sample]
    folder: Path
    base_folder: Path

    @classmethod
    def of(cls, config: RunConfig) -> "Job":
        """Work out a config.

        Raises:
            SpectrumError: for every setting that cannot be run.
        """
        prompts = read_prompts(config.prompts)
        config, method = resolve(config)
        for name, parameters in config.eval.items():
            metric_of(name, parameters or {})
        base = reference_of(config)
        uncached = resolve(base)[1]
        settings = settings_id(config, prompts)
        out = Path(config.out) / config.model.name
        return cls(
            config=config,
            method=method,
            settings=settings,
            base=base,
            uncached=uncached,
            prompts=prompts,
            samples=numbered_samples(prompts, config.seeds),
            folder=out / f"{config.method.name}-{sample_id(settings, method)}",
            base_folder=out / f"none-{sample_id(settings_id(base, prompts), uncached)}",
        )

    @property
    def ids(self) -> tuple[str, str]:
        """The ids of the samples and of their reference."""
        return self.folder.name, self.base_folder.name

    @property
    def batch(self) -> int:
        """How many samples one call makes at most."""
        return min(len(self.samples), self.config.batch or 1)

    @property
    def record_path(self) -> Path:
        """Where its record lies beside its samples."""
        return self.folder / "record.json"

    @property
    def shared_record_path(self) -> Path | None:
        """Where its record lies in the folder of all records; None if no such folder was named."""
        return Path(self.config.records) / f"{self.folder.name}.json" if self.config.records else None
