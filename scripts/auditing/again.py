"""Samples a few pictures of a record again, by `python run.py` in a process of its own, and compares them."""

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from auditing.findings import Findings
from auditing.pictures import file_digest, files_of, folder_of, pixels, psnr
from auditing.records import Record

ROOT = Path(__file__).resolve().parent.parent.parent
OWN = ("spectrum", "baselines", "eval")
LEAST = 60.0
"""On another CPU a picture may differ from the stored one by this PSNR, in dB: last bits of sums."""
GAPS = {"psnr": 0.1, "ssim": 0.005}
"""On another CPU the metrics of a sample may differ by this, PSNR in dB."""
KERNELS = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
"""What limits torch and oneDNN to AVX2."""
SAME = 1e-4
"""On the same machine they may differ by this."""


def sample_again(
    record: Record, records: Mapping[str, Record], count: int, samples: Path | None, into: Findings
) -> None:
    """Sample the first pictures of a record and of its uncached run again.

    Noise depends on a prompt's number and on the seed alone, so the first prompts by themselves give the same pictures.

    Args:
        record: the record.
        records: all records by id.
        count: how many samples; more where a batch is larger.
        samples: a folder below which the stored pictures are; None for none.
        into: what was compared.
    """
    if record["method"].get("plan") and plan_of(record) is None:
        into.leave(f"{record['id']}: its plan is not in this repository")
        return
    count = min(record["samples"], math.ceil(count / record["batch"]) * record["batch"])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prompts = record["prompts"][: math.ceil(count / len(record["seeds"]))]
        (folder / "prompts.txt").write_text("".join(f"{prompt}\n" for prompt in prompts))
        environment = {**os.environ, "OMP_NUM_THREADS": str(record["hardware"]["threads"])}
        if record["hardware"]["device"] == "cpu":
            environment = {key: value for key, value in environment.items() if key not in KERNELS}
            environment |= KERNELS if kernels(record) == "AVX2" else {}
        words = [sys.executable, "run.py", *words_of(record, folder)]
        ran = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if ran.returncode:
            into.compare("sampled again", record["id"], ran.stderr.strip(), "a run that ends well")
            return
        made = [json.loads(path.read_text()) for path in sorted(folder.rglob("record.json"))]
        again = next((one for one in made if one["id"] != one["reference"]), made[0])
        for key in ("code", "model_identity", "method", "schedule"):
            into.compare("sampled again, with the same settings", f"{record['id']} {key}", record[key], again[key])
        full = records.get(record["reference"])
        for stored, new in [(record, again["id"]), *([(full, again["reference"])] if full else [])]:
            _compare(stored, folder_of(new, folder), count, samples, into)
        _compare_runs(record, again, count, into)
        _compare_values(record, again, count, into)


def words_of(record: Record, folder: Path) -> list[str]:
    """The command line that makes a record's samples, from what the record says of itself.

    Args:
        record: the record.
        folder: has `prompts.txt`, and gets the samples.
    """
    model, method = record["model"], record["method"]
    words = [f"model={model['name']}", f"method={method['name']}", f"seeds={_typed(record['seeds'])}"]
    words += [f"model.{key}={_typed(model[key])}" for key in ("weights", "steps", "height", "width", "dtype")]
    words += [f"++model.call.{key}={_typed(value)}" for key, value in model["call"].items()]
    own = {key: value for key, value in method.items() if key not in ("name", "fallback")}
    device = "cpu" if record["hardware"]["device"] == "cpu" else "auto"
    last = [f"batch={record['batch']}", f"device={device}", "timing=0", "probe=0", "eval=default"]
    last += [f"prompts.file={folder / 'prompts.txt'}", "prompts.sealed=false", f"out={folder / 'out'}"]
    if method.get("plan"):
        forced = ["plan_force=true"] if method["plan"]["sigmas"] is None else []
        return [*words, f"plan={plan_of(record)}", *forced, *last]
    words += [f"++method.{key}={_typed(value)}" for key, value in _leaves(own)]
    rule = record["schedule"]
    files = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / "configs" / "schedule").glob("*.yaml")}
    words += [f"schedule={name}" for name, file in files.items() if file["_target_"] == rule["_target_"]][:1]
    words += [f"++schedule.{key}={_typed(value)}" for key, value in rule.items()]
    targets = [str(value) for key, value in [*_leaves(own), *_leaves(rule)] if key.endswith("_target_")]
    plugins = sorted({target.partition(".")[0] for target in targets} - set(OWN))
    words += [f"plugins={_typed(plugins)}"] if plugins else []
    return [*words, *last]


