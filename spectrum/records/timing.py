"""The timing of a record: every call that was timed, on what, and what follows from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spectrum.records.sections import sections

STRICT = {"extra": "forbid", "strict": True}


@dataclass(frozen=True)
class TimedRound:
    """One batch of samples, timed with the method between two uncached runs of the same samples.

    The seconds of a call are `denoise`, from the first denoiser call to the end of the last step, and `total`, from the
    prompt to the pixels.

    Attributes:
        samples: file names of the samples.
        before: seconds of the uncached run just before.
        candidate: seconds of the method.
        after: seconds of the uncached run just after.
        runs: for each sample, by CFG branch, the steps at which the method ran the blocks in the timed call.
        calls: for each sample, by CFG branch, how often the denoiser was called.
        nfe: steps at which the blocks ran, the mean over the samples, see `block_runs`.
    """

    __pydantic_config__ = STRICT
    samples: list[str]
    before: dict[str, float]
    candidate: dict[str, float]
    after: dict[str, float]
    runs: list[dict[str, list[int]]]
    calls: list[dict[str, int]]
    nfe: float


@dataclass(frozen=True)
class Conditions:
    """Under what a timing pass ran.

    Attributes:
        load: 1-minute load averages: before the process began to work, and after the pass. The second has the pass in
            it. Empty where the system has no load average.
        threads: of torch.
        clocks_mhz: lowest and highest clock of the CPU's cores at the end of the pass; None where it cannot be read.
        date: when the pass ended, ISO 8601 in UTC.
        git: commit, and whether any file of the code was changed or not yet in git.
        command: the command line that timed it.
        forced: the machine was loaded, and it was timed all the same.
    """

    __pydantic_config__ = STRICT
    load: list[float]
    threads: int
    clocks_mhz: list[float] | None
    date: str
    git: dict[str, Any]
    command: str
    forced: bool


@dataclass(frozen=True)
class Timing:
    """The timing pass of a record. What follows from `rounds` is worked out by `eval.timing.summary` alone.

    Attributes:
        id: of the samples and the machine.
        process: of the pass; rows that were timed together in one process share it.
        hardware: what it ran on.
        batch: samples per call.
        rounds: the timed rounds, each on other samples; the warm-up round is not among them.
        nfe: steps at which the blocks ran in the timed calls, the mean over the rounds.
        seconds_per_sample: `baseline` and `candidate`, the medians over the rounds, per sample. The baseline of a round
            is the mean of the uncached runs before and after the method.
        speedup: median over the rounds of baseline over candidate, denoising.
        speedup_interval: lower and upper end of its 95 % interval, from order statistics.
        speedup_end_to_end: the median for the whole call.
        conditions: load, threads, clocks, date, commit, command.
    """

    __pydantic_config__ = STRICT
    id: str
    process: str
    hardware: dict[str, Any]
    batch: int
    rounds: list[TimedRound]
    nfe: float
    seconds_per_sample: dict[str, dict[str, float]]
    speedup: float
    speedup_interval: list[float]
    speedup_end_to_end: float
    conditions: Conditions


def block_runs(entry: Mapping[str, Any]) -> float:
    """Steps at which the blocks ran for one sample: the mean over the CFG branches that were called most often.

    A branch that guidance leaves out at some steps says nothing of the whole run. For a pipeline that samples section
    after section it is the share of all its steps at which the blocks ran, times the steps of its longest section.
    It is 0 where the denoiser was not called.

    Args:
        entry: a line of the ledger.

    Example:
        >>> block_runs({"runs": {"cond": [0, 1, 4], "uncond": [0]}, "calls": {"cond": 6, "uncond": 2}})
        3.0
        >>> two = {"cond": 6, "section 2: cond": 6, "section 2: uncond": 2}
        >>> block_runs({"runs": {"cond": [0, 1, 4], "section 2: cond": [0], "section 2: uncond": [0]}, "calls": two})
        2.0
    """
    calls, ran, most = entry.get("calls", {}), [], []
    for section in sections(entry["runs"]):
        most.append(max((calls[name] for name in section if name in calls), default=1))
        counts = [len(runs) for name, runs in section.items() if calls.get(name, most[-1]) == most[-1]]
        ran.append(sum(counts) / len(counts))
    if not ran:
        return 0.0
    return sum(ran) * max(most) / sum(most)


def round_nfe(runs: Sequence[Mapping[str, list[int]]], calls: Sequence[Mapping[str, int]]) -> float:
    """The `nfe` of a timed round, from its `runs` and `calls`.

    Example:
        >>> round_nfe([{"cond": [0, 1]}, {"cond": [0, 1, 2]}], [{"cond": 6}, {"cond": 6}])
        2.5
    """
    counts = [block_runs({"runs": own, "calls": of}) for own, of in zip(runs, calls, strict=True)]
    return sum(counts) / len(counts)
