"""Builds the record of a job's samples, before anything is measured or timed."""

import dataclasses
from typing import Any

from spectrum.bench.job import Job
from spectrum.bench.resolve import label
from spectrum.config.code import method_code
from spectrum.config.identity import schedule_settings
from spectrum.config.schema import changed_settings
from spectrum.models.identity import model_identity, model_kind
from spectrum.models.plans import cache_bytes, plan_of
from spectrum.records.digests import sample_digests, samples_digest
from spectrum.records.record import FORMAT, CacheBytes, PromptSource, Record
from spectrum.records.sections import held_bytes
from spectrum.records.timing import block_runs

__all__ = ["block_runs", "describe", "fits"]


def describe(
    job: Job,
    ledger: list[dict[str, Any]],
    reference: list[dict[str, Any]],
    probed: dict[str, Any],
    environment: dict[str, Any],
) -> Record:
    """The record of sampled pictures.

    Args:
        job: the job.
        ledger: a dict for each sample, from `generate`.
        reference: the same of the uncached run.
        probed: the report of a run with `probe`, by CFG branch; may be empty.
        environment: what `spectrum.bench.provenance.environment` says.
    """
    config = job.config
    runs = [block_runs(entry) for entry in ledger]
    plan = plan_of(config, job.method)
    probed_samples = max(1, min(config.probe, config.batch or 1, len(ledger)))
    model = {key: value for key, value in dataclasses.asdict(config.model).items() if key != "tiny"}
    return Record(
        format=FORMAT,
        id=job.folder.name,
        reference=job.base_folder.name,
        settings=job.settings,
        code=method_code(job.method),
        label=label(config),
        model=model,
        model_kind=model_kind(config.model),
        model_identity=model_identity(config.model),
        method=changed_settings(config.method),
        schedule=schedule_settings(config.schedule),
        prompts=job.prompts,
        prompts_from=PromptSource(config.prompts.file, config.prompts.limit),
        seeds=config.seeds,
        batch=config.batch or 1,
        samples=len(ledger),
        steps=config.model.steps,
        nfe=sum(runs) / len(runs),
        nfe_by_sample=runs,
        digests=sample_digests(ledger),
        reference_samples=samples_digest(sample_digests(reference)),
        runs=ledger[0]["runs"],
        weights=[{"step": s.step, "sum": s.total, "l1": s.l1} for s in plan.skipped],
        forecast_errors={name: branch["errors"] for name, branch in probed.items()},
        cache_bytes=CacheBytes(cache_bytes(config, plan), held_bytes(probed) // probed_samples),
        metrics={},
        left_out={},
        timing=None,
        **environment,
    )


def fits(record: Record, ledger: list[dict[str, Any]] | None, reference: list[dict[str, Any]] | None) -> bool:
    """Whether a record is of the pictures that are there.

    Args:
        record: a stored record.
        ledger: a dict for each sample that is there, from `generate`; None where they are not all there.
        reference: the same of the uncached run.
    """
    own = ledger is None or record.digests == sample_digests(ledger)
    return own and (reference is None or record.reference_samples == samples_digest(sample_digests(reference)))
