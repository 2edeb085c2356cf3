"""What a run needs of memory, as numbers: its parts, and the peak under each way of offloading. Without torch."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

GIB = 2**30


@dataclass(frozen=True)
class Part:
    """A network of a pipeline.

    Attributes:
        weights: bytes of its weights.
        always: with `offload=group` the bytes of those that lie in no group.
        group: bytes of the largest group.
        denoises: whether it is a denoiser, so that features are stored while it is at work.
    """

    weights: int
    always: int
    group: int
    denoises: bool

    @property
    def stays(self) -> bool:
        """Whether it has no groups, so that `offload=group` leaves the whole of it on the device."""
        return self.always == self.weights and not self.group

    def on_device(self, offload: str, ahead: bool) -> int:
        """Bytes of its weights on the device while it is at work; with `ahead` the next group is there as well."""
        return self.always + self.group * (2 if ahead else 1) if offload == "group" else self.weights


@dataclass(frozen=True)
class Task:
    """A call of one network.

    Attributes:
        name: the network, or what it does: `vae decode`.
        part: the network.
        work: the most bytes that the call holds at once, without weights.
    """

    name: str
    part: str
    work: int


@dataclass(frozen=True)
class Rehearsed:
    """What a pipeline's networks weigh, and what their calls hold, of a rehearsal: `spectrum.bench.rehearsal`.

    Attributes:
        parts: the networks by name.
        tasks: the calls of the networks.
        outputs: the shapes of all that the denoiser returns for one sample and CFG branch, each (tokens, width); empty
            where it could not be called.
        modules: bytes of what its attentions and MLPs return, all together, for one sample and CFG branch; 0 where it
            is not known.
        failed: the calls that could not be made without numbers.
    """

    parts: Mapping[str, Part]
    tasks: tuple[Task, ...]
    outputs: list[list[int]]
    modules: int
    failed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Need:
    """What a run needs of memory, in bytes.

    Attributes:
        parts: the networks by name.
        tasks: their calls.
        features: what the method stores at most.
        guessed: what could not be worked out and is a guess, for people.
    """

    parts: Mapping[str, Part]
    tasks: tuple[Task, ...]
    features: int = 0
    guessed: tuple[str, ...] = field(default=())

    def peak(self, offload: str = "none", ahead: bool = True) -> int:
        """The most bytes that are on the device at once.

        Args:
            offload: `none`, `model` or `group`.
            ahead: whether with `group` the next group is brought while one is at work, as on CUDA.

        Example:
            >>> parts = {"transformer": Part(100, 10, 5, True), "vae": Part(8, 0, 2, False)}
            >>> need = Need(parts, (Task("transformer", "transformer", 7), Task("vae decode", "vae", 50)), features=3)
            >>> [need.peak(offload) for offload in ("none", "model", "group")]
            [158, 110, 54]
        """
        return sum(self.at_peak(offload, ahead))

    def at_peak(self, offload: str = "none", ahead: bool = True) -> tuple[int, int, int]:
        """The bytes at that moment: (weights, features, what the call at work holds)."""
        found = [self._during(task, offload, ahead) for task in self.tasks]
        return max(found, key=sum, default=(sum(part.weights for part in self.parts.values()), 0, 0))

    def _during(self, task: Task, offload: str, ahead: bool) -> tuple[int, int, int]:
        part = self.parts[task.part]
        weights = part.on_device(offload, ahead) + self._beside(task.part, offload)
        return weights, self.features if part.denoises else 0, task.work

    def _beside(self, at_work: str, offload: str) -> int:
        """Bytes of the other networks' weights that are on the device while one is at work."""
        others = {name: part for name, part in self.parts.items() if name != at_work}
        if offload == "model":  # what encodes before the loop is brought back by nobody until the denoiser is done
            first = {task.part for task in self.tasks if task.name == f"{task.part} encode"}
            return sum(others[name].weights for name in first & others.keys()) if self.parts[at_work].denoises else 0
        return sum(part.weights for part in others.values() if offload == "none" or part.stays)

    def text(self, offload: str = "none", ahead: bool = True) -> str:
        """One line for people, in GiB: what is on the device at the peak, in numbers that add up to it."""
        found = self.at_peak(offload, ahead)
        most = max(self.tasks, key=lambda task: sum(self._during(task, offload, ahead)), default=None)
        digits = 1 if sum(found) >= GIB / 2 else 3
        sums = [0.0, *(round(sum(found[:count]) / GIB, digits) for count in (1, 2, 3))]
        weights, features, work = (f"{after - before:.{digits}f}" for before, after in itertools.pairwise(sums))
        stored = f", features {features}" if found[1] else ""
        doing = "" if most is None else f", the largest activation {work} of {most.name}"
        guess = f"; guessed: {', '.join(self.guessed)}" if self.guessed else ""
        return f"about {sums[-1]:.{digits}f} GiB on the device (weights {weights}{stored}{doing}){guess}"


def gib(size: int) -> str:
    """Bytes in GiB with one decimal, with three below a half."""
    return f"{size / GIB:.1f}" if size >= GIB / 2 or not size else f"{size / GIB:.3f}"
