"""Benchmark on this machine's CPU: the embedded model beside the caches of others, a skipped step, the weighted sum.

python scripts/bench/cpu.py [parts=sums,host,memory,embedded] [rounds=7] [batch=8] [to=outputs/cpu] [force=true]

`embedded` times our methods and the caches of diffusers (and cache-dit, where it is installed: pip install '.[peers]')
on the trained model that ships here: each between two uncached calls, in wall time and in CPU time, with the PSNR of
the pictures and the bytes that are held. `host` takes what a skipped step costs at toy width, where it is Python alone.
`sums` takes the weighted sum at FLUX's feature size against a copy of the same bytes. `memory` compares what
method.keep= keeps: bytes before the run and in it, and PSNR. Each part writes its own file.
About half an hour in all. A loaded machine is refused; with force=true the files say that it was loaded.
"""

import dataclasses
import statistics
import sys
import time
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

import torch
from rich.console import Console

from spectrum.bench.machine import conditions, load_of_script
from spectrum.bench.progress import Progress
from spectrum.bench.prompts import read_prompts
from spectrum.bench.provenance import environment
from spectrum.commands.guard import guarded, number, options, wants_help
from spectrum.config.compose import compose
from spectrum.core.errors import refuse
from spectrum.records.files import write_json

PARTS = "sums", "host", "memory", "embedded"
USAGE = (
    "python scripts/bench/cpu.py [parts=sums,host,memory,embedded] [rounds=7] [batch=8] [to=outputs/cpu] [force=true]"
)
OPTIONS = {
    "parts": "names with commas between them; all by default",
    "rounds": "of each side; 7 by default",
    "batch": "samples per call; 8 by default",
    "to": "the folder of the files; outputs/cpu by default, results/cpu has the committed ones",
    "force": "true times on a loaded machine too, and the files say so",
}
TOY = {
    "spectrum": ("method=spectrum", "runs=14"),
    "fora": ("method=fora", "runs=14"),
    "taylorseer": ("method=taylorseer", "runs=14"),
    "spectrum at the output": ("method=spectrum", "runs=14", "method.site=output"),
    "fora at the output": ("method=fora", "runs=14", "method.site=output"),
    "taylorseer at the output": ("method=taylorseer", "runs=14", "method.site=output"),
}


def sums_part(given: dict[str, int]) -> dict[str, Any]:
    """The weighted sum at FLUX's size, every way."""
    import sums

    return {"rows": list(sums.measured(torch.device("cpu"), False, 3 * given["rounds"], ["FLUX.1 1024"]))}


def host_part(given: dict[str, int]) -> dict[str, Any]:
    """Microseconds of a denoiser's call at skipped steps of a toy FLUX: the cheap modules that run, and the hook."""
    import peers
    from model import Model

    model = Model("flux", "tiny", torch.device("cpu"))
    found: dict[str, list[float]] = {}
    for _ in range(given["rounds"]):
        for name, words in TOY.items():
            row = model.timed(model.method(*words))
            found.setdefault(name, []).append(_skipped_us(row))
        for name in ("diffusers TaylorSeer lite", "diffusers MagCache"):
            row = model.timed(None, peers.PEERS[name](model.pipe))
            found.setdefault(name, []).append(_skipped_us(row))
        row = model.timed(None, peers.ALWAYS_SKIPS(model.pipe), stop=20)
        found.setdefault("diffusers FirstBlockCache", []).append(_skipped_us({**row, "run_steps": [0]}))
    return {"microseconds": found}


def _skipped_us(row: dict[str, Any]) -> float:
    """The median over the skipped steps of the time of the denoiser's call."""
    spent = [1000 * ms for step, ms in enumerate(row["ms"]["denoiser"]) if step not in row["run_steps"]]
    return round(statistics.median(spent), 2)


def memory_part(given: dict[str, int]) -> dict[str, Any]:
    """What `method.keep=` keeps: the bytes that are foreseen and those that are held, and the pictures."""
    from beside import KEPT, Beside

    from spectrum.core.choices import Keep

    model = Beside(given["batch"])
    full = model.observed(model.plain)
    rows = []
    for name, words in KEPT.items():
        for keep in Keep:
            side = model.ours(*words, f"method.keep={keep}")
            seen = model.observed(side, full)
            foreseen = model.foreseen(*words, f"method.keep={keep}")
            rows.append({"side": name, "keep": str(keep), "foreseen": foreseen, "held": seen.held, "psnr": seen.psnr})
    return {"batch": model.batch, "rows": rows}


def embedded_part(given: dict[str, int]) -> dict[str, Any]:
    """Our methods and others' caches on the embedded model."""
    from beside import Beside
    from beside import timing as timer

    model = Beside(given["batch"])
    full = model.observed(model.plain)
    found: dict[str, Any] = {
        "steps": model.sampling.steps,
        "batch": model.batch,
        "sides": {},
        "uncached": {"calls": full.calls},
    }
    sides = model.sides(full)
    last = model.cache_dit(model.observed(sides["spectrum 14"], full).run_steps)
    with Progress(Console()) as progress:
        for number, group in enumerate((sides, last)):
            if group:
                about = [timer.Side(None, model.sampling)] * len(group)
                batches = timer.batches_of(model.samples, model.batch, given["rounds"])
                tell = progress.start(f"timing {number + 1}", timer.sample_steps(model.plain, about, batches))
                timed = model.timed(group, given["rounds"], tell)
                for name, side in group.items():
                    seen = model.observed(side, full)
                    shown = {"calls": seen.calls, "held": seen.held, "psnr": seen.psnr}
                    found["sides"][name] = {**shown, "rounds": timed[name]}
    return found


def main() -> int:
    """Measure the parts that were asked for.

    Returns:
        0.
    """
    if wants_help(sys.argv[1:], __doc__ or "", OPTIONS):
        return 0
    given = options(sys.argv[1:], OPTIONS, USAGE)
    chosen = given.get("parts", ",".join(PARTS)).split(",")
    unknown = [part for part in chosen if part not in PARTS]
    if unknown:
        refuse(f"parts={unknown[0]} is unknown: type parts= with some of {','.join(PARTS)}")
    numbers = {"rounds": number(given, "rounds", 7), "batch": number(given, "batch", 8)}
    most = len(read_prompts(compose(["prompts=development"]).prompts))
    if numbers["batch"] > most:
        refuse(f"batch={numbers['batch']} is more than the {most} prompts that there are: type batch={most} or less")
    load = load_of_script(given)
    warnings.filterwarnings("ignore", category=FutureWarning)
    folder = Path(given.get("to", "outputs/cpu"))
    work = {"sums": sums_part, "host": host_part, "memory": memory_part, "embedded": embedded_part}
    for part in chosen:
        began = time.monotonic()
        found = work[part](numbers)
        about = {"part": part, "asked": numbers, "environment": environment(torch.device("cpu"))}
        write_json(folder / f"{part}.json", {**about, "conditions": dataclasses.asdict(conditions(load)), **found})
        print(f"{part}: {time.monotonic() - began:.0f} s, {folder / f'{part}.json'}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
