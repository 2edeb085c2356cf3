"""One full run kept step by step, so that any forecast and schedule can be scored on it without sampling."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spectrum.api import Accelerated
from spectrum.bench.prompts import Sample
from spectrum.bench.sampling import sample_batch
from spectrum.config.sampling import Sampling
from spectrum.core.clock import Clock
from spectrum.core.errors import refuse
from spectrum.core.method import Method
from spectrum.core.schedule import always
from spectrum.hooks import scheduler as schedulers
from spectrum.hooks.trajectory import Observation
from spectrum.records.files import write_bytes


@dataclass(frozen=True)
class Trace:
    """Every step of one full run of a batch, on the CPU.

    Attributes:
        about: what was sampled: model identity, prompts, seeds, steps.
        clocks: by clock, its readings at the steps and its span.
        branches: by CFG branch, one `Observation` a step.
    """

    about: dict[str, Any]
    clocks: dict[str, tuple[list[float], tuple[float, float]]]
    branches: dict[str, list[Observation]]

    @property
    def steps(self) -> int:
        """Number of denoising steps."""
        return len(next(iter(self.clocks.values()))[0])

    def save(self, path: Path) -> None:
        """Write the trace whole or not at all; tensors that several steps share are stored once."""
        buffer = io.BytesIO()
        branches = {name: [vars(seen) for seen in calls] for name, calls in self.branches.items()}
        torch.save({"about": self.about, "clocks": self.clocks, "branches": branches}, buffer)
        write_bytes(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> "Trace":
        """Read a trace. Only tensors and plain values are unpickled, never code.

        Raises:
            SpectrumError: if the file is missing, damaged or no trace.
        """
        try:
            raw = torch.load(path, weights_only=True)
            branches = {name: [Observation(**call) for call in calls] for name, calls in raw["branches"].items()}
            if not {"model", "prompts"} <= raw["about"].keys() or not raw["clocks"] or not branches:
                raise KeyError("about")
            return cls(raw["about"], raw["clocks"], branches)
        except FileNotFoundError:
            return refuse(f"there is no trace {path}: make it with python scripts/trace.py trace={path}")
        except Exception as error:
            kind = type(error).__name__
            if _is_archive(path):
                return refuse(f"{path} is no whole trace ({kind}): run scripts/trace.py again to make one")
            return refuse(f"{path} is no whole trace ({kind}): type trace=FILE of one made by python scripts/trace.py")


def _is_archive(path: Path) -> bool:
    """Whether a file begins like those that `torch.save` writes, as a trace does that was cut off."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def record_trace(
    pipe: Any,
    batch: list[Sample],
    sampling: Sampling,
    about: dict[str, Any],
    on_step: Callable[[], None] | None = None,
) -> Trace:
    """Sample a batch in full and keep every step's inputs, features and velocities.

    Args:
        pipe: a diffusers pipeline.
        batch: the samples.
        sampling: how the pipeline is called.
        about: what the trace says of itself.
        on_step: called after each denoising step.

    Raises:
        SpectrumError: if the pipeline runs more than one loop over its steps in a call.
    """
    last: dict[tuple[str, str], tuple[Any, Any]] = {}
    branches: dict[str, list[Observation]] = {}

    def copied(branch: str, name: str, value: Any) -> Any:
        """A copy on the CPU; the one made before if a step is given the very same tensor again."""
        if not isinstance(value, Tensor):
            return value
        if (branch, name) not in last or last[branch, name][0] is not value:
            last[branch, name] = value, value.detach().to("cpu", copy=True)
        return last[branch, name][1]

    def observe(observed: Observation) -> None:
        branch = observed.branch
        if branch in branches and observed.step <= branches[branch][-1].step:
            refuse("the pipeline samples section after section in one call, and a trace is of one loop over the steps")
        inputs = {name: copied(branch, name, value) for name, value in observed.inputs.items()}
        parts = {name: copied(branch, name, getattr(observed, name)) for name in ("entry", "feature", "velocity")}
        branches.setdefault(branch, []).append(Observation(branch, observed.step, inputs, **parts))

    with Accelerated(pipe, Method("none", None, always), observe=observe):
        sample_batch(pipe, batch, sampling, on_step)
    kinds = [kind for kind in Clock if kind is not Clock.sigma or hasattr(pipe.scheduler, "sigmas")]
    readings = {str(kind): schedulers.readings(pipe.scheduler, kind) for kind in kinds}
    return Trace(about, readings, branches)
