"""Profiles one batch of a job: a ledger of the time by part, and a trace of the profiler's for Perfetto."""

import itertools
import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity

from spectrum.api import Accelerated, denoisers
from spectrum.bench.job import Job
from spectrum.bench.machine import load_average
from spectrum.bench.marks import FIRST, REST, WHOLE, Marks
from spectrum.bench.prompts import Sample
from spectrum.bench.provenance import environment
from spectrum.bench.resolve import label
from spectrum.bench.sampling import sample_batch
from spectrum.bench.time_ledger import Calls, Ledger, page
from spectrum.bench.timing import Side, prove
from spectrum.bench.watch import Watch
from spectrum.config.sampling import Sampling
from spectrum.hooks.private_api import execution_device
from spectrum.models.pipelines import device_of
from spectrum.models.solvers import with_solver
from spectrum.records.files import write_bytes, write_json

TRACE, PAGE, LEDGER = "trace.json.gz", "ledger.md", "ledger.json"
MOST = 20_000_000
"""The size of a trace, in bytes as it is stored, above which not all steps are in it."""
EACH = 2
"""How many steps of each kind a short trace has at least."""


def activities(device: torch.device) -> list[ProfilerActivity]:
    """What torch's profiler can record on a device."""
    return [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]


def window_of(kinds: Sequence[str], each: int = EACH) -> range:
    """The fewest steps in a row that have `each` of every kind there is, without the first step if that can be.

    Args:
        kinds: what each step was.
        each: how many of a kind, or as many as there are.

    Example:
        >>> window_of(["run", "run", "run", "skipped", "run", "skipped", "skipped"])
        range(2, 6)
    """
    wanted = {kind: min(each, count) for kind, count in Counter(kinds).items()}
    before = {kind: [0, *itertools.accumulate(other == kind for other in kinds)] for kind in wanted}
    for first in (1, 0):
        for length in range(sum(wanted.values()), len(kinds) - first + 1):
            for begin in range(first, len(kinds) - length + 1):
                if all(before[kind][begin + length] - before[kind][begin] >= wanted[kind] for kind in wanted):
                    return range(begin, begin + length)
    return range(len(kinds))


class Profiled:
    """A pipeline with a method on it, whose calls for one batch are watched and traced.

    Args:
        handle: the pipeline, its layout proved.
        side: the method, and how the pipeline is called.
        batch: the samples.
    """

    def __init__(self, handle: Accelerated, side: Side, batch: list[Sample]) -> None:
        self._pipe, self._side, self._batch = handle.pipe, side, batch
        self.marks = Marks(handle)

    def _sample(self, watch: Watch) -> None:
        with watch.on(), self.marks.on(watch):
            sample_batch(self._pipe, self._batch, self._side.sampling)

    def watched(self) -> tuple[list[str], list[dict[str, float]]]:
        """Sample the batch without the profiler.

        Returns:
            (what each step was, for each step its milliseconds by part).
        """
        watch = Watch(self._pipe, self._side.sampling.steps, parts=self.marks.parts, whole=WHOLE)
        self._sample(watch)
        steps = watch.own_milliseconds()
        return [self.marks.kind(number) for number in range(len(steps))], steps

    def traced(self, steps: range, kinds: Sequence[str], to: Path) -> Calls:
        """Sample the batch with the profiler on at some steps, and write its trace.

        Args:
            steps: which; the call ends behind them.
            kinds: what each step of the call is.
            to: the file, which ends in `.json.gz`.

        Returns:
            The calls of operators and kernels in these steps.
        """
        device = execution_device(self._pipe)
        profiler, started = torch.profiler.profile(activities=activities(device), acc_events=True), ExitStack()

        def before(step: int) -> None:
            if step == steps.start:
                profiler.start()
                started.callback(profiler.stop)
            if step == steps.stop:
                started.close()

        def named(step: int) -> str:
            return f"step {step} {kinds[step]}" if step < len(kinds) else "after the last step"

        sampling, parts = self._side.sampling, self.marks.parts
        with started:  # an error, or a call that ends before these steps do, stops it too
            self._sample(
                Watch(self._pipe, sampling.steps, steps.stop, parts, whole=WHOLE, named=named, before_step=before)
            )
        profiler.export_chrome_trace(str(to))
        labels = {name.partition(" ")[0] for name in parts} | FIRST.keys() | REST.keys()
        return calls_of(profiler.events() or [], labels, device.type == "cuda")


