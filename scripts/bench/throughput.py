"""Images per minute of the embedded model on this machine: a loop of single calls, and `run.py`'s own sampling.

python scripts/bench/throughput.py [prompts=32] [singles=8] [rounds=5] [threads=2] [force=true]
    [to=outputs/bench/throughput.json]

Each side is a process that has loaded and warmed up the model, and waits for its turn: in a round every side makes its
pictures once, text encoding and saving included. The sides, each uncached and with Spectrum at 14 of 50 runs:

  loop      diffusers alone, or with `accelerate(pipe, "spectrum", runs=14)`: one prompt a call, `image.save(...)`
  batched   `generate` at batch 16, in one process with all threads
  workers   `generate` at batch 16, in as many workers as there are threads, one thread each

A loaded machine is refused; with force=true the file says that it was loaded.
Afterwards the pictures are compared: those of batches and of calls for one prompt come from other kernels.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT)]

from spectrum.commands.guard import guarded, number, options, wants_help
from spectrum.core.errors import refuse

USAGE = "python scripts/bench/throughput.py [prompts=32] [rounds=5]"
OPTIONS = {
    "prompts": "pictures of `batched` and `workers` in a round; 32 by default",
    "singles": "pictures of `loop` in a round; 8 by default",
    "rounds": "5 by default",
    "batch": "samples a call of `batched` and `workers`; 16 by default",
    "threads": "of the machine's cores that are used; 2 by default",
    "to": "the file; outputs/bench/throughput.json by default",
    "force": "true times on a loaded machine too, and the file says so",
}
INSIDE = {
    "side": "be one of the processes that this starts: loop or bench",
    "method": "of that process: none or spectrum",
    "count": "pictures that it makes in a round",
    "worker": "number of that process",
    "workers": "how many share its pictures",
    "folder": "where its pictures go",
}
"""Options of the processes that this starts."""
DEFAULTS = {"prompts": 32, "singles": 8, "rounds": 5, "threads": 2, "batch": 16}
SIDES = ("loop", "batched", "workers")
METHODS = ("none", "spectrum")
WARM_STEPS = 8
Found = dict[str, Any]


def serve(given: dict[str, str]) -> None:
    """Be a side: load and warm up, then make the pictures once for each line on standard input."""
    from spectrum.api import accelerate
    from spectrum.bench.generate import generate
    from spectrum.bench.job import Job
    from spectrum.bench.sampling import call_arguments
    from spectrum.bench.workers import Worker
    from spectrum.commands.guard import quiet
    from spectrum.config.compose import compose
    from spectrum.config.sampling import Sampling
    from spectrum.models.pipelines import device_of, load_pipeline

    quiet()
    runs = ["runs=14"] if given["method"] != "none" else []
    words = [f"method={given['method']}", f"batch={given['batch']}", f"prompts.limit={given['count']}", "device=cpu"]
    job = Job.of(compose([*words, *runs]))
    pipe, sampling = load_pipeline(job.config.model, device_of("cpu")), Sampling.of(job.config)
    worker = Worker(int(given["worker"]), int(given["workers"]))

    def loop(samples: list[Any], folder: Path, sampling: Sampling = sampling) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        arguments = {
            key: value for key, value in call_arguments(pipe, samples[:1], sampling).items() if key != "prompt"
        }
        for sample in samples:
            noise = torch.Generator().manual_seed(sample.noise_seed)
            made = pipe(sample.prompt, num_inference_steps=sampling.steps, generator=noise, **arguments)
            made.images[0].save(folder / sample.file)

    def bench(samples: list[Any], folder: Path, sampling: Sampling = sampling) -> None:
        generate(pipe, job.method, samples, sampling, folder, worker=worker)

    import torch

    with contextlib.ExitStack() as stack:
        if given["side"] == "loop" and given["method"] != "none":
            stack.enter_context(accelerate(pipe, given["method"], runs=14))
        make = loop if given["side"] == "loop" else bench
        warm = Path(given["folder"]) / f"warm-{worker.number}"
        make(job.samples[: sampling.batch], warm, dataclasses.replace(sampling, steps=WARM_STEPS))
        print("ready", flush=True)
        for line in sys.stdin:
            make(job.samples, Path(given["folder"]) / line.strip())
            print("done", flush=True)


class Side:
    """The processes of one side.

    Args:
        name: loop, batched or workers.
        method: none or spectrum.
        count: pictures in a round.
        threads: in all.
        folder: where the pictures go.
        batch: samples a call.
    """

    def __init__(self, name: str, method: str, count: int, threads: int, folder: Path, batch: int) -> None:
        self.name, self.method, self.count, self.folder = name, method, count, folder
        share = threads if name == "workers" else 1
        kind = "loop" if name == "loop" else "bench"
        words = [f"side={kind}", f"method={method}", f"count={count}", f"workers={share}", f"folder={folder}"]
        words.append(f"batch={1 if name == 'loop' else batch}")
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads // share)}
        self._processes = [
            subprocess.Popen([sys.executable, __file__, *words, f"worker={number}"], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, text=True, env=environment)
            for number in range(share)
        ]  # fmt: skip
        self._wait("ready")

    def seconds(self, name: str) -> float:
        """How long it takes to make the pictures, into a folder of that name."""
        began = time.perf_counter()
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{name}\n")
            process.stdin.flush()
        self._wait("done")
        return time.perf_counter() - began

    def _wait(self, word: str) -> None:
        for process in self._processes:
            assert process.stdout is not None
            said = process.stdout.readline().strip()
            if said != word:
                refuse(f"{self.name} ({self.method}) has ended: see its error above")

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.communicate()


@contextlib.contextmanager
def sides(prompts: int, singles: int, threads: int, batch: int, folder: Path) -> Iterator[list[Side]]:
    """All sides, loaded and warm."""
    found: list[Side] = []
    try:
        for name in SIDES:
            for method in METHODS:
                count = singles if name == "loop" else prompts
                found.append(Side(name, method, count, threads, folder / f"{name}-{method}", batch))
        yield found
    finally:
        for side in found:
            side.close()


def pictures(folder: Path) -> dict[str, Any]:
    """The pictures below a folder as arrays, by file name."""
    import numpy as np
    from PIL import Image

    return {path.name: np.asarray(Image.open(path)).astype(int) for path in folder.rglob("*.png")}


def compared(one: Path, other: Path) -> Found:
    """How many pictures of two folders are the same, and by how much 8-bit values differ at most."""
    ours, theirs = pictures(one), pictures(other)
    both = sorted(ours.keys() & theirs.keys())
    gaps = [int(abs(ours[name] - theirs[name]).max()) for name in both]
    return {"pictures": len(both), "equal": gaps.count(0), "largest_difference": max(gaps, default=0)}


def same_bits(all_sides: list[Side], threads: int, folder: Path) -> Found:
    """What the pictures of the sides share, each against those of the loop with the same method."""
    found: Found = {}
    for method in METHODS:
        own = {side.name: side.folder / "0" for side in all_sides if side.method == method}
        single = Side("batched", method, next(s.count for s in all_sides if s.name == "loop"), threads, folder / "1", 1)
        single.seconds(method)
        single.close()
        found[method] = {
            "loop and generate at batch 1": compared(own["loop"], folder / "1" / method),
            "loop and generate in batches": compared(own["loop"], own["batched"]),
            "generate with all threads and workers of one thread": compared(own["batched"], own["workers"]),
        }
    return found


def check_sizes(prompts: int, singles: int, threads: int, batch: int) -> None:
    """Refuse more pictures than there are prompts, and fewer than give each worker a batch.

    Raises:
        SpectrumError: with what to type.
    """
    from spectrum.bench.prompts import read_prompts
    from spectrum.config.compose import compose

    there = len(read_prompts(compose([]).prompts))
    for key, count in (("prompts", prompts), ("singles", singles)):
        if count > there:
            refuse(f"{key}={count} is more than the {there} prompts that there are: type {key}={there} or less")
    if prompts < batch * threads:
        smaller = f"batch={prompts // threads}, or " if prompts >= threads else ""
        refuse(
            f"prompts={prompts} are no batch of {batch} for each of {threads} workers: type {smaller}"
            f"prompts={batch * threads}"
        )


def main() -> None:
    """Time the sides in turn, and write images per minute and what they are of the loop's."""
    if wants_help(sys.argv[1:], __doc__ or "", OPTIONS):
        return
    words = sys.argv[1:]
    if words[:1] and words[0].startswith("side="):
        serve(options(words, {**OPTIONS, **INSIDE}, USAGE))
        return
    given = options(words, OPTIONS, USAGE)
    prompts, singles, rounds, threads, batch = (number(given, key, default) for key, default in DEFAULTS.items())
    check_sizes(prompts, singles, threads, batch)
    import torch

    from spectrum.bench.machine import conditions, load_of_script
    from spectrum.bench.provenance import environment
    from spectrum.records.files import write_json

    torch.set_num_threads(threads)  # what the record says of the machine
    load, to = load_of_script(given), Path(given.get("to", "outputs/bench/throughput.json"))
    found: Found = {"environment": environment(torch.device("cpu")), "threads": threads}
    found |= {"prompts": prompts, "singles": singles, "batch": batch, "rounds": []}
    with tempfile.TemporaryDirectory() as folder, sides(prompts, singles, threads, batch, Path(folder)) as all_sides:
        for turn in range(rounds):
            made = {f"{s.name} {s.method}": 60 * s.count / s.seconds(str(turn)) for s in all_sides}
            found["rounds"].append(made)
            print(json.dumps({name: round(rate, 1) for name, rate in made.items()}), flush=True)
            if turn:
                for side in all_sides:
                    shutil.rmtree(side.folder / str(turn), ignore_errors=True)
        found["same_bits"] = same_bits(all_sides, threads, Path(folder))
    found["conditions"] = dataclasses.asdict(conditions(load))
    names = list(found["rounds"][0])
    found["images_per_minute"] = {n: statistics.median(made[n] for made in found["rounds"]) for n in names}
    found["of_loop_spectrum"] = {
        n: statistics.median(made[n] / made["loop spectrum"] for made in found["rounds"]) for n in names
    }
    write_json(to, found)
    for name in names:
        share = found["of_loop_spectrum"][name]
        print(f"{name:18} {found['images_per_minute'][name]:7.1f} images per minute, {share:.2f} of `loop spectrum`")
    print(json.dumps(found["same_bits"], indent=1))
    print(to)


if __name__ == "__main__":
    sys.exit(guarded(main))
