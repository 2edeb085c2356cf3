"""What a job and a table cost per prompt as they grow: seconds of bookkeeping, memory, statistics, figures.

python scripts/bench/scale.py [prompts=100,1000,10000] [samples=192,10000,100000] [force=true]
    [to=outputs/bench/scale.json]

Part `jobs`: `run.py` on toy FLUX at two steps with so many prompts, each in a process of its own with one thread.
Bookkeeping is all that is not a call of the pipeline: ledgers, PNG files, metrics, record, report; of PNG files that
are written while the next call is under way it has the CPU time alone. `again` is the same command when everything is
there. A loaded machine is refused; with force=true the file says that it was loaded. Part `tables`: the
rows of the main table with so many samples drawn at random.
"""

import dataclasses
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT)]

import numpy as np
import torch

from eval import statistics
from eval.metrics.columns import METRICS
from eval.tables import formats
from eval.tables.experiments import load_experiment
from eval.tables.tables import ExperimentTable, match_rows
from eval.tables.verify import problems
from spectrum.bench.machine import conditions, load_of_script
from spectrum.bench.provenance import environment
from spectrum.commands.figures import draw_experiment
from spectrum.commands.guard import guarded, options, wants_help
from spectrum.core.errors import refuse
from spectrum.records.files import write_json
from spectrum.records.record import MetricEntry, Record, read_record, read_records, write_record

USAGE = "python scripts/bench/scale.py [prompts=100,1000] [samples=192,10000]"
OPTIONS = {
    "prompts": "sizes of the jobs, with commas; 100,1000,10000 by default",
    "samples": "sizes of the tables, a multiple of 4 each; 192,10000,100000 by default",
    "to": "the file; outputs/bench/scale.json by default",
    "force": "true measures on a loaded machine too, and the file says so",
}
INSIDE = {"job": "measure one job of so many prompts and print it; for the processes that this starts"}
SEEDS = 4
Found = dict[str, Any]


def measure_job(count: int) -> Found:
    """Run a job with so many prompts, and run it again.

    Args:
        count: number of prompts.

    Returns:
        Seconds in all and of calls of the pipeline, seconds of bookkeeping per prompt, and the most memory in MiB;
        `cpu` is of all threads.
    """
    from spectrum.bench import generate, run
    from spectrum.config.compose import compose
    from spectrum.hooks.replaced import replaced

    called: list[tuple[float, float]] = []

    def timed(sample_batch: Callable[..., Any], *args: Any) -> Any:
        began, busy = time.perf_counter(), time.thread_time()
        images = sample_batch(*args)
        called.append((time.perf_counter() - began, time.thread_time() - busy))
        return images

    with tempfile.TemporaryDirectory() as folder, replaced(generate, "sample_batch", timed):
        words = ["model=flux", "model.weights=tiny", "model.steps=2", "method=fora", "schedule=explicit", "batch=16"]
        words += ["schedule.run_steps=[0]", "timing=0", "probe=0", f"out={folder}"]
        lists = {size: Path(folder) / f"{size}.txt" for size in (8, count)}
        for size, path in lists.items():
            path.write_text("".join(f"a cat with number {number}\n" for number in range(size)))
        run.run(compose([*words, f"prompts.file={lists[8]}"]))  # what is imported and built once
        found: Found = {"prompts": count, "before_mib": peak()}
        for name in ("first", "again"):
            called.clear()
            began, busy = time.perf_counter(), time.process_time()
            run.run(compose([*words, f"prompts.file={lists[count]}"]))
            wall, cpu = time.perf_counter() - began, time.process_time() - busy
            in_calls, in_calls_cpu = (sum(part) for part in zip(*called, strict=True)) if called else (0.0, 0.0)
            found[name] = {
                "seconds": wall, "cpu": cpu, "pipeline_seconds": in_calls, "pipeline_cpu": in_calls_cpu,
                "bookkeeping_ms_per_prompt": 1000 * (wall - in_calls) / count,
                "bookkeeping_cpu_ms_per_prompt": 1000 * (cpu - in_calls_cpu) / count,
            }  # fmt: skip
        found["peak_mib"] = peak()
    return found


def job_apart(count: int) -> Found:
    """What `measure_job` returns, from a process of its own.

    Raises:
        SpectrumError: if that fails; what it wrote to standard error stands above.
    """
    one = {**os.environ, "OMP_NUM_THREADS": "1"}  # a call's CPU time is that of its thread
    command = [sys.executable, __file__, f"job={count}"]
    said = subprocess.run(command, capture_output=True, text=True, check=False, env=one)
    if said.returncode:
        sys.stderr.write(said.stderr)
        refuse(f"the job with prompts={count} ended with exit code {said.returncode}: see its error above")
    return json.loads(said.stdout.splitlines()[-1])


