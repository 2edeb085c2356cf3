"""Benchmark: metrics over many pictures, in time against the libraries used directly and in memory; then tables.

python scripts/bench_metrics.py [count=10000] [side=64] [records=1000]

Each case runs in a process of its own, ours and theirs in turn, and what may be quoted is the ratio. The Frechet
distance is that of `fid` with a small network in Inception's place, so that the overhead shows and not the backbone.
"""

import dataclasses
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from spectrum.commands.guard import guarded, options, wants_help
from spectrum.core.errors import refuse
from spectrum.records.record import read_records, write_record

USAGE = "python scripts/bench_metrics.py [count=10000] [side=64] [records=1000]"
OPTIONS = {
    "count": "pictures in each of the two sets; 10000 by default",
    "side": "their height and width in pixels; 64 by default",
    "records": "records to make tables and figures of; 1000 by default",
}
LEAST = {"count": 2, "side": 16, "records": 1}
"""A Frechet distance needs two pictures, and SSIM the pixels of its window."""
CASES = ("fidelity, ours", "fidelity, torchmetrics", "frechet, ours", "frechet, clean-fid", "tables and figures")


def prepare(folder: Path, count: int, side: int) -> None:
    """Two sets of smooth random pictures, the second the first with noise, and a TorchScript network."""
    import numpy as np
    import torch
    from PIL import Image

    rng = np.random.default_rng(0)
    for name in ("reference", "samples"):
        (folder / name).mkdir()
    for number in range(count):
        coarse = rng.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
        picture = np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))
        noisy = np.clip(picture + rng.normal(0, 12, picture.shape), 0, 255).astype(np.uint8)
        for name, pixels in (("reference", picture), ("samples", noisy)):
            Image.fromarray(pixels).save(folder / name / f"{number:05d}.png", compress_level=1)
    torch.jit.script(network()).save(str(folder / "network.pt"))


def network() -> Any:
    """A module of 507 features a picture with Inception's call."""
    import torch

    class Pooled(torch.nn.Module):
        def forward(self, x: torch.Tensor, return_features: bool = True) -> torch.Tensor:
            return torch.nn.functional.avg_pool2d(x / 255, 23).flatten(1)

    return Pooled()


def fidelity_ours(folder: Path) -> None:
    """PSNR and SSIM as the bench computes them."""
    from eval.metrics import fidelity
    from eval.metrics.pictures import Pictures

    pair = Pictures.folder(folder / "samples"), Pictures.folder(folder / "reference")
    for metric in (fidelity.psnr, fidelity.ssim):
        metric(*pair, [])


def fidelity_torchmetrics(folder: Path) -> None:
    """The same by torchmetrics' own modules, pictures read one batch at a time for each, as a user would write it."""
    import numpy as np
    import torch
    from PIL import Image
    from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

    names = sorted(path.name for path in (folder / "samples").iterdir())
    for metric in (PeakSignalNoiseRatio(data_range=1.0, dim=(1, 2, 3), reduction="none"),
                   StructuralSimilarityIndexMeasure(data_range=1.0, reduction="none")):  # fmt: skip
        for start in range(0, len(names), 64):
            pair = []
            for kind in ("samples", "reference"):
                read = [np.asarray(Image.open(folder / kind / name)) for name in names[start : start + 64]]
                pair.append(torch.from_numpy(np.stack(read)).permute(0, 3, 1, 2).float() / 255)
            metric.update(*pair)
        metric.compute()


def frechet_ours(folder: Path) -> None:
    """`fid` over the two folders."""
    from eval.metrics import distribution
    from eval.metrics.pictures import Pictures

    pair = Pictures.folder(folder / "samples"), Pictures.folder(folder / "reference")
    distribution.fid(*pair, [], weights=str(folder / "network.pt"))


def frechet_cleanfid(folder: Path) -> None:
    """The same by clean-fid."""
    import torch
    from cleanfid import fid

    net = torch.jit.load(str(folder / "network.pt"))
    given = {"num_workers": 0, "batch_size": 64, "verbose": False, "device": "cpu"}
    fid.compute_fid(str(folder / "samples"), str(folder / "reference"), custom_feat_extractor=net, **given)


def tables(folder: Path) -> None:
    """Tables and figures of the folder's records."""
    for script in ("tables", "figures"):
        subprocess.run([sys.executable, ROOT / "scripts" / f"{script}.py", f"records={folder / 'records'}",
                        f"to={folder / script}"], check=True, capture_output=True)  # fmt: skip


def copies(folder: Path, count: int) -> None:
    """`count` records like the committed ones, each with an id of its own."""
    stored = read_records(ROOT / "results" / "records")
    for number in range(count):
        record = stored[number % len(stored)]
        copy = dataclasses.replace(record, id=f"{record.id}-{number}")
        write_record(folder / "records" / f"{number:05d}.json", copy)


def measured(case: str, folder: Path) -> dict[str, float]:
    """Seconds of one case, imports left out, and the growth of the process's peak memory in MB."""
    work: dict[str, Callable[[Path], None]] = dict(
        zip(CASES, (fidelity_ours, fidelity_torchmetrics, frechet_ours, frechet_cleanfid, tables), strict=True)
    )
    if case != CASES[4]:
        import cleanfid.fid  # noqa: F401
        import torchmetrics.image  # noqa: F401

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    work[case](folder)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"seconds": time.perf_counter() - began, "grown_mb": grown / 1024}


def main() -> None:
    """Run every case and print the ratios; a process that this started runs its one case."""
    words = sys.argv[1:]
    if words[:1] == ["--case"]:
        print(json.dumps(measured(words[1], Path(words[2]))))
        return
    if wants_help(words, __doc__ or "", OPTIONS):
        return
    given = {"count": "10000", "side": "64", "records": "1000"} | options(words, OPTIONS, USAGE)
    for key, least in LEAST.items():
        if not given[key].isdecimal() or int(given[key]) < least:
            refuse(f"{key}={given[key]} is no whole number of at least {least}: type {USAGE}")
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, int(given["count"]), int(given["side"]))
        copies(folder, int(given["records"]))
        for case in CASES:
            command = [sys.executable, __file__, "--case", case, str(folder)]
            ran = subprocess.run(command, capture_output=True, text=True, check=True)
            found[case] = json.loads(ran.stdout.splitlines()[-1])
            seconds, grown = found[case]["seconds"], found[case]["grown_mb"]
            print(f"{case:>24}: {seconds:7.1f} s, memory grown by {grown:5.0f} MB", flush=True)
    for ours, theirs in ((CASES[0], CASES[1]), (CASES[2], CASES[3])):
        print(f"{ours} / {theirs.split(', ')[1]}: {found[ours]['seconds'] / found[theirs]['seconds']:.2f}")


if __name__ == "__main__":
    sys.exit(guarded(main))
