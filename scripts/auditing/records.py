"""Works out from a record's raw values all that follows from them: the values of samples, the seconds of calls."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from auditing import arithmetic as own
from auditing.findings import Findings

FORMAT = 4
Record = dict[str, Any]
METRICS = {
    "psnr": ("PSNR (dB)", 2, True), "ssim": ("SSIM", 3, True), "ms_ssim": ("MS-SSIM", 3, True),
    "lpips": ("LPIPS", 3, False), "st_lpips": ("ST-LPIPS", 3, False), "lite0_distance": ("Lite0 distance", 3, False),
    "fid": ("FID", 2, False), "kid": ("KID x1000", 2, False), "frechet_lite0": ("Frechet (EffNet-Lite0)", 2, False),
    "clip_score": ("CLIP score", 2, True), "seed_rank": ("seed rank", 3, True), "diversity": ("diversity", 3, True),
    "image_reward": ("ImageReward", 3, True), "hpsv2": ("HPSv2", 4, True), "pick_score": ("PickScore", 3, True),
    "vbench_quality": ("VBench quality", 2, True),
}  # fmt: skip
"""By metric: its head in tables, its decimals there, whether higher is better."""
OF_THE_SET = ("kid", "clip_score", "diversity", "image_reward", "hpsv2", "pick_score", "vbench_quality")
"""The metrics that say something of the uncached run by itself."""
WITHOUT_VALUES = ("fid", "kid", "frechet_lite0", "vbench_quality")
"""The metrics that can be of the whole set, without a value for each sample or prompt."""


def read_records(folder: Path, findings: Findings) -> dict[str, Record]:
    """The records of a folder by id; those of another format are left out."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text())
        if record.get("format") != FORMAT:
            findings.leave(f"a record of format {record.get('format')}")
            continue
        findings.compare("ids of records", path.name, f"{record['id']}.json", path.name)
        found[record["id"]] = record
    return found


def short_sha256(content: Any) -> str:
    """The first 16 hex digits of the SHA-256 of JSON with sorted keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def check_records(records: Mapping[str, Record], findings: Findings) -> dict[str, Record]:
    """Work every record out again; those that are whole, by id."""
    whole = dict(records)
    for name, record in records.items():
        try:
            _record(name, record, records, findings)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, ZeroDivisionError) as error:
            findings.compare("whole records", name, f"{type(error).__name__} {error}", "a whole record")
            del whole[name]
    return whole


def _record(name: str, record: Record, records: Mapping[str, Record], findings: Findings) -> None:
    rest = {key: value for key, value in record.items() if key != "digest"}
    findings.compare("digests of records", name, record["digest"], short_sha256(rest))
    _counts(name, record, findings)
    full = records.get(record["reference"])
    if full is None:
        findings.leave(f"the samples of the uncached run {record['reference']}, which has no record")
    else:
        made = short_sha256(full["digests"])
        findings.compare("digests of the uncached run", name, record["reference_samples"], made)
    for metric, entry in record["metrics"].items():
        _metric(f"{name} {metric}", record, metric, entry, findings)
    findings.compare("made with committed code", name, bool(record["git"]["dirty"]), False)
    if record["timing"] is not None:
        _timing(name, record["timing"], findings)
        dirty = record["timing"]["conditions"]["git"]["dirty"]
        findings.compare("made with committed code", f"timing of {name}", bool(dirty), False)


def _counts(name: str, record: Record, findings: Findings) -> None:
    count = len(record["prompts"]) * len(record["seeds"])
    by_sample = record["nfe_by_sample"]
    for key, stored in (("samples", record["samples"]), ("digests", len(record["digests"])), ("nfe", len(by_sample))):
        findings.compare("numbers of samples", f"{name} {key}", stored, count)
    findings.compare("NFE", name, record["nfe"], float(np.mean(by_sample)))
    first = [len(steps) for steps in record["runs"].values()]
    findings.compare("NFE", f"{name} runs of the first sample", min(first) <= by_sample[0] <= max(first), True)


def seeds_of(record: Record, metric: str) -> int:
    """How many values of a metric belong to one prompt."""
    values = record["metrics"][metric]["values"]
    return len(record["seeds"]) if values is not None and len(values) == record["samples"] else 1


def _metric(name: str, record: Record, metric: str, entry: Mapping[str, Any], findings: Findings) -> None:
    """Mean, worst 5 % and intervals of one metric, from its values."""
    values = entry["values"]
    if values is None and metric in WITHOUT_VALUES:
        findings.leave(f"{metric}, a figure of the whole set")
        return
    if values is None:
        findings.compare("means", name, "no values", "a value for each sample or prompt")
        return
    per = seeds_of(record, metric)
    findings.compare("numbers of samples", name, len(values), len(record["prompts"]) * per)
    findings.compare("means", name, entry["mean"], own.mean(values))
    if metric not in METRICS:
        findings.compare("worst 5 %", name, "a metric that this script does not know", metric)
        return
    up = METRICS[metric][2]
    findings.compare("worst 5 %", name, entry["worst_5_percent"], own.worst_mean(values, up))
    findings.compare("intervals of worst 5 %", name, entry["worst_interval"], own.worst_half(values, per, up))
    findings.compare("intervals of means", name, entry["interval"], own.test_of_mean(values, per)[0])


def _timing(name: str, timing: Mapping[str, Any], findings: Findings) -> None:
    """All that follows from the seconds and run steps of the timed rounds."""
    rounds = timing["rounds"]
    made = timing_figures(rounds, timing["batch"])
    for number, one in enumerate(rounds):
        findings.compare("NFE", f"{name} timed round {number}", one["nfe"], _round_nfe(one))
    for key in ("nfe", "speedup", "speedup_end_to_end"):
        findings.compare("timing", f"{name} {key}", timing[key], made[key])
    for number, end in enumerate(("low", "high")):
        findings.compare("timing", f"{name} speedup {end}", timing["speedup_interval"][number], made[end])
    for side, seconds in timing["seconds_per_sample"].items():
        for part, stored in seconds.items():
            findings.compare("timing", f"{name} seconds, {side} {part}", stored, made[f"{side} {part}"])


def timing_figures(rounds: list[dict[str, Any]], batch: int) -> dict[str, float]:
    """Speed-up with its ends, seconds per sample by side and part, and NFE, from timed rounds."""
    found: dict[str, float] = {}
    ratios = {}
    for part in ("denoise", "total"):
        full = np.array([(one["before"][part] + one["after"][part]) / 2 for one in rounds])
        cached = np.array([one["candidate"][part] for one in rounds])
        found[f"baseline {part}"] = float(np.median(full) / batch)
        found[f"candidate {part}"] = float(np.median(cached) / batch)
        ratios[part] = full / cached
    found["speedup"], found["low"], found["high"] = own.median_with_ends(ratios["denoise"])
    found["speedup_end_to_end"] = float(np.median(ratios["total"]))
    found["nfe"] = float(np.mean([_round_nfe(one) for one in rounds]))
    return found


def _round_nfe(one: Mapping[str, Any]) -> float:
    """Run steps of a round, the mean over its samples and over the CFG branches that were called most often."""
    counts = []
    for runs, calls in zip(one["runs"], one["calls"], strict=True):
        counts.append(np.mean([len(runs[name]) for name in runs if calls[name] == max(calls.values())]))
    return float(np.mean(counts))
