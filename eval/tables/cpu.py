"""The page of what the benchmarks of a CPU measured: pure functions of the files in results/cpu, without torch."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.statistics import median_interval
from eval.tables.comparison import csv_text, markdown_table
from eval.tables.cpu_scale import scale, throughput, throughput_table
from eval.timing import hardware_text, ratios
from spectrum.records.timing import TimedRound

PARTS = ("embedded", "memory", "host", "sums", "throughput", "scale")


def read_parts(folder: Path) -> dict[str, dict[str, Any]]:
    """What each file of the benchmark holds.

    Args:
        folder: that of the files; it need not be there.

    Returns:
        The parts by name, those that are there.
    """
    paths = {name: folder / f"{name}.json" for name in PARTS}
    return {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}


def speedup(side: Mapping[str, Any], part: str) -> tuple[float, float, float]:
    """The speed-up of a side with its interval, as that of a table's row.

    Args:
        side: its entry in the file.
        part: `denoise` for wall time, `cpu` for the time that the cores spent.
    """
    return median_interval(ratios([TimedRound(**one) for one in side["rounds"]], part))


def nfe(side: Mapping[str, Any], uncached: Mapping[str, Any]) -> float:
    """How many steps of full attention a side's call had: calls of the last block's attention over those of one step.

    Example:
        >>> nfe({"calls": [2, 0, 1, 0]}, {"calls": [2, 2, 2, 2]})
        1.5
    """
    return sum(side["calls"]) / max(uncached["calls"])


def _row(name: str, side: Mapping[str, Any], part: Mapping[str, Any]) -> list[str]:
    runs, steps = nfe(side, part["uncached"]), part["steps"]
    cells = [name, f"{runs:.3g}"]
    for clock in ("denoise", "cpu"):
        value, low, high = speedup(side, clock)
        cells += [f"{value:.2f}x [{low:.2f}, {high:.2f}]", f"{100 * value * runs / steps:.1f} %"]
    return [*cells, f"{side['held'] / 2**20:.2f}", _psnr(side["psnr"], ".1f")]


def _psnr(values: Sequence[float | None], form: str) -> str:
    """The mean over the pictures that differ from the uncached ones; a picture that does not has no PSNR."""
    finite = [value for value in values if value is not None]
    same = len(values) - len(finite)
    if not finite:
        return "same"
    return f"{statistics.fmean(finite):{form}}" + (f" ({same} same)" if same else "")


def _embedded(part: Mapping[str, Any]) -> str:
    heads = ["", "NFE", "speed-up", "of the ideal", "in CPU time", "of the ideal", "held (MiB)", "PSNR (dB)"]
    return markdown_table(heads, [_row(name, side, part) for name, side in part["sides"].items()])


def _memory(part: Mapping[str, Any]) -> str:
    rows = []
    for row in part["rows"]:
        foreseen = "" if row["foreseen"] is None else f"{row['foreseen'] / 2**20:.3f}"
        held = f"{row['held'] / 2**20:.3f}"
        rows.append([row["side"], f"`{row['keep']}`", foreseen, held, _psnr(row["psnr"], ".2f")])
    return markdown_table(["", "`method.keep=`", "foreseen (MiB)", "held (MiB)", "PSNR (dB)"], rows)


def _host(part: Mapping[str, Any]) -> str:
    rows = [
        [name, f"{statistics.median(values):.0f}", f"{min(values):.0f} to {max(values):.0f}"]
        for name, values in part["microseconds"].items()
    ]
    return markdown_table(["", "µs a skipped call", "of the rounds"], rows)


def _sums(part: Mapping[str, Any]) -> str:
    rows = [
        [str(row["features"]), row["way"], f"{row['ms']:.1f}",
         f"{row['of_copy']:.2f}" if "of_copy" in row else "", f"{row['error_ulp']:.2f}" if "error_ulp" in row else ""]
        for row in part["rows"]
    ]  # fmt: skip
    return markdown_table(["features", "way", "ms", "of the copy's rate", "error (ulp)"], rows)


def _about(part: Mapping[str, Any]) -> str:
    where, packages = part["conditions"], part["environment"]["packages"]
    text = (
        f"{hardware_text(part['environment']['hardware'])}, torch {packages['torch']}, diffusers "
        f"{packages['diffusers']}, {where['date'][:10]}, commit `{str(where['git']['commit'])[:9]}`"
    )
    return text + ("; **the machine was loaded: do not quote these figures**" if where["forced"] else "")


def page(parts: Mapping[str, Any]) -> str:
    """The whole page.

    Args:
        parts: see `read_parts`.

    Returns:
        Markdown.
    """
    texts = [
        "# On a CPU",
        "Measured by `python scripts/bench/cpu.py`, unless another script is named; raw values are in `results/cpu`.",
    ]
    if part := parts.get("embedded"):
        first = next(iter(part["sides"].values()))
        rounds, pictures = len(first["rounds"]), len(first["psnr"])
        texts += [
            "## The embedded model, beside the caches of others",
            f"{_about(part)}. The trained model that ships here, float32, {part['steps']} steps, batch "
            f"{part['batch']}, guidance in two calls a step. Each call stands between two of the pipeline "
            "without any hook; the speed-up "
            f"is their mean over it, the median of {rounds} rounds with its 95 % interval; in wall time, and in the "
            "time that the cores spent. NFE counts the calls of the last block's attention, over those of an uncached "
            "step; the ideal is steps over NFE. diffusers' TaylorSeer and FasterCache work inside the blocks, so "
            "their other layers run at every step; FasterCache without its part for guidance, since this pipeline "
            "calls its denoiser once for each branch; MagCache with the ratios that diffusers has for FLUX.1. Held "
            "are the tensors alive after the last step beyond those of the "
            f"uncached run, of {part['batch']} samples. PSNR is the mean over the {pictures} "
            "pictures of one batch of development prompts, to the uncached run: it says what each cache gave at this "
            "speed here, and nothing finer.",
            _embedded(part),
        ]
    if part := parts.get("memory"):
        texts += [
            "## What is kept",
            f"{_about(part)}. Bytes of a call of {part['batch']} samples, two CFG branches: what was worked out before "
            "the call, and the tensors alive after its last step beyond those of the uncached run. `sums` are in "
            "float32, like the features here; for features in bfloat16 a sum takes twice their bytes, so that it pays "
            "from more than ten runs on. PSNR as above.",
            _memory(part),
        ]
    if part := parts.get("host"):
        texts += [
            "## A skipped step at toy width",
            f"{_about(part)}. A FLUX of toy width, where a call of the denoiser at a skipped step is Python and little "
            "else: at the exit the time and text embedding and the last layers run too, at the output nothing does "
            "but the hook and the sum. `spectrum` sums up to 14 features, `taylorseer` two, `fora` none. The median "
            "over the skipped steps of a call, and of that over the rounds.",
            _host(part),
        ]
    if part := parts.get("sums"):
        texts += [
            "## The weighted sum alone",
            f"{_about(part)}. FLUX.1's feature at 1024x1024, 4096x3072 in bfloat16, summed in float32, against a copy "
            "that reads half of as many bytes and writes the other half; a sum mostly reads, so that it can be faster. "
            "The error is the largest difference to the float64 sum in the first 64 rows, in units of the last place "
            "of the result: half of one is rounding.",
            _sums(part),
        ]
    for name, section in (("throughput", throughput), ("scale", scale)):
        if part := parts.get(name):
            texts += section(part, _about(part))
    return "\n\n".join(text.strip() for text in texts) + "\n"


def csv_table(parts: Mapping[str, Any]) -> str:
    """Every side of the embedded model's part, as CSV.

    Args:
        parts: see `read_parts`.

    Returns:
        The text, with a line of heads.
    """
    heads = ["side", "nfe", "speedup", "low", "high", "cpu_speedup", "cpu_low", "cpu_high", "held_bytes", "psnr"]
    part = parts["embedded"]
    rows = [
        [name, f"{nfe(side, part['uncached']):.6g}",
         *[f"{value:.6g}" for clock in ("denoise", "cpu") for value in speedup(side, clock)], side["held"],
         _psnr(side["psnr"], ".6g")]
        for name, side in part["sides"].items()
    ]  # fmt: skip
    return csv_text(heads, rows)


def short(parts: Mapping[str, Any]) -> str:
    """What the README shows: the embedded model beside the caches of others.

    Args:
        parts: see `read_parts`.

    Returns:
        Markdown.
    """
    return f"{_about(parts['embedded'])}, batch {parts['embedded']['batch']}.\n\n{_embedded(parts['embedded'])}"


def short_throughput(parts: Mapping[str, Any]) -> str:
    """What the README shows of throughput.

    Args:
        parts: see `read_parts`.

    Returns:
        Markdown.
    """
    part = parts["throughput"]
    return f"{_about(part)}, {len(part['rounds'])} rounds.\n\n{throughput_table(part)}"
