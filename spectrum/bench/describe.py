"""Builds the record of a job's samples, before anything is measured or timed."""

import dataclasses
from typing import Any

from spectrum.bench.job import Job
from spectrum.bench.resolve import cache_bytes, label, plan_of
from spectrum.config.code import method_code
from spectrum.config.identity import schedule_settings
from spectrum.config.schema import changed_settings
from spectrum.models.identity import model_identity, model_kind
from spectrum.records.record import FORMAT, CacheBytes, PromptSource, Record


def block_runs(entry: dict[str, Any]) -> float:
    """Steps at which the blocks ran for one sample: the mean over the CFG branches that were called most often.

    A branch that guidance leaves out at some steps says nothing of the whole run.

    Args:
        entry: a line of the ledger.

    Example:
        >>> block_runs({"runs": {"cond": [0, 1, 4], "uncond": [0]}, "calls": {"cond": 6, "uncond": 2}})
        3.0
    """
    most = max(entry.get("calls", {}).values(), default=0)
    counts = [len(runs) for name, runs in entry["runs"].items() if entry.get("calls", {}).get(name, most) == most]
    return sum(counts) / len(counts)


def describe(job: Job, ledger: list[dict[str, Any]], probed: dict[str, Any], environment: dict[str, Any]) -> Record:
    """The record of sampled pictures.

    Args:
        job: the job.
        ledger: a dict for each sample, from `generate`.
        probed: the report of a run with `probe`, by CFG branch; may be empty.
        environment: what `spectrum.bench.provenance.environment` says.
    """
    config = job.config
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
        nfe=sum(map(block_runs, ledger)) / len(ledger),
        runs=ledger[0]["runs"],
        weights=[{"step": s.step, "sum": s.total, "l1": s.l1} for s in plan.skipped],
        forecast_errors={name: branch["errors"] for name, branch in probed.items()},
        cache_bytes=CacheBytes(
            cache_bytes(config, plan), sum(b["cache_bytes"] for b in probed.values()) // probed_samples
        ),
        metrics={},
        left_out={},
        timing=None,
        **environment,
    )
