"""Sample a model in full and with a caching method from the same noise, and show what was gained and what it cost.

python run.py                                          the embedded model with Spectrum
python run.py model=flux method=taylorseer runs=10     a real model, where its weights are on this machine
python run.py --multirun method=none,fewer_steps,spectrum,fora,taylorseer,teacache runs=14,10
torchrun --nproc-per-node 4 run.py                     four processes that share the samples
"""

import atexit
import os
import shutil
import sys
import tempfile
import traceback
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from spectrum.commands.guard import bad_input
from spectrum.commands.help import wants_config_help
from spectrum.config.overrides import check_overrides
from spectrum.config.reader import CONFIGS
from spectrum.config.schema import register
from spectrum.core.errors import SpectrumError, refuse

FLAGS = ("--multirun", "-m", "--cfg", "-c", "--resolve", "--package", "-p", "--info", "-i")
"""Hydra's own options that make sense here; see https://hydra.cc/docs/advanced/hydra-command-line-flags."""


def main(words: list[str]) -> int:
    """Run one job, or a multirun of several.

    Args:
        words: Hydra's command line.

    Returns:
        0; 1 if a job of a multirun failed.
    """
    if wants_config_help(words, __doc__ or ""):
        return 0
    for word in words:
        if word.startswith("-") and word.partition("=")[0] not in FLAGS:
            refuse(f"there is no option {word}: type --multirun, --cfg job or --help, and settings as key=value")
    check_overrides(words)
    first = [word for word in words if word in ("--multirun", "-m", "--resolve")]
    words = [*first, *(word for word in words if word not in first)]  # Hydra takes no overrides on both sides of a flag
    words += _own_sweep(words)
    register()
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    errors: list[Exception] = []

    def job(composed: DictConfig) -> str:
        return _job(composed, errors)

    from spectrum.bench.comparison import SweepEnd

    name = Path(sys.argv[0]).name
    argv, sys.argv = sys.argv, [name if name == "run.py" else "spectrum run", *words]
    try:
        hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="config")(job)()
    except SweepEnd as end:
        if end.error is None:
            return 1
        raise end.error from None
    except RuntimeError as error:
        if "srun" not in str(error):
            raise
        refuse("hydra/launcher=submitit_slurm needs Slurm, and this machine has no srun: type submitit_local or basic")
    finally:
        sys.argv = argv
    if errors:
        raise errors[0]
    return 0


def _own_sweep(words: list[str]) -> list[str]:
    """The folder of its own that a worker after the first sweeps in, whose table nobody reads.

    Raises:
        SpectrumError: if Hydra is asked to start processes where torchrun or srun has.
    """
    from spectrum.bench.workers import launched_worker

    worker = launched_worker()
    launcher = next((word.partition("=")[2] for word in words if word.startswith("hydra/launcher=")), "basic")
    if worker.count > 1 and launcher != "basic":
        refuse(f"hydra/launcher={launcher} starts processes, and so did torchrun or srun: leave one of them out")
    if worker.first:
        return []
    folder = tempfile.mkdtemp(prefix="spectrum-sweep-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return [f"hydra.sweep.dir={folder}"]


def _job(composed: DictConfig, errors: list[Exception]) -> str:
    """Run one job.

    An error of a single job goes to `errors`, so that it leaves Hydra without the lines that Hydra adds. A job of a
    multirun that fails says why, and the others go on.

    Returns:
        The folder that the job wrote, or why it failed, behind `comparison.FAILED`.
    """
    from spectrum.bench.comparison import FAILED
    from spectrum.bench.run import run
    from spectrum.bench.workers import ALONE, launched_worker, worker_of
    from spectrum.commands.guard import quiet
    from spectrum.config.compose import parse

    quiet()
    config = HydraConfig.get()
    multirun = config.mode == RunMode.MULTIRUN
    group = Path(config.sweep.dir).name if multirun else None
    launcher = config.launcher["_target_"] if multirun else ""
    worker = ALONE
    try:
        worker = launched_worker(launcher)
        parsed = parse(composed, config.overrides.task)
        worker = worker_of(parsed, launcher, multirun)
        return str(run(parsed, group, worker))
    except Exception as error:
        line = bad_input(error)
        if not multirun:
            errors.append(error if line is None or worker.first else SpectrumError(f"{worker}: {line}"))
            return f"{FAILED}{error}"
        if line is None:
            traceback.print_exc()
            line = f"{type(error).__name__}: {' '.join(str(error).split())}"
        who = "" if worker.first else f"{worker}: "
        print(f"error: {who}{' '.join(config.overrides.task)}: {line}", file=sys.stderr)
        return f"{FAILED}{line}"
