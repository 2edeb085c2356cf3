"""What is known of one sampling run: its CFG branches, each with its own features, run steps and drift."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from spectrum.health import Health
from spectrum.history import History
from spectrum.method import Seen, Step


@dataclass(frozen=True)
class Observation:
    """One step at which the blocks ran.

    Attributes:
        branch: the CFG branch's name.
        step: the sampler's step.
        inputs: the denoiser's forward arguments by name.
        entry: input of the block stacks; feature: their output, which enters the exit module. Same shape and dtype.
        velocity: the denoiser's output.
    """

    branch: str
    step: int
    inputs: dict[str, Any]
    entry: Tensor
    feature: Tensor
    velocity: Tensor


@dataclass
class Branch:
    """One CFG branch in one trajectory.

    Attributes:
        keep: features held at each place, None for all.
        places: by the name that the site gives it, the history of each place.
        marks: (signal, velocity) at the two newest run steps, for methods that decide by data.
        last: the newest step; signal: what the method watched there; level: the scales of picture and noise there.
        grid: how the image tokens lie.
    """

    name: str
    origin: int
    keep: int | None
    condition: Any = None
    grid: tuple[int, ...] | None = None
    places: dict[str, History] = field(default_factory=dict)
    runs: list[int] = field(default_factory=list)
    skipped: list[Step] = field(default_factory=list)
    last: int = -1
    drift: float = 0.0
    signal: Tensor | None = None
    level: tuple[float, float] = (0.0, 1.0)
    marks: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)

    @property
    def times(self) -> list[float]:
        """The clock's readings at the steps whose features are held, oldest first."""
        return next(iter(self.places.values())).times

    @property
    def nbytes(self) -> int:
        """Bytes that the stored features hold."""
        return sum(history.nbytes for history in self.places.values())

    def store(self, time: float, values: dict[str, Tensor]) -> None:
        """Keep what a site stores of a run step."""
        for name, value in values.items():
            self.places.setdefault(name, History(self.keep)).add(time, value)

    def see(self, signal: Tensor, level: tuple[float, float]) -> Seen | None:
        """What the method decides by, now that it watches `signal`; None at the branch's first step."""
        before, self.signal = self.signal, signal
        last, self.level = self.level, level
        return None if before is None else Seen(signal, before, tuple(self.marks), (level, last), self.grid)

    def mark(self, velocity: Tensor) -> None:
        """Remember a run step's signal and velocity."""
        if self.signal is not None:
            self.marks = [*self.marks[-1:], (self.signal, velocity)]


@dataclass
class Trajectory:
    """One sampling run: the clock's readings at its steps, the scales of picture and noise, its branches by name.

    `decided` holds what the first branch decided at each step.
    """

    timesteps: Any
    times: list[float]
    span: tuple[float, float]
    levels: list[tuple[float, float]]
    branches: dict[Hashable, Branch] = field(default_factory=dict)
    decided: dict[int, bool] = field(default_factory=dict)
    health: Health = field(default_factory=Health)

    def report(self) -> dict[str, Any]:
        """What was done, per branch: run steps, diagnostics of the skipped ones, bytes held."""
        return {
            b.name: {
                "run_steps": list(b.runs),
                "skipped": [{"step": s.step, "sum": s.total, "l1": s.l1} for s in b.skipped],
                "errors": b.errors,
                "cache_bytes": b.nbytes,
            }
            for b in self.branches.values()
        }
