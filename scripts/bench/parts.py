"""What the benchmark on a GPU measures, part by part: each method of `Parts` fills the record of one part."""

import gc
import importlib.metadata
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fits
import peers
import sums
import torch
from model import Model, without_kernel

from spectrum.api import denoisers
from spectrum.bench.profiling import activities
from spectrum.bench.rates import copy_bytes_per_second, matmul_tflops
from spectrum.hooks.private_api import COMPILED_CALL

MAIN = {"full": None, "spectrum 14": ("method=spectrum", "runs=14"), "spectrum 10": ("method=spectrum", "runs=10")}
MORE = {
    "fora 14": ("method=fora", "runs=14"),
    "taylorseer 14": ("method=taylorseer", "runs=14"),
    "spectrum 14 at the output": ("method=spectrum", "runs=14", "method.site=output"),
    "spectrum 10 at the output": ("method=spectrum", "runs=10", "method.site=output"),
    "fora 14 at the output": ("method=fora", "runs=14", "method.site=output"),
    "taylorseer 14 at the output": ("method=taylorseer", "runs=14", "method.site=output"),
    "spectrum 14, in eight bits": ("method=spectrum", "runs=14", "method.keep=float8"),
    "spectrum 14, as sums": ("method=spectrum", "runs=14", "method.keep=sums"),
    "spectrum 14, on the host": ("method=spectrum", "runs=14", "method.keep=host"),
}

Side = Callable[[int | None], dict[str, Any]]
"""Times one call of a pipeline, which ends after so many steps."""
Found = dict[str, Any]
Keep = Callable[[], None]
SPARE = 15
"""The seconds that a call may take; with fewer left none is begun."""


class TimeUpError(Exception):
    """The seconds are used up."""


class SideError(Exception):
    """A side of a part failed; the others were timed."""


