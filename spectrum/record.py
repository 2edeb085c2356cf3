"""Records: what a run was, on what it ran, and what came out. Written whole or not at all."""

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

import spectrum

PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "numpy", "hydra-core", "torchmetrics")


def identity(parts: Any, length: int = 12) -> str:
    """A short SHA-256 of `parts` as canonical JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:length]


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=".draft-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(draft).chmod(0o644)
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Any) -> None:
    """`write_bytes` of indented JSON; a NaN or infinity in it is stored as null."""
    write_bytes(path, (json.dumps(finite(content), indent=1, sort_keys=False) + "\n").encode())


def finite(content: Any) -> Any:
    """`content` as JSON can hold it: NaN and infinities become None."""
    if isinstance(content, dict):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [finite(value) for value in content]
    if isinstance(content, float) and content - content != 0:
        return None
    return content


def environment(device: torch.device) -> dict[str, Any]:
    """Command line, commit, versions and hardware of this process."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "spectrum": spectrum.__version__,
        "git": _git(),
        "python": platform.python_version(),
        "packages": versions,
        "hardware": _hardware(device),
    }


def _git() -> dict[str, Any]:
    here = Path(__file__).resolve().parent
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()
        status = subprocess.run(["git", "status", "--porcelain"], cwd=here, capture_output=True, text=True, check=True)
        return {"commit": commit, "dirty": bool(status.stdout.strip())}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}


def _hardware(device: torch.device) -> dict[str, Any]:
    about: dict[str, Any] = {"device": device.type, "threads": torch.get_num_threads(), "cpu": _cpu()}
    if device.type == "cuda":
        about |= {"gpu": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
    return about


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
