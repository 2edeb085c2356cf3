"""Works out a record's timing again from its rounds."""

import itertools

from eval.tables.derived import Problems, by_time_alone, differs, dirty, rising
from eval.timing import IDLE, PARTS, ROUNDS, summary
from spectrum.records.files import identity
from spectrum.records.record import Record
from spectrum.records.timing import TimedRound, Timing, round_nfe


def timing_problems(record: Record, timing: Timing) -> Problems:
    """What does not hold in a timing: all of it that follows from its rounds, and the marks of how it was made.

    Args:
        record: the record.
        timing: its timing.
    """
    if len(timing.rounds) < ROUNDS:
        yield f"timing.rounds has {len(timing.rounds)} rounds, and a table needs {ROUNDS}"
        return
    yield from differs("timing.id", timing.id, identity([record.id, timing.hardware]), "id and hardware")
    yield from differs("timing.batch", timing.batch, min(record.batch, record.samples), "batch and samples")
    places = itertools.product(range(len(record.prompts)), record.seeds)
    files = [f"{index:05d}-s{seed}.png" for index, seed in places]
    batches = {tuple(timed.samples) for timed in timing.rounds}
    if len(batches) < min(len(timing.rounds), record.samples // max(1, timing.batch)):
        yield f"timing.rounds are of {len(batches)} batches, and there are enough for each to have its own"
    for number, timed in enumerate(timing.rounds):
        field = f"timing.rounds.{number}"
        if len(set(timed.samples)) != timing.batch or not set(timed.samples) <= set(files):
            yield f"{field}.samples are not {timing.batch} of the record's samples"
        if not len(timed.runs) == len(timed.calls) == timing.batch:
            yield f"{field}.runs and .calls are not of {timing.batch} samples"
            return
        if not all(own and own.keys() == of.keys() for own, of in zip(timed.runs, timed.calls, strict=True)):
            yield f"{field}.runs and .calls are not of the same CFG branches"
            return
        yield from differs(f"{field}.nfe", timed.nfe, round_nfe(timed.runs, timed.calls), "runs and calls")
        yield from _timed_runs(record, timed, field)
        if timing.hardware == record.hardware and record.batch == timing.batch:
            made = dict(zip(files, record.nfe_by_sample, strict=False))
            own = [round_nfe([each], [of]) for each, of in zip(timed.runs, timed.calls, strict=True)]
            yield from differs(f"{field}.runs", own, [made.get(file) for file in timed.samples], "nfe_by_sample")
        seconds = [timed.before, timed.candidate, timed.after]
        if not all(set(side) == set(PARTS) and 0 < side["denoise"] <= side["total"] for side in seconds):
            yield f"{field} has a call whose seconds are not 0 < denoise <= total"
            return
    for key, made in summary(timing.rounds, timing.batch).items():
        yield from differs(f"timing.{key}", getattr(timing, key), made, "rounds")
    yield from _conditions(timing)


def _timed_runs(record: Record, timed: TimedRound, field: str) -> Problems:
    """The run steps of a round; where a method decides by time alone, they are those of every sample."""
    steps = record.method.get("steps") or record.steps
    for runs, calls in zip(timed.runs, timed.calls, strict=True):
        if not all(len(runs[name]) <= calls[name] <= steps for name in runs):
            yield f"{field}.calls are {calls}, with {steps} steps"
        if not all(rising(own, steps) for own in runs.values()):
            yield f"{field}.runs are no rising steps below {steps}"
        if by_time_alone(record):
            yield from differs(f"{field}.runs", runs, record.runs, "runs")


def _conditions(timing: Timing) -> Problems:
    """What a timing says of the machine and of the code."""
    where = timing.conditions
    yield from dirty(where.git, "timing.conditions.git")
    yield from differs("timing.conditions.threads", where.threads, timing.hardware.get("threads"), "timing.hardware")
    load = where.load[0] if where.load else 0.0
    if abs(load - IDLE) > 0.005 and where.forced != (load > IDLE):  # what is stored is rounded
        yield f"timing.conditions.forced is {where.forced}, and the load average before it was {load}"
