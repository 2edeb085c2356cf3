"""The machine that a timing pass runs on: whether something else loads it, its clocks, and when it was."""

import datetime
import functools
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path

import torch

from eval.timing import IDLE, ROUNDS
from spectrum.bench.provenance import command_line, git_at_start
from spectrum.config.schema import RunConfig
from spectrum.core.errors import refuse
from spectrum.records.record import Record
from spectrum.records.timing import Conditions, Timing

COMMAND = "python scripts/timing.py"
"""What times the rows of a table together."""


def load_average() -> float | None:
    """The 1-minute load average; None where the system has none."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


@functools.cache
def load_at_start() -> float | None:
    """The load average when a process first asked for it: before its own work is part of it."""
    return load_average()


def note_start() -> None:
    """Read what a record says of the start of its process: the load average, and the commit of the loaded code."""
    load_at_start()
    git_at_start()


def cores_of_others(seconds: float = 1.0) -> float | None:
    """How many cores other processes keep busy now; None where the system does not say.

    Args:
        seconds: for how long to look.
    """
    before, began, own = _busy_seconds(), time.monotonic(), time.process_time()
    if before is None:
        return None
    time.sleep(seconds)
    after, ended = _busy_seconds() or before, time.monotonic()
    return max(0.0, after - before - (time.process_time() - own)) / (ended - began)


def _busy_seconds() -> float | None:
    """Seconds that all cores together have worked since the machine began; None where it cannot be read."""
    try:
        line = Path("/proc/stat").read_text().splitlines()[0].split()
    except (OSError, IndexError):
        return None
    user, nice, system, _, _, irq, softirq = map(int, line[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def loaded(load: float | None) -> bool:
    """Whether a load average is too high to time at."""
    return load is not None and load > IDLE


def check_idle(load: float | None, otherwise: str) -> None:
    """Refuse to time on a loaded machine.

    Args:
        load: the 1-minute load average.
        otherwise: what to type instead of waiting, for the message.

    Raises:
        SpectrumError: if it is above `IDLE`.
    """
    if loaded(load):
        refuse(
            f"the machine is loaded: its 1-minute load average is {load:.2f}, and timing needs at most {IDLE}: end "
            f"what else runs, wait two minutes and type it again, or type {otherwise}"
        )


def load_of_script(given: Mapping[str, str]) -> float | None:
    """Note the start of a script that times, and refuse it on a loaded machine unless `force=true` was typed.

    Args:
        given: the script's options.

    Returns:
        The load average, for `conditions`.

    Raises:
        SpectrumError: on a loaded machine, and for a `force=` that is neither true nor false.
    """
    force = given.get("force", "false")
    if force not in ("true", "false"):
        refuse(f"force={force} is unknown: type force=true or leave it out")
    note_start()
    if force == "false":
        check_idle(load_at_start(), "force=true")
    return load_at_start()


def shareable(timing: Timing) -> bool:
    """Whether the timing of a single run may go into the folder of all records: enough rounds, on an idle machine."""
    return len(timing.rounds) >= ROUNDS and not timing.conditions.forced


def check_shared_timing(config: RunConfig, record: Record | None) -> None:
    """Refuse to time for the folder of all records with too few rounds, or on a loaded machine.

    Args:
        config: the config of a run.
        record: what is known of the run; with a timing, none is made.

    Raises:
        SpectrumError: with what to type instead.
    """
    if not config.records or not config.timing or (record is not None and record.timing is not None):
        return
    if config.timing < ROUNDS:
        refuse(
            f"timing={config.timing}: a record in records={config.records} is timed in at least {ROUNDS} rounds: type "
            f"timing={ROUNDS}, or {_later(config)}"
        )
    check_idle(load_at_start(), _later(config))


def load_before_timing(config: RunConfig) -> float | None:
    """What loads the machine just before a run is timed; since its process began, other work may have started.

    Args:
        config: the config of the run.

    Returns:
        The load average at the process's start, or how many cores other processes keep busy now if those are more;
        None where the system tells neither.

    Raises:
        SpectrumError: if others keep more than `IDLE` cores busy and the timing is for the folder of all records.
    """
    others = cores_of_others()
    if config.records and others is not None and others > IDLE:
        refuse(
            f"the machine is loaded: other processes keep {others:.2f} cores busy, and timing needs at most {IDLE}: "
            f"end what else runs and type it again (the samples are kept), or type {_later(config)}"
        )
    return max((load for load in (load_at_start(), others) if load is not None), default=None)


def _later(config: RunConfig) -> str:
    """What to type to time the rows of a table together, instead of a single run now."""
    return f"timing=0, and then {COMMAND} experiment=NAME records={config.records}"


def clocks_mhz() -> list[float] | None:
    """The lowest and the highest clock of the CPU's cores now, in MHz; None where it cannot be read."""
    try:
        found = re.findall(r"^cpu MHz\s*:\s*([\d.]+)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        return None
    clocks = [float(text) for text in found]
    return [min(clocks), max(clocks)] if clocks else None


def conditions(before: float | None) -> Conditions:
    """The conditions of a pass that has just ended.

    Args:
        before: the load before the pass, without the process's own.
    """
    loads = before, load_average()
    return Conditions(
        load=[round(load, 2) for load in loads if load is not None],
        threads=torch.get_num_threads(),
        clocks_mhz=clocks_mhz(),
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        git=git_at_start(),
        command=command_line(),
        forced=loaded(before),
    )