def peak() -> float:
    """The most memory that this process has held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def grown(record: Record, count: int, draw: np.random.Generator) -> Record:
    """A record with so many samples, whose values are drawn from those of a real one."""
    prompts = [f"prompt {number}" for number in range(count // SEEDS)]
    metrics: dict[str, MetricEntry] = {}
    for name, entry in record.metrics.items():
        wanted = len(prompts) if METRICS[name].per == "prompt" else count
        if entry.values is not None:
            finite = [value for value in entry.values if value is not None] or [0.0]
            values = (draw.choice(finite, wanted) + draw.normal(0, 0.01, wanted)).tolist()
            values = [None] * wanted if set(entry.values) == {None} else values
            per = SEEDS if wanted == count else 1
            mean, half = statistics.interval(values, per)
            low, low_half = statistics.worst(values, per, higher_is_better=METRICS[name].better == "higher")
            made = {"mean": mean, "interval": half, "worst_5_percent": low, "worst_interval": low_half}
            made = {key: None if value != value else value for key, value in made.items()}
            entry = dataclasses.replace(entry, values=values, **made)
        metrics[name] = entry
    by_sample = draw.choice(record.nfe_by_sample, count).tolist()
    return dataclasses.replace(
        record, prompts=prompts, seeds=list(range(SEEDS)), samples=count, nfe_by_sample=by_sample, metrics=metrics,
        digests=[draw.bytes(8).hex() for _ in range(count)],
    )  # fmt: skip


def measure_tables(count: int) -> Found:
    """Make the main table and its figures of records with so many samples.

    Args:
        count: number of samples of each row.

    Returns:
        Seconds of each part, for all rows together, and of one call of each statistic.
    """
    draw = np.random.default_rng(0)
    small = match_rows(load_experiment("tiny_table"), read_records(ROOT / "results" / "records"))
    every = {r.id: r for r in (*small.records, *small.controls, *([small.full] if small.full else []))}
    big = {name: grown(record, count, draw) for name, record in every.items()}
    rows = [(row, record and big[record.id]) for row, record in small.rows]
    full = big[small.full.id] if small.full else None
    table = ExperimentTable(small.experiment, rows, [big[r.id] for r in small.controls], full)
    compared = [r for r in table.records if not r.is_reference]
    psnr = [record.metrics["psnr"].values or [] for record in compared]
    found: Found = {"samples": count, "rows": len(table.records), "seconds": {}, "one_call": {}}
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{record.id}.json" for record in table.records]
        parts: dict[str, Callable[[], object]] = {
            "write records": lambda: [write_record(p, r) for p, r in zip(paths, table.records, strict=True)],
            "read records": lambda: [read_record(path) for path in paths],
            "check records": lambda: [list(problems(r, full or r)) for r in table.records],
            "markdown": lambda: formats.markdown(table),
            "latex and csv": lambda: (formats.latex(table), formats.csv_table(table)),
            "figures": lambda: draw_experiment("tiny_table", table, Path(folder) / "figures"),
        }
        for name, part in parts.items():
            found["seconds"][name] = seconds(part)
            print(f"  {name}: {found['seconds'][name]:.2f} s", flush=True)
    calls: dict[str, Callable[[], object]] = {
        "interval": lambda: statistics.interval(psnr[0], SEEDS),
        "worst": lambda: statistics.worst(psnr[0], SEEDS),
        "paired": lambda: statistics.paired(psnr[0], psnr[1], SEEDS),
        "order_stability, 8 rows": lambda: statistics.order_stability(psnr[:8], SEEDS),
    }
    found["one_call"] = {name: seconds(call) for name, call in calls.items()}
    return found | {"peak_mib": peak()}


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def numbers(given: dict[str, str], key: str, default: str, multiple: int) -> list[int]:
    """The sizes that an option names, the smallest first.

    Raises:
        SpectrumError: for anything but whole numbers with commas between them.
    """
    words = given.get(key, default).split(",")
    if not all(word.isdecimal() and int(word) and int(word) % multiple == 0 for word in words):
        refuse(f"{key}={given.get(key)} is no list of multiples of {multiple}: type {key}={default}")
    return sorted(map(int, words))  # the most memory of a process is that of its largest table so far


def main() -> None:
    """Measure jobs and tables of several sizes, and write what was found."""
    if wants_help(sys.argv[1:], __doc__ or "", OPTIONS):
        return
    given = options(sys.argv[1:], {**OPTIONS, **INSIDE}, USAGE)
    if "job" in given:
        print(json.dumps(measure_job(numbers(given, "job", "100", 1)[0])))
        return
    sizes, samples = (
        numbers(given, "prompts", "100,1000,10000", 1),
        numbers(given, "samples", "192,10000,100000", SEEDS),
    )
    load = load_of_script(given)
    found: Found = {"environment": environment(torch.device("cpu")), "jobs": [], "tables": []}
    to = Path(given.get("to", "outputs/bench/scale.json"))
    for count in sizes:
        found["jobs"].append(job_apart(count))
        job = found["jobs"][-1]
        costs = ", ".join(f"{name} {job[name]['bookkeeping_ms_per_prompt']:.2f}" for name in ("first", "again"))
        print(f"{count} prompts: bookkeeping in ms per prompt: {costs}; {job['peak_mib']:.0f} MiB", flush=True)
        write_json(to, found | {"conditions": dataclasses.asdict(conditions(load))})
    for count in samples:
        print(f"{count} samples of each row", flush=True)
        found["tables"].append(measure_tables(count))
        write_json(to, found | {"conditions": dataclasses.asdict(conditions(load))})
    print(to)


if __name__ == "__main__":
    sys.exit(guarded(main))
