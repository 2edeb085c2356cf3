"""A pipeline with random weights, and its timed calls: in full, with a method, with a peer's cache."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from spectrum.api import Accelerated, denoisers
from spectrum.bench.marks import parts_of, stacks_of
from spectrum.bench.prompts import Sample
from spectrum.bench.resolve import resolve
from spectrum.bench.sampling import call_arguments
from spectrum.bench.watch import Watch
from spectrum.config.compose import compose
from spectrum.config.sampling import Sampling
from spectrum.config.schema import RunConfig
from spectrum.core import sums
from spectrum.core.method import Method
from spectrum.hooks.replaced import replaced
from spectrum.models.pipelines import load_pipeline
from spectrum.records.sections import held_bytes

Row = dict[str, Any]


@contextmanager
def without_kernel() -> Iterator[None]:
    """Forecasts are summed by one addition for each feature."""
    with replaced(sums, "_kernel", lambda original: None):
        yield


class Model:
    """A model's pipeline with random weights on a device.

    Args:
        name: of its config.
        weights: `random` for full size, `tiny` for toy width.
        device: where.
    """

    def __init__(self, name: str, weights: str, device: torch.device) -> None:
        self._words = [f"model={name}", f"model.weights={weights}", "batch=1"]
        config, _ = resolve(compose(self._words))
        self.device, self.steps = device, config.model.steps
        self.pipe = load_pipeline(config.model, device)
        self.sampling = Sampling.of(config)
        batch = [Sample(0, "a red cube on a blue table", 0)]
        self._call = call_arguments(self.pipe, batch, self.sampling)
        self.parameters = sum(p.numel() for m in denoisers(self.pipe) for p in m.parameters())

    def method(self, *words: str) -> Method:
        """A method on this model.

        Args:
            *words: those of a command line, such as `method=spectrum` and `runs=14`.

        Returns:
            The method, checked.
        """
        return resolve(compose([*self._words, *words]))[1]

    def config(self, *words: str) -> RunConfig:
        """The config of an uncached run on this model.

        Args:
            *words: those of a command line, such as `prompts.limit=2`.
        """
        return resolve(compose([*self._words, "method=none", *words]))[0]

    def timed(
        self,
        method: Method | None = None,
        around: AbstractContextManager[None] | None = None,
        stop: int | None = None,
        parts: bool = False,
        inside: bool = True,
        apart: bool = False,
    ) -> Row:
        """Time one call; with a method as it is when its layout has been proved by an earlier call.

        Args:
            method: the method on the pipeline; None for the uncached run.
            around: a context that is entered too: a peer's cache.
            stop: after how many steps the call ends.
            parts: also mark the time of the denoiser's parts outside of its stacks.
            inside: whether the denoiser's own time is marked; not where it is compiled whole.
            apart: whether the host waits for the device after each step.

        Returns:
            `seconds`, the device's `ms` by step, the host's `host_ms` by step, `run_steps`, `grown` (bytes by which
            the call raised the peak of memory), `cache_bytes`.
        """
        cuda = self.device.type == "cuda"
        handle = Accelerated(self.pipe, method) if method is not None else None
        try:
            if handle is not None:
                self._sample(Watch(self.pipe, self.sampling.steps, 1, inside=inside))
            if cuda:
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated() if cuda else 0
            with around or nullcontext():
                modules = self._parts(handle) if parts else {}
                watch = Watch(self.pipe, self.sampling.steps, stop, modules, inside, apart)
                self._sample(watch)
            report = handle.report() if handle is not None else {}
        finally:
            if handle is not None:
                handle.restore()
        grown = torch.cuda.max_memory_allocated() - before if cuda else 0
        milliseconds = watch.milliseconds()
        host = [1000 * (b - a) for a, b in zip([0.0, *watch.host], watch.host, strict=False)]
        branch = next(iter(report.values()), None)
        return {
            "seconds": watch.seconds,
            "ms": milliseconds,
            "host_ms": [round(value, 4) for value in host],
            "run_steps": branch["run_steps"] if branch else self._slow(milliseconds["step"]),
            "cache_bytes": held_bytes(report),
            "grown": grown,
        }

    def _sample(self, watch: Watch) -> None:
        with watch.on(), torch.no_grad():
            self.pipe(
                num_inference_steps=self.sampling.steps,
                generator=torch.Generator("cpu").manual_seed(0),
                output_type="latent",
                **self._call,
            )

    def _slow(self, steps: list[float]) -> list[int]:
        """The steps that took more than 0.6 of the longest: those at which the blocks ran."""
        return [step for step, spent in enumerate(steps) if spent > 0.6 * max(steps)]

    def _parts(self, handle: Accelerated | None) -> dict[str, Any]:
        """The denoiser's modules outside of its stacks, by name."""
        (model, *_) = denoisers(self.pipe)
        parts = parts_of(model, stacks_of(model, None if handle is None else handle.layout))
        return {name: module for name, module in parts.items() if not name.startswith("blocks ")}
