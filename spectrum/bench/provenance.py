"""Where a record comes from: command line, commit, versions, hardware."""

import functools
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

import spectrum

PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "numpy", "hydra-core", "torchmetrics")
CODE = ("spectrum", "baselines", "eval", "configs", "scripts", "run.py")
"""What of a checkout decides what a run gives."""
PLANS = ":(exclude)spectrum/assets/*/plans/*"
"""Plans do not: what a run takes from one is in its record, so that fitting one does not make the next one dirty."""


def environment(device: torch.device, offload: str = "none") -> dict[str, Any]:
    """Command line, commit, versions and hardware of this process.

    Args:
        device: where it computes.
        offload: how weights are kept on the CPU meanwhile.
    """
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "command": command_line(),
        "spectrum": spectrum.__version__,
        "git": git_at_start(),
        "python": platform.python_version(),
        "packages": versions,
        "hardware": hardware(device, offload),
    }


def command_line() -> str:
    """The command line of this process, without the folder of the script."""
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])


def git_state() -> dict[str, Any]:
    """The commit, and whether any file of the code folders has been changed since or is not yet in git.

    Both are None where the package is installed, also if that is inside of somebody's own repository.
    """
    here = Path(__file__).resolve()

    def ask(*words: str) -> str:
        root = here.parent.parent.parent
        return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True).stdout.strip()

    try:
        ask("ls-files", "--error-unmatch", str(here))
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain", "--", *CODE, PLANS))}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}


@functools.cache
def git_at_start() -> dict[str, Any]:
    """`git_state` when a process first asked for it: of the code that it has loaded, whatever is committed later."""
    return git_state()


def hardware(device: torch.device, offload: str = "none") -> dict[str, Any]:
    """What a timing and a picture's last bits depend on: device, its name and driver, threads, CPU, its kernels.

    Args:
        device: where it computes.
        offload: how weights are kept on the CPU meanwhile, which takes time; `none` is not noted.
    """
    about: dict[str, Any] = {"device": device.type, "threads": torch.get_num_threads(), "cpu": _cpu()}
    if device.type == "cpu":
        about["kernels"] = _kernels()
    if device.type == "cuda":
        about |= {"gpu": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
    return about if offload == "none" else about | {"offload": offload}


def kernels_of(device: torch.device) -> dict[str, Any]:
    """What a picture's last bits depend on: version of torch and device, on a CPU its kernels and threads."""
    about = hardware(device)
    named = ("device", "gpu") if device.type == "cuda" else ("device", "kernels", "threads")
    return {"torch": torch.__version__, **{key: about[key] for key in named if key in about}}


def _kernels() -> str:
    """The CPU instructions of torch's kernels, and those of oneDNN's where they are limited to others."""
    own, most = torch.backends.cpu.get_cpu_capability(), os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    more = own == "AVX2" and "avx512f" in (_cpu_line("flags") or "")
    return own if most == own or not (most or more) else f"{own}, oneDNN {most or 'any'}"


def _cpu() -> str:
    return _cpu_line("model name") or platform.processor() or platform.machine()


def _cpu_line(name: str) -> str | None:
    """What Linux says of the first CPU under a name; None elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith(name))
    except (OSError, StopIteration):
        return None
