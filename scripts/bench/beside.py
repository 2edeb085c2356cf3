"""Methods of this project and caches of others, timed on the embedded model in one run, each between uncached calls."""

import dataclasses
import gc
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import peers
import torch
from torch import Tensor, nn

from eval.metrics.fidelity import psnr_of
from spectrum.bench import timing
from spectrum.bench.prompts import Sample, numbered_samples, read_prompts
from spectrum.bench.resolve import resolve
from spectrum.bench.sampling import in_8_bits, sample_batch
from spectrum.config.compose import compose
from spectrum.config.sampling import Sampling
from spectrum.models.pipelines import load_pipeline
from spectrum.models.plans import cache_bytes, plan_of

_AT_OUTPUT = "method.site=output"
OURS = {
    "spectrum 14": ("method=spectrum", "runs=14"),
    "fora 14": ("method=fora", "runs=14"),
    "taylorseer 14": ("method=taylorseer", "runs=14"),
    "spectrum 14 at the output": ("method=spectrum", "runs=14", _AT_OUTPUT),
    "planned 14 at the output": ("method=planned", "runs=14"),
    "spectrum 10": ("method=spectrum", "runs=10"),
    "spectrum 10 at the output": ("method=spectrum", "runs=10", _AT_OUTPUT),
    "planned 10 at the output": ("method=planned", "runs=10"),
}
"""Our sides by name, as one would type them."""
KEPT = {name: OURS[name] for name in ("spectrum 14", "spectrum 10", "spectrum 14 at the output", "taylorseer 14")}
"""The sides whose features are kept in other ways too."""
PARTS = ("denoise", "total", "cpu")
_FRONT = ("method.front_blocks=1", "method.space=residual")
_ALSO = {(): "", (_AT_OUTPUT,): " at the output", _FRONT: " behind the first block"}


class Beside:
    """The embedded model and what is timed on it.

    Args:
        batch: samples per call.
    """

    def __init__(self, batch: int) -> None:
        self._words = [f"batch={batch}", "prompts=development"]
        config, _ = resolve(compose([*self._words, "method=none"]))
        self.sampling, self.batch = Sampling.of(config), batch
        self.samples = numbered_samples(read_prompts(config.prompts), [0])
        self.pipe = load_pipeline(config.model, torch.device("cpu"))
        self.plain = timing.Side(None, self.sampling)

    def ours(self, *words: str) -> timing.Side:
        """One of our methods, by the words of a command line."""
        return timing.Side(resolve(compose([*self._words, *words]))[1], self.sampling)

    def foreseen(self, *words: str) -> int | None:
        """The bytes that a call of one of our methods will store, worked out before it."""
        config, method = resolve(compose([*self._words, *words]))
        return cache_bytes(config, plan_of(config, method), self.batch)

    def peer(self, put: peers.Peer) -> timing.Side:
        """Somebody else's cache on the pipeline, which has no hook of ours."""
        return dataclasses.replace(self.plain, around=put)

    def sides(self, full: "Observed") -> dict[str, timing.Side]:
        """All sides by name, but cache-dit: ours, the caches of diffusers, and ours on the steps of others.

        Args:
            full: what the uncached run shows.
        """
        found = {name: self.ours(*words) for name, words in OURS.items()}
        found |= {name: self.peer(put) for name, put in peers.PEERS.items()}
        found["diffusers FasterCache"] = self.peer(peers.FASTER_CACHE)
        lite, window = "diffusers TaylorSeer lite", "spectrum 14"
        for whose, *also in ((lite,), (lite, _AT_OUTPUT), (window,), (window, *_FRONT)):
            found |= self.masked(self.observed(found[whose], full).run_steps, whose, *also)
        return found

    def cache_dit(self, run_steps: Sequence[int]) -> dict[str, timing.Side]:
        """cache-dit on a mask of run steps; nothing where it is not installed.

        It leaves a forward of its own on the denoiser, so nothing else may be timed after it.
        """
        if importlib.util.find_spec("cache_dit") is None:
            return {}
        return {"cache-dit": self.peer(peers.cache_dit(list(run_steps), self.sampling.steps, calls=2))}

    def masked(self, run_steps: Sequence[int], whose: str, *also: str) -> dict[str, timing.Side]:
        """TaylorSeer of this project on the run steps of another side.

        Args:
            run_steps: the steps.
            whose: the name of that side.
            *also: further words of a command line.
        """
        words = ("method=taylorseer", "schedule=explicit", f"schedule.run_steps=[{','.join(map(str, run_steps))}]")
        return {f"taylorseer{_ALSO[also]}, steps of {whose}": self.ours(*words, *also)}

    def observed(self, side: timing.Side, full: "Observed | None" = None) -> "Observed":
        """What one untimed call of a side shows: where the blocks ran, the bytes it holds, its pictures.

        Args:
            side: the side.
            full: the same of the uncached run; None for that itself.
        """
        ran, before, held = [0], _alive_bytes(), 0

        def step() -> None:
            nonlocal held
            ran.append(0)
            if len(ran) > self.sampling.steps:
                held = _alive_bytes() - before
                ran.pop()

        def attention(*_: Any) -> None:
            ran[-1] += 1

        *_, last = (m for name, m in self.pipe.transformer.named_modules() if name.endswith("to_q"))
        watched = last.register_forward_pre_hook(attention)
        try:
            with side.around(self.pipe), timing.on_pipe(self.pipe, side.method):
                images = sample_batch(self.pipe, self.samples[: self.batch], side.sampling, step)
        finally:
            watched.remove()
        pixels = in_8_bits(images).float() / 255
        psnr = psnr_of(pixels, full.pixels) if full else []
        return Observed(ran, held - (full.held if full else 0), pixels, psnr)

    def timed(self, sides: dict[str, timing.Side], rounds: int, tell: Callable[[int], None]) -> dict[str, list[Any]]:
        """The rounds of each side, as `spectrum timing` times the rows of a table, with CPU time too."""
        batches: list[list[Sample]] = timing.batches_of(self.samples, self.batch, rounds)
        found = timing.timed_rounds(self.pipe, self.plain, list(sides.values()), batches, tell, PARTS)
        return {name: [dataclasses.asdict(one) for one in own] for name, own in zip(sides, found, strict=True)}


@dataclasses.dataclass(frozen=True)
class Observed:
    """What one call showed.

    Attributes:
        calls: at each step, how often the last block's attention ran: once for each CFG branch in the uncached run.
        held: bytes of all tensors that were alive after the last step, beyond those of the uncached run.
        pixels: (batch, 3, height, width) float32 in [0, 1], rounded to 8 bits.
        psnr: of each sample to the uncached run's; empty for that itself.
    """

    calls: list[int]
    held: int
    pixels: Tensor
    psnr: list[float]

    @property
    def run_steps(self) -> list[int]:
        """The steps at which the attention ran in any branch."""
        return [step for step, count in enumerate(self.calls) if count]


def _alive_bytes() -> int:
    """Bytes of the storages of all tensors that are alive; what a compiler traced with holds no bytes."""
    gc.collect()
    storages = {}
    for thing in gc.get_objects():
        if type(thing) in (Tensor, nn.Parameter) and thing.device.type == "cpu":
            storage = thing.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())
