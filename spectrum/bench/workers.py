"""Which of several processes this one is, where they share the samples of a job.

Nothing is sent between them: what is there on disk says what is left to do. So the environment that their launcher
gives them is all that is read, or the keys `worker=` and `workers=` where they are started one by one.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from spectrum.config.schema import RunConfig
from spectrum.core.errors import refuse

Batch = TypeVar("Batch")
LAUNCHERS = {
    "torchrun": ("RANK", "WORLD_SIZE", "LOCAL_RANK"),  # and accelerate launch
    "srun": ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
    "submitit_local": ("SUBMITIT_LOCAL_GLOBALID", "SUBMITIT_LOCAL_NTASKS", "SUBMITIT_LOCAL_LOCALID"),
}
"""By launcher, the variables that it gives a process: its number, how many there are, its number on this machine."""
WHOLE_JOBS = ("joblib", "ray")
"""Launchers of Hydra whose processes do whole jobs; those of Ray inherit what `srun ray start` was given."""


@dataclass(frozen=True)
class Worker:
    """One of several processes that share the samples of a job.

    Attributes:
        number: 0 to `count` - 1. Number 0 also prints, times, measures, draws and writes the record.
        count: how many there are.
        local: its number among those on this machine.
        launched: whether a launcher started the whole command in each of them.
    """

    number: int = 0
    count: int = 1
    local: int = 0
    launched: bool = False

    @property
    def first(self) -> bool:
        """Whether it is the one that writes the record."""
        return self.number == 0

    def __str__(self) -> str:
        return f"worker {self.number} of {self.count}"


ALONE = Worker()


def launched_worker(launcher: str = "", environment: Mapping[str, str] | None = None) -> Worker:
    """Which process this is by the environment that torchrun, `accelerate launch`, srun or submitit gave it.

    Args:
        launcher: of Hydra, the class that started this job, where one did.
        environment: variables; by default those of this process.

    Raises:
        SpectrumError: for a number that is none, or not below the count.

    Example:
        >>> str(launched_worker(environment={"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}))
        'worker 1 of 4'
    """
    given = os.environ if environment is None else environment
    if any(name in launcher for name in WHOLE_JOBS):
        return ALONE
    for keys in LAUNCHERS.values():
        if all(key in given for key in keys[:2]):
            number, count, local = (_number(key, given.get(key, "0")) for key in keys)
            if number >= max(count, 1):
                refuse(f"{keys[0]}={number} is not below {keys[1]}={count}: correct one of them, or unset both")
            if count > 1:
                return Worker(number, count, local, launched=True)
    return ALONE


def _number(key: str, text: str) -> int:
    if not text.isdecimal():
        refuse(f"{key}={text} in the environment is no number: unset it, or start run.py by torchrun")
    return int(text)


def worker_of(config: RunConfig, launcher: str = "", sweep: bool = False) -> Worker:
    """Which process this is by `worker=` and `workers=`, or else by its launcher.

    Args:
        config: the config of a job.
        launcher: of Hydra, the class that started this job, where one did.
        sweep: whether the job is one of a multirun.

    Raises:
        SpectrumError: for keys that do not go together, or with a launcher; and for timing in a multirun of several
            workers, which would be at the next job meanwhile.
    """
    found = launched_worker(launcher)
    if config.worker is not None or config.workers is not None:
        if found.count > 1:
            refuse(
                "worker= and workers= are for processes that are started one by one: leave them out, or the launcher"
            )
        if config.worker is None or config.workers is None:
            refuse("worker= and workers= go together: type for example worker=0 workers=4, and worker=1 workers=4")
        if not 0 <= config.worker < config.workers:
            refuse(f"worker={config.worker} workers={config.workers}: workers are numbered 0 to workers - 1")
        found = Worker(config.worker, config.workers, config.worker)
    if found.count > 1 and "samples" in config.redo:
        refuse("redo=[samples] goes with one process: type it without several workers, or delete the job's folder")
    if found.count > 1 and sweep and config.timing:
        refuse("the other workers of a multirun would spoil its timing: type timing=0, and time the sweep afterwards")
    return found


def on_own_device(config: RunConfig, worker: Worker) -> RunConfig:
    """The config with `device=auto` replaced by a worker's own accelerator, on a machine that has several.

    Args:
        config: the config of a job.
        worker: which process this is; where there are more of them than accelerators, several share one.
    """
    import torch

    kind = torch.accelerator.current_accelerator(check_available=True) if config.device in ("auto", "gpu") else None
    if worker.count == 1 or kind is None or torch.accelerator.device_count() < 2:
        return config
    index = worker.local % torch.accelerator.device_count()
    torch.accelerator.set_device_index(index)
    return dataclasses.replace(config, device=f"{kind.type}:{index}")


def in_turn(batches: Sequence[Batch], worker: Worker) -> list[Batch]:
    """Batches in the order in which a worker looks for one to make.

    Its own share comes first, every `count`-th batch. Then come the others' shares from their ends, which they reach
    last.

    Args:
        batches: all batches.
        worker: which process this is.

    Example:
        >>> in_turn(range(6), Worker(1, 2))
        [1, 3, 5, 4, 2, 0]
    """
    own = list(batches[worker.number :: worker.count])
    others = [batch for place, batch in enumerate(batches) if place % worker.count != worker.number]
    return own + others[::-1]
