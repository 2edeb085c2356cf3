"""Benchmark: what compiling the blocks, or the whole denoiser, leaves of a method's speed-up.

python scripts/bench_compile.py [repeats=4] [model=tiny] [method=spectrum] [key=value ...]

In one process a batch is sampled in full and with the method in turn, first as it is, then with its blocks compiled,
then compiled whole; what may be quoted is the ratio. Graphs are counted before and after the timed calls: none may be
added. Writes outputs/bench_compile.json, or the file of to=. Needs a C++ compiler on a CPU.
"""

import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch
from rich.console import Console
from rich.table import Table

from spectrum.api import Accelerated, denoisers
from spectrum.bench.prompts import numbered_samples, read_prompts
from spectrum.bench.provenance import environment
from spectrum.bench.resolve import resolve
from spectrum.bench.sampling import sample_batch
from spectrum.commands.guard import guarded, quiet
from spectrum.config.compose import compose
from spectrum.config.sampling import Sampling
from spectrum.config.schema import changed_settings
from spectrum.models.identity import model_identity
from spectrum.models.pipelines import device_of, load_pipeline
from spectrum.records.files import write_json

MODES = ("as it is", "blocks compiled", "compiled whole")


def compiled(model: Any, mode: str) -> None:
    """Compile a denoiser as `mode` says, and nothing else."""
    torch.compiler.reset()
    for part in model.modules():
        part._compiled_call_impl = None
    if mode == MODES[1]:
        model.compile_repeated_blocks()
    elif mode == MODES[2]:
        model.compile()


def main() -> None:
    """Time the three modes, print them and write them down."""
    quiet()
    own = {"repeats": "4", "to": "outputs/bench_compile.json"}
    own |= dict(word.split("=", 1) for word in sys.argv[1:] if word.partition("=")[0] in own)
    words, repeats = [word for word in sys.argv[1:] if word.partition("=")[0] not in own], int(own["repeats"])
    config, method = resolve(compose(["batch=4", *words]))
    device = device_of(config.device)
    pipe, sampling = load_pipeline(config.model, device), Sampling.of(config)
    batch = numbered_samples(read_prompts(config.prompts), config.seeds)[: config.batch]
    counters = torch._dynamo.utils.counters["stats"]

    def seconds(cached: bool) -> float:
        if device.type != "cpu":
            torch.accelerator.synchronize()
        began = time.perf_counter()
        if cached:
            with Accelerated(pipe, method):
                sample_batch(pipe, batch, sampling)
        else:
            sample_batch(pipe, batch, sampling)
        return time.perf_counter() - began

    found: dict[str, dict[str, Any]] = {}
    for mode in MODES:
        for model in denoisers(pipe):
            compiled(model, mode)
        counters.clear()
        for cached in (False, True):
            seconds(cached)
        graphs = counters["unique_graphs"]
        pairs = [(seconds(False), seconds(True)) for _ in range(repeats)]
        added = counters["unique_graphs"] - graphs
        ratios = sorted(full / cached for full, cached in pairs)
        full = min(full for full, _ in pairs)
        found[mode] = {"full": full, "speedup": ratios[len(ratios) // 2], "graphs": graphs, "added": added}
    table = Table("denoiser", "full run", "speed-up", "graphs", "made while timed", box=None, pad_edge=False)
    for mode, row in found.items():
        cells = [f"{row['full']:.2f} s", f"{row['speedup']:.2f}x", str(row["graphs"]), str(row["added"])]
        table.add_row(mode, *cells)
    Console().print(table)
    about = {
        "model": model_identity(config.model),
        "method": changed_settings(config.method),
        "schedule": config.schedule,
    }
    about |= {"batch": len(batch), "repeats": repeats, "environment": environment(device)}
    write_json(Path(own["to"]), {**about, "modes": found})


if __name__ == "__main__":
    sys.exit(guarded(main))