def calls_of(events: Iterable[Any], labels: set[str], device: bool) -> Calls:
    """Count what a profiler's events say.

    Args:
        events: the events; ranges named `step NUMBER KIND` are around those of a step, and ranges named by a label
            around those of a part.
        labels: the parts.
        device: whether kernels were recorded.

    Returns:
        By kind of step and part, in a step: `operators` that Python called, not those that operators called, and with
        `device` the `kernels` that they started.
    """
    count: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    steps: dict[str, set[str]] = defaultdict(set)
    for event in events:
        if event.device_type != DeviceType.CPU:
            continue
        if event.name.startswith("step ") and event.cpu_parent is None:
            steps[event.name.split()[2]].add(event.name)  # where the scheduler steps twice, a step has two ranges
            continue
        if event.name in labels or "::" not in event.name:
            continue
        above = event.cpu_parent
        own = above is None or "::" not in above.name
        while above is not None and above.name not in labels and not above.name.startswith("step "):
            above = above.cpu_parent
        outer = above
        while outer is not None and outer.cpu_parent is not None:
            outer = outer.cpu_parent
        if above is None or outer is None or not outer.name.startswith("step "):
            continue
        part = count[outer.name.split()[2]]["loop" if above is outer else above.name]
        part["operators"] += own
        part["kernels"] += len(event.kernels)
    return {
        kind: {
            name: {key: found[key] / len(steps[kind]) for key in ("operators", *(["kernels"] if device else []))}
            for name, found in parts.items()
        }
        for kind, parts in count.items()
    }


def profile(pipe: Any, job: Job) -> dict[str, Any]:
    """Profile the first batch of a job, and write its trace, its ledger and the ledger's page into the job's folder.

    Args:
        pipe: the job's pipeline.
        job: the job.

    Returns:
        What `ledger.json` holds.
    """
    config = job.config
    side, batch = Side(job.method, Sampling.of(config)), job.samples[: config.batch or 1]
    before = load_average()
    pipe = with_solver(pipe, side.sampling.solver)
    with Accelerated(pipe, job.method) as handle, tempfile.TemporaryDirectory(dir=job.folder, prefix=".draft-") as at:
        if len(denoisers(pipe)) > 1:  # each is proved at its own first step
            sample_batch(pipe, batch, side.sampling)
        else:
            prove(pipe, side, batch)
        profiled = Profiled(handle, side, batch)
        kinds, steps = profiled.watched()
        shown, trace = window_of(kinds), Path(at) / TRACE
        calls = profiled.traced(shown, kinds, trace)
        if trace.stat().st_size * len(kinds) / len(shown) <= MOST and len(shown) < len(kinds):
            shown = range(len(kinds))
            profiled.traced(shown, kinds, trace)
        size = trace.stat().st_size
        (job.folder / LEDGER).unlink(missing_ok=True)  # what it says is of another trace
        trace.replace(job.folder / TRACE)
    content = {
        **Ledger(kinds, steps, calls).content(),
        "method": label(config),
        "model": config.model.name,
        "samples": [sample.file for sample in batch],
        "trace": {"file": TRACE, "steps": [shown.start, shown.stop - 1], "bytes": size},
        "load": before,
        "environment": here_of(job),
    }
    write_bytes(
        job.folder / PAGE, page(content, f"{label(config)} on {config.model.name}", trace_line(content)).encode()
    )
    write_json(job.folder / LEDGER, content)
    return content


def trace_line(content: dict[str, Any]) -> str:
    """What the trace has, and how it is opened."""
    first, last = content["trace"]["steps"]
    every = len(content["step_ms"]) == last - first + 1
    what = "all steps" if every else f"the steps {first} to {last}"
    size = content["trace"]["bytes"] / 1e6
    return f"{TRACE} ({size:.1f} MB) has {what} of a call under torch's profiler: open it at ui.perfetto.dev."


def here_of(job: Job) -> dict[str, Any]:
    """The command, the commit, the versions and the hardware that a job would be profiled with now."""
    return environment(device_of(job.config.device), job.config.offload)


def stored(folder: Path, here: dict[str, Any]) -> dict[str, Any] | None:
    """The ledger that a job's folder has, with its page and its trace.

    Args:
        folder: the folder.
        here: what `environment` says now.

    Returns:
        What `ledger.json` holds; None where a file is missing or damaged, the trace is another's, or it was made on
        other hardware or with other code.
    """
    if not all((folder / name).is_file() for name in (TRACE, PAGE, LEDGER)):
        return None
    try:
        content = json.loads((folder / LEDGER).read_text())
        page(content, "", trace_line(content))
        made = content["environment"]
        same = all(made[key] == here[key] for key in ("hardware", "git", "spectrum"))
        same = same and content["trace"]["bytes"] == (folder / TRACE).stat().st_size
    except (ValueError, KeyError, TypeError, UnicodeDecodeError, ZeroDivisionError):
        return None
    return content if same else None