def plan_of(record: Record) -> Path | None:
    """The file of the plan that a record's samples were made with; None if it is not in the repository."""
    files = (ROOT / "spectrum" / "assets").glob("*/plans/*.json")
    return next((p for p in files if json.loads(p.read_text())["digest"] == record["method"]["plan"]["digest"]), None)


def _leaves(settings: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def _typed(value: Any) -> str:
    """A value as Hydra reads it on a command line."""
    if isinstance(value, list):
        return f"[{','.join(map(_typed, value))}]"
    if isinstance(value, str):
        return value if value.replace("_", "").replace(".", "").isalnum() else json.dumps(value)
    return json.dumps(value)


def cpu(line: str = "model name") -> str:
    """A line of what Linux tells of this machine's CPU; by default its name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((own.partition(":")[2].strip() for own in lines if own.startswith(line)), "unknown")


def kernels(record: Record) -> str:
    """The instructions that torch's kernels used; the records that do not say were all made with AVX2."""
    return record["hardware"].get("kernels", "AVX2")


def same_machine(record: Record) -> bool:
    """Whether a picture that is sampled here has to be the stored one bit by bit.

    That takes the same CPU by name, the instructions that the record was made with, and the same version of torch.
    """
    here = (cpu(), "cpu", version("torch"))
    has = {"AVX2": "avx2", "AVX512": "avx512f"}.get(kernels(record), "other") in cpu("flags").split()
    return has and here == (record["hardware"]["cpu"], record["hardware"]["device"], record["packages"]["torch"])


def _compare(record: Record, made: Path | None, count: int, samples: Path | None, into: Findings) -> None:
    """Compare new pictures with the stored digests, or on another machine with the stored pictures."""
    stored = None if samples is None else folder_of(record["id"], samples)
    for file, digest in list(zip(files_of(record), record["digests"], strict=True))[:count]:
        name = f"{record['id']} {file}"
        new = file_digest(made / file) if made else "missing"
        if same_machine(record):
            into.compare("digests of pictures sampled again", name, digest, new)
        elif made is not None and stored is not None and (stored / file).exists():
            one, other = pixels(made / file), pixels(stored / file)
            found = psnr(one, other) if one is not None and other is not None else None
            likeness = LEAST if new == digest or found is None else min(LEAST, found)
            into.compare("pictures sampled again on another CPU, dB to the stored ones", name, likeness, LEAST)
        else:
            into.leave("digests of pictures sampled again, on another CPU or version of torch than the record's")


def _compare_runs(record: Record, again: Record, count: int, into: Findings) -> None:
    """Compare how often the blocks ran. On another CPU a decision by the data may fall otherwise."""
    if not same_machine(record):
        into.leave("runs of samples made again, on another CPU or version of torch than the record's")
        return
    into.compare("runs of samples made again", record["id"], record["runs"], again["runs"])
    pairs = zip(files_of(record), record["nfe_by_sample"], again["nfe_by_sample"], strict=False)
    for file, own, new in list(pairs)[:count]:
        into.compare("runs of samples made again", f"{record['id']} {file}", own, new)


def _compare_values(record: Record, again: Record, count: int, into: Findings) -> None:
    """Compare the PSNR and SSIM of each sample to the uncached run."""
    for metric, gap in GAPS.items():
        stored, made = (r["metrics"].get(metric, {}).get("values") or [] for r in (record, again))
        allowed = SAME if same_machine(record) else gap
        for file, own, new in list(zip(files_of(record), stored, made, strict=False))[:count]:
            near = own == new or (own is not None and new is not None and abs(own - new) <= allowed)
            into.compare(f"{metric} of samples made again", f"{record['id']} {file}", own, own if near else new)
