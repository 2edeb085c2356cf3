"""Records as the bench writes them, of runs that nobody sampled: their values and seconds are given by hand."""

import dataclasses
import functools
import hashlib
import math

import torch

from eval.metrics.columns import METRICS
from eval.metrics.ids import asked, computed
from eval.metrics.metric import Result
from eval.tables import tables
from eval.tables.experiments import Experiment, Row, load_experiment
from spectrum.bench.describe import describe
from spectrum.bench.job import Job
from spectrum.bench.provenance import environment
from spectrum.bench.timing import timing_of
from spectrum.config.compose import compose
from spectrum.models.plans import plan_of
from spectrum.records.record import MetricEntry, sealed
from spectrum.records.timing import Conditions, TimedRound, round_nfe

COMMIT = {"commit": "c0ffee" * 6 + "c0ff", "dirty": False}
HARDWARE = {"device": "cpu", "threads": 2, "cpu": "a CPU"}


def job_of(method, *words):
    """The job of a method on the first prompts of the embedded model's table, at batch 1."""
    return Job.of(compose([f"method={method}", "batch=1", *words]))


def ledger_of(job, runs):
    """What sampling a job would have written, with these run steps for every sample."""
    steps = job.config.method.steps or job.config.model.steps
    return [
        {
            "index": s.index, "seed": s.seed, "prompt": s.prompt, "file": s.file,
            "sha256": hashlib.sha256(f"{job.folder.name} {s.file}".encode()).hexdigest(),
            "runs": {"cond": runs}, "calls": {"cond": steps},
        }
        for s in job.samples
    ]  # fmt: skip


def metric(record, name, values, provenance, parameters):
    """A metric's entry, as `eval.metrics.measure` makes it of values."""
    request = asked(name, parameters, record.id, record.reference)
    if values is None:
        entry = {"mean": provenance.pop("mean"), "provenance": {"samples": record.samples, **provenance}}
    else:
        infinite = [math.inf if value is None else float(value) for value in values]
        per = len(record.seeds) if METRICS[name].per == "sample" else 1
        better = METRICS[name].better == "higher"
        entry = Result.per_sample(infinite, **provenance).record_entry(better, per)
        entry = {
            key: value if isinstance(value, (dict, list)) or value == value else None for key, value in entry.items()
        }
        entry["values"] = values
    about = entry["provenance"]
    return MetricEntry(asked=request, id=computed(request, about), parameters=parameters, **entry)


def timing(record, ratios, runs=None, seconds=1.0, **conditions):
    """A timing of one round for each ratio; the uncached run takes `seconds` a call, with no noise."""
    steps = record.method.get("steps") or record.steps
    full = {"denoise": seconds, "total": 1.5 * seconds}
    rounds = []
    for number, ratio in enumerate(ratios):
        own = {"denoise": seconds / ratio, "total": seconds / ratio + seconds / 2}
        masks, calls = [runs or record.runs], [dict.fromkeys(record.runs, steps)]
        seed, index = record.seeds[0], number % len(record.prompts)
        files = [f"{index:05d}-s{seed}.png"]
        rounds.append(TimedRound(files, full, own, full, masks, calls, round_nfe(masks, calls)))
    where = {"load": [0.1, 0.9], "threads": 2, "clocks_mhz": None, "date": "2026-01-01T00:00:00+00:00", "git": COMMIT}
    where |= {"command": "scripts/timing.py", "forced": False, **conditions}
    process = where.pop("process", "one pass")
    return timing_of(record.id, rounds, HARDWARE, Conditions(**where), process)