class Parts:
    """The measurements.

    Args:
        left: the seconds that are left.
        weights: `random` or `tiny`.
        rounds: of FLUX.1's three main sides; the other sides get a third as many, at least one.
    """

    def __init__(self, left: Callable[[], float], weights: str, rounds: int) -> None:
        self.left, self._weights, self._rounds_of_flux = left, weights, rounds
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model: Model | None = None
        self._name = ""
        self._failed: list[str] = []

    def measure(self, part: str, found: Found, keep: Keep) -> None:
        """Measure one part.

        Args:
            part: its name.
            found: its record, which is filled.
            keep: writes the record down as far as it is.

        Raises:
            TimeUpError: if the seconds do not suffice.
            SideError: if one of its sides failed.
        """
        measurements: dict[str, Callable[[Found, Keep], None]] = {
            "ceilings": self._ceilings, "sums": self._sums, "flux": self._flux, "ledger": self._ledger,
            "host": self._host, "peers": self._peers, "cachedit": self._cachedit, "blocks": self._blocks,
            "whole": self._whole, "fit": self._fit, "sd35_run": self._sd35_run,
        }  # fmt: skip
        self._failed = []
        if part in measurements:
            measurements[part](found, keep)
        else:
            self._other(part, found, keep)
        if self._failed:
            raise SideError(f"failed: {', '.join(dict.fromkeys(self._failed))}")

    def _of(self, name: str) -> Model:
        if self._name != name:
            self._model, self._name = None, ""
            gc.collect()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            began = time.monotonic()
            self._model, self._name = Model(name, self._weights, self.device), name
            print(f"{name}: loaded in {time.monotonic() - began:.0f} s", flush=True)
        assert self._model is not None
        return self._model

    def _ceilings(self, found: Found, keep: Keep) -> None:
        cuda = self.device.type == "cuda"
        found["matmul_tflops"] = matmul_tflops(8192 if cuda else 256, torch.bfloat16, self.device)
        found["copy_bytes_per_second"] = copy_bytes_per_second((2 << 30) if cuda else 1 << 20, self.device)
        print({key: found[key] for key in ("matmul_tflops", "copy_bytes_per_second")}, flush=True)

    def _sums(self, found: Found, keep: Keep) -> None:
        rows = found.setdefault("rows", [])
        for row in sums.measured(self.device, self._weights == "tiny"):
            rows.append(row)
            self._check_time()
            print({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()}, flush=True)

    def _rounds(self, sides: dict[str, Side], count: int, found: Found, keep: Keep) -> None:
        """Time the sides in turn, `count` times, after the first steps of each; then the first side once more."""
        print(f"  {', '.join(sides)}", flush=True)
        for name, side in sides.items():
            self._one(name, side, None if name == "spectrum 14" else 8)
        rows = found.setdefault("rounds", [])
        for _ in range(count):
            row = {}
            rows.append(row)
            for name, side in sides.items():
                row[name] = self._one(name, side, None)
                keep()
            print("  " + " ".join(f"{one.get('seconds', 0):.3f}" for one in row.values()), flush=True)
        first = next(iter(sides))
        found["last"] = {first: self._one(first, sides[first], None)}

    def _one(self, name: str, side: Side, stop: int | None) -> dict[str, Any]:
        self._check_time()
        try:
            return side(stop)
        except Exception:
            self._failed.append(name)
            failed = traceback.format_exc()[-1500:]
            print(name, failed[-300:], flush=True)
            return {"failed": failed}

    def _check_time(self) -> None:
        if self.left() < SPARE and self._weights == "random":
            raise TimeUpError

    def _sides(self, model: Model, words: dict[str, Any], inside: bool = True) -> dict[str, Side]:
        methods = {name: side and model.method(*side) for name, side in words.items()}
        return {name: lambda stop, m=m: model.timed(m, stop=stop, inside=inside) for name, m in methods.items()}

    def _flux(self, found: Found, keep: Keep) -> None:
        model = self._of("flux")
        found["parameters"] = model.parameters
        model.timed(stop=3)
        self._rounds(self._sides(model, MAIN), self._rounds_of_flux, found, keep)
        other: dict[str, Any] = {}
        found["other"] = other
        sides = self._sides(model, {"full": None, **MORE})
        additions = model.method("method=spectrum", "runs=14")
        sides["spectrum 14, one addition each"] = lambda stop: model.timed(additions, without_kernel(), stop)
        self._rounds(sides, max(1, self._rounds_of_flux // 3), other, keep)

    def _ledger(self, found: Found, keep: Keep) -> None:
        model = self._of("flux")
        for name in ("spectrum 14", "fora 14", "spectrum 14 at the output"):
            found[name] = model.timed(model.method(*(MAIN | MORE)[name]), parts=True, stop=20)
        found["synchronised"] = self._waits(model)
        keep()
        found["kernels"] = self._kernels(model)

    def _host(self, found: Found, keep: Keep) -> None:
        """Steps one by one, the device idle at the start of each: what the host takes for a skipped step."""
        model = self._of("flux")
        for name in ("spectrum 14", "fora 14", "spectrum 14 at the output"):
            found[name] = model.timed(model.method(*(MAIN | MORE)[name]), stop=16, apart=True)
        for name in ("diffusers TaylorSeer lite", "diffusers MagCache"):
            found[name] = model.timed(None, peers.PEERS[name](model.pipe), stop=16, apart=True)
        found["diffusers FirstBlockCache"] = model.timed(None, peers.ALWAYS_SKIPS(model.pipe), stop=8, apart=True)
        for name, row in found.items():
            if isinstance(row, dict) and "host_ms" in row:
                skipped = [spent for step, spent in enumerate(row["host_ms"]) if step not in row["run_steps"]]
                print(f"  {name}: {sorted(skipped)[len(skipped) // 2] if skipped else 0:.2f} ms", flush=True)

    def _waits(self, model: Model) -> list[list[Any]]:
        """Where the host waits for the device in one cached call: (file and line, how often)."""
        if self.device.type != "cuda":
            return []
        method = model.method("method=spectrum", "runs=14")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                model.timed(method)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        notice = "prototype feature"
        caught = [one for one in caught if notice not in str(one.message)]
        seen = Counter(f"{Path(w.filename).parent.name}/{Path(w.filename).name}:{w.lineno}" for w in caught)
        print(seen.most_common(12), flush=True)
        return [list(entry) for entry in seen.most_common(30)]

    def _kernels(self, model: Model) -> str:
        """The profiler's table of a cached call's first 14 steps."""
        method = model.method("method=spectrum", "runs=14")
        with torch.profiler.profile(activities=activities(self.device)) as profile:
            model.timed(method, stop=14)
        order = "self_cuda_time_total" if self.device.type == "cuda" else "self_cpu_time_total"
        return profile.key_averages().table(sort_by=order, row_limit=40, max_name_column_width=70)

    def _peers(self, found: Found, keep: Keep) -> None:
        model = self._of("flux")
        sides = self._sides(model, {"full": None, "spectrum 14": MAIN["spectrum 14"]})
        for name, put in peers.PEERS.items():
            sides[name] = lambda stop, p=put: model.timed(None, p(model.pipe), stop)
        self._rounds(sides, 2, found, keep)

    def _cachedit(self, found: Found, keep: Keep) -> None:
        """cache-dit alone, after all else on this pipeline: its changes to the denoiser outlast `disable_cache`."""
        model = self._of("flux")
        ours = model.method("method=spectrum", "runs=14")
        run_steps = model.timed(ours)["run_steps"]
        found["uncached"] = [model.timed()]
        keep()
        found["cache_dit"] = importlib.metadata.version("cache_dit")
        put = peers.cache_dit(run_steps, model.sampling.steps)
        sides: dict[str, Side] = {"cache-dit, same mask": lambda stop: model.timed(None, put(model.pipe), stop)}
        self._rounds(sides, 2, found, keep)
        self._model, self._name = None, ""

    def _compiled(self, whole: bool, found: Found, keep: Keep) -> None:
        model = self._of("flux")
        (denoiser, *_) = denoisers(model.pipe)
        torch.compiler.reset()
        denoiser.compile() if whole else denoiser.compile_repeated_blocks()
        try:
            began = time.monotonic()
            model.timed(stop=2, inside=not whole)
            found["compiling"] = time.monotonic() - began
            print(f"  compiled in {found['compiling']:.0f} s", flush=True)
            keep()
            self._rounds(self._sides(model, MAIN, inside=not whole), 3, found, keep)
        finally:
            for module in denoiser.modules():
                setattr(module, COMPILED_CALL, None)
            torch.compiler.reset()

    def _blocks(self, found: Found, keep: Keep) -> None:
        self._compiled(False, found, keep)

    def _whole(self, found: Found, keep: Keep) -> None:
        self._compiled(True, found, keep)

    def _fit(self, found: Found, keep: Keep) -> None:
        fits.cost(self._of("flux"), 14, found, keep)
        print({key: found[key] for key in ("sampling_seconds", "fit_seconds", "full_runs", "grown")}, flush=True)

    def _sd35_run(self, found: Found, keep: Keep) -> None:
        model = self._of("sd35")
        model.timed(stop=3)
        self._rounds(self._sides(model, MAIN), 2, found, keep)

    def _other(self, name: str, found: Found, keep: Keep) -> None:
        """SDXL in whole trajectories; larger models a few full steps, and the first steps with the method."""
        model = self._of(name)
        found["parameters"] = model.parameters
        if name == "sdxl":
            model.timed(stop=3)
            self._rounds(self._sides(model, MAIN), 3, found, keep)
            return
        full, cached = {"sd35": (12, 16)}.get(name, (2, 7))
        words = ("runs=14",) if name == "sd35" else ("schedule.warmup=3", "method.forecast.degree=2")
        method = model.method("method=spectrum", *words)
        sides = {"full": lambda: model.timed(stop=full), "spectrum": lambda: model.timed(method, stop=cached)}
        model.timed(stop=1)
        rows = found.setdefault("rounds", [])
        for _ in range(3 if name == "sd35" else 1):
            rows.append({key: side() for key, side in sides.items()})
            keep()
            print({key: [round(v, 2) for v in row["ms"]["step"]] for key, row in rows[-1].items()}, flush=True)
