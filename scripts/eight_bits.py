"""What 8-bit pictures cost: PSNR of the stored PNG files against PSNR of the pipeline's own float pictures.

python scripts/eight_bits.py method=spectrum runs=14 prompts=development prompts.limit=8 model.steps=50 [key=value ...]

Samples the uncached run and the method from the same noise, and takes the PSNR of both twice: of the float pictures as
the pipeline returns them, and of the same pictures after they have been written as PNG and read again. Takes the words
of run.py, writes nothing.
"""

import io
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

from eval.metrics.fidelity import psnr_of
from spectrum.api import Accelerated
from spectrum.bench.job import Job
from spectrum.bench.sampling import encoded, sample_batch
from spectrum.commands.guard import guarded, quiet, wants_help
from spectrum.config.compose import compose
from spectrum.config.sampling import Sampling
from spectrum.core.method import Method
from spectrum.models.pipelines import device_of, load_pipeline
from spectrum.models.solvers import with_solver

OPTIONS = {"method": "the method, and every other key of run.py"}


def stored(images: Tensor) -> Tensor:
    """Pictures after they have been written as PNG and read again.

    Args:
        images: (count, 3, height, width), float in [0, 1].

    Returns:
        The same shape; every value is a whole number over 255.
    """
    read = [np.array(Image.open(io.BytesIO(encoded(image)))) for image in images]
    return torch.from_numpy(np.stack(read)).permute(0, 3, 1, 2).float() / 255


def sampled(pipe: Any, job: Job, method: Method, sampling: Sampling) -> Tensor:
    """The float pictures of all samples of a job, (count, 3, height, width)."""
    solved = with_solver(pipe, sampling.solver)
    grid = [job.samples[i : i + sampling.batch] for i in range(0, len(job.samples), sampling.batch)]
    with Accelerated(solved, method):
        return torch.cat([sample_batch(solved, batch, sampling) for batch in grid])


def compared(own: Tensor, other: Tensor) -> list[tuple[float, float]]:
    """The PSNR of each pair in dB, as float and as 8-bit pictures."""
    return list(zip(psnr_of(own, other), psnr_of(stored(own), stored(other)), strict=True))


def summary(pairs: Sequence[tuple[float, float]]) -> str:
    """The mean and the largest change of some pairs, and how many are left out because their pictures are equal.

    Args:
        pairs: the PSNR of each as float and as 8-bit pictures; infinite for equal ones.

    Example:
        >>> summary([(30.0, 30.5), (math.inf, math.inf)])
        'mean change +0.5000 dB, largest +0.5000 dB, over 1 samples; 1 left out, whose pictures are equal'
    """
    changes = [rounded - exact for exact, rounded in pairs if math.isfinite(rounded - exact)]
    equal = len(pairs) - len(changes)
    if not changes:
        return f"all {equal} samples are left out: their pictures are equal"
    left = f"; {equal} left out, whose pictures are equal" if equal else ""
    figures = f"mean change {np.mean(changes):+.4f} dB, largest {max(changes, key=abs):+.4f} dB"
    return f"{figures}, over {len(changes)} samples{left}"


def main() -> None:
    """Sample both, and print the PSNR of each pair and what 8 bits change."""
    words = sys.argv[1:]
    if wants_help(words, __doc__ or "", OPTIONS):
        return
    quiet()
    job = Job.of(compose(["timing=0", "probe=0", *words]))
    pipe = load_pipeline(job.config.model, device_of(job.config.device))
    other = sampled(pipe, job, job.uncached, Sampling.of(job.base))
    pairs = compared(sampled(pipe, job, job.method, Sampling.of(job.config)), other)
    table = Table("sample", "float", "8 bits", "change", box=None, pad_edge=False)
    for sample, (exact, rounded) in zip(job.samples, pairs, strict=True):
        change = f"{rounded - exact:+.4f} dB" if math.isfinite(rounded - exact) else "-"
        table.add_row(sample.file, f"{exact:.4f} dB", f"{rounded:.4f} dB", change)
    console = Console()
    console.print(table)
    console.print(summary(pairs))


if __name__ == "__main__":
    sys.exit(guarded(main))