def record_of(
    method, *words, psnr=None, clip=None, ratios=None, runs=None, timed_runs=None, probed=False, **conditions
):
    """A record with these values.

    Args:
        method: its name.
        words: more overrides, such as `runs=14`, `prompts.limit=2` and `seeds=[0,1]`.
        psnr: one number a sample; None for infinity.
        clip: one number a sample.
        ratios: the speed-up of each timed round; None for no timing.
        runs: the run steps, where the method decides by data.
        timed_runs: those of the timed rounds, where they are others.
        probed: whether forecast errors were measured; the one of step 5 is 0.05.
        conditions: of the timing, and its `process`.
    """
    job = job_of(method, *words)
    steps = job.config.method.steps or job.config.model.steps
    plan = plan_of(job.config, job.method)
    own = runs or list(plan.runs) if job.method.forecast else list(range(steps))
    full = dataclasses.replace(job, folder=job.base_folder)
    base = ledger_of(full, list(range(job.config.model.steps)))
    here = {**environment(torch.device("cpu")), "git": COMMIT, "command": "run.py", "hardware": HARDWARE}
    skipped = sorted(set(range(steps)) - set(own)) if probed and job.method.forecast else []
    errors = [{"step": step, "feature": step / 100, "velocity": step / 100} for step in skipped]
    report = {"cond": {"errors": errors, "cache_bytes": 1000}} if errors else {}
    record = describe(job, ledger_of(job, own), base, report, here)
    metrics = {}
    if psnr is not None:
        metrics["psnr"] = metric(record, "psnr", psnr, {}, {})
    if clip is not None:
        metrics["clip_score"] = metric(record, "clip_score", clip, {"sha256": "0" * 64}, {"model": "tiny"})
    record = dataclasses.replace(record, metrics=metrics)
    if ratios is not None:
        timed = {"cond": timed_runs} if timed_runs else None
        record = dataclasses.replace(record, timing=timing(record, ratios, timed, **conditions))
    return sealed(record)


@functools.cache
def records_of(name, methods=None):
    """A record for each row of an experiment, or for the rows of these methods alone.

    The n-th row's PSNR is 40 - n dB in the mean, from 2 dB below it to 2 above; a method's speed-up is 0.9 of the ideal
    one, with one round 1 % off in each direction.
    """
    found = []
    for number, row in enumerate(load_experiment(name).rows):
        if methods and row.keys["method"] not in methods:
            continue
        keys = {key: "null" if value is None else value for key, value in row.keys.items()}
        words = [f"{key}={value}".replace(", ", ",") for key, value in keys.items() if key != "method"]
        words = [f"experiment={name}", *words]
        job = job_of(keys["method"], *words)
        count, steps = len(job.samples), job.config.model.steps
        budget = int(keys.get("runs", steps))
        own = None
        if job.method.forecast and not job.method.time_only:
            own = sorted({step * steps // budget for step in range(budget)})
        plain = keys["method"] == "none"
        values = [None if plain else 40.0 - number + 4 * i / (count - 1) - 2 for i in range(count)]
        clip = [70.0 + i % 7 for i in range(count)]
        ideal = 1.0 if plain else 0.9 * steps / budget
        ratios = [ideal * share for share in (0.99, *[1.0] * 7, 1.01)]
        record = record_of(keys["method"], *words, psnr=values, clip=clip, ratios=ratios, runs=own, probed=True)
        found.append(record)
    return found


def records_of_all(*names):
    """The records of several experiments; a run that stands in two of them is the first one's."""
    found = {}
    for name in names:
        for record in records_of(name):
            found.setdefault(record.id, record)
    return list(found.values())


FOUR = ("prompts.limit=4", "seeds=[0]")


def table_of(*rows, against="spectrum", controls=(), full=None):
    """A table of (keys, record)."""
    experiment = Experiment("mine", "Mine", against, None, {}, [Row(keys, "the command") for keys, _ in rows])
    matched = [(row, record) for row, (_, record) in zip(experiment.rows, rows, strict=True)]
    return tables.ExperimentTable(experiment, matched, list(controls), full)


def shown(table, record):
    return tables.measured(table, record)


def at(method, runs=14):
    return {"method": method, "runs": runs}


def controls(fast=(20.0, 20.0, 22.0, 22.0), slow=(30.0, 32.0, 34.0, 36.0)):
    made = [
        record_of("fewer_steps", f"runs={runs}", *FOUR, psnr=list(values), ratios=[speed] * 3)
        for runs, speed, values in ((25, 2.0, slow), (12, 4.0, fast))
    ]
    return made[::-1]
