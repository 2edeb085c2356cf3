"""The page of what `scripts/bench/gpu.py` measured: pure functions of the files in results/gpu, without torch."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from eval.tables.comparison import csv_text, markdown_table
from eval.tables.gpu_lines import STEPS, WHAT, Line, lines_of

LARGER = {
    "sd35": "SD3.5-Large, 1024x1024, two branches in a batch",
    "hunyuan_video": "HunyuanVideo, 544x960, 61 frames",
    "wan21_14b": "Wan2.1-14B, 480x832, 81 frames, two branches",
}
"""The parts of which some steps were timed."""
BOUND_BY_THE_HOST = ("sdxl",)
"""Parts whose steps took as long as the host needed to launch them, so that ratios say nothing of a method."""
MIB = 2**20


def _milliseconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}" if value < 10 else f"{value:.0f}"


def trajectories(parts: Mapping[str, Any], chosen: Sequence[str] = tuple(WHAT)) -> str:
    """The table of whole trajectories.

    Args:
        parts: see `read_parts`.
        chosen: which parts it shows.

    Returns:
        Markdown.
    """
    heads = ["", "runs", "rounds", "seconds", "speed-up", "of the ideal", "a run step (ms)", "a skipped step (ms)",
             "memory"]  # fmt: skip
    rows = []
    for name in (name for name in chosen if name in parts):
        rows.append([f"*{WHAT[name]}*", *[""] * (len(heads) - 1)])
        rows += [_cells(line) for line in lines_of(name, parts[name])]
    return markdown_table(heads, rows)


def _cells(line: Line) -> list[str]:
    """A line of the table; no ratios for the uncached run, and where the host's pace decides."""
    plain = line.side == "full"
    speedup = f"{line.speedup:.2f}x"
    if len(line.speedups) > 1:
        speedup += f" [{min(line.speedups):.2f}, {max(line.speedups):.2f}]"
    shown = not plain and line.part not in BOUND_BY_THE_HOST
    return [
        "uncached" if plain else line.side, f"{line.runs}", f"{len(line.speedups)}", f"{line.seconds:.2f}",
        speedup if shown else "", f"{100 * line.efficiency:.1f} %" if shown else "", _milliseconds(line.run_ms),
        _milliseconds(line.skip_ms), "" if plain else f"{line.memory / MIB:+.0f} MiB",
    ]  # fmt: skip


def _larger(parts: Mapping[str, Any]) -> str:
    """The table of models of which some steps were timed, with what follows for 50 of them."""
    rows = []
    for name in (name for name in LARGER if name in parts):
        full = [ms for one in parts[name]["rounds"] for ms in one["full"]["ms"]["step"]]
        cached = [one["spectrum"] for one in parts[name]["rounds"]]
        skipped = [ms for c in cached for n, ms in enumerate(c["ms"]["step"]) if n not in c["run_steps"]]
        level, skip = statistics.median(full), max(skipped[1:])
        shares = [STEPS * level / (runs * level + (STEPS - runs) * skip) * runs / STEPS for runs in (14, 10)]
        share = f"{100 * skip / level:.2f} %"
        rows.append([
            LARGER[name], f"{level:.0f} ({len(full)})", f"{skip:.2f} ({len(skipped) - 1})", share,
            *[f"{100 * s:.1f} %" for s in shares],
        ])  # fmt: skip
    return markdown_table(["", "a full step (ms)", "a skipped step (ms)", "of a full one", "14 runs", "10 runs"], rows)


def _ledger(part: Mapping[str, Any]) -> str:
    """Where the device's time of a skipped step goes."""
    names = {"time_text_embed": "time and text embedding", "pos_embed": "rotary table", "context_embedder": "text",
             "x_embedder": "latents", "norm_out": "last norm", "proj_out": "last projection",
             "scheduler": "scheduler"}  # fmt: skip
    sides = [side for side in part if isinstance(part[side], dict) and "ms" in part[side]]
    rows = []
    for side in sides:
        row = part[side]
        skipped = [n for n in range(len(row["ms"]["step"])) if n not in row["run_steps"]]
        own = {key: statistics.median(row["ms"][key][n] for n in skipped) for key in row["ms"]}
        rest = own["denoiser"] - sum(own[key] for key in names if key != "scheduler")
        rows.append([side, *[f"{own[key]:.3f}" for key in names], f"{rest:.3f}", f"{own['step']:.3f}"])
    return markdown_table(["ms", *names.values(), "forecast and the rest", "step"], rows)


def _host(part: Mapping[str, Any]) -> str:
    """What a skipped step takes from an idle device on."""
    rows = []
    for side in (key for key in part if isinstance(part[key], dict) and "host_ms" in part[key]):
        row = part[side]
        skipped = [ms for n, ms in enumerate(row["host_ms"]) if n not in row["run_steps"]]
        rows.append([side, f"{statistics.median(skipped):.2f}"])
    return markdown_table(["", "a skipped step (ms)"], rows)


def _sums(part: Mapping[str, Any]) -> str:
    ways = list(dict.fromkeys(row["way"] for row in part["rows"]))
    cells: dict[tuple[str, int], dict[str, str]] = {}
    for row in part["rows"]:
        share = "" if "of_copy" not in row else f" ({row['of_copy']:.2f})"
        cells.setdefault((row["size"], row["features"]), {})[row["way"]] = f"{row['ms']:.3f}{share}"
    rows = [[size, str(count), *(own.get(way, "") for way in ways)] for (size, count), own in cells.items()]
    return markdown_table(["ms", "features", *ways], rows)


def _about(parts: Mapping[str, Any]) -> str:
    kinds = {}
    for part in parts.values():
        packages, machine = part["environment"]["packages"], part["environment"]["hardware"]
        commit = part["commit"] or part["environment"]["git"]["commit"]
        what = (
            f"{machine['gpu']}, driver {part['after']['driver_version']}, CUDA {machine['cuda']}, "
            f"torch {packages['torch']}, diffusers {packages['diffusers']}"
        )
        kinds.setdefault(what, {})[f"`{commit[:7]}`"] = None
    machines = "; ".join(f"{what} (commit {', '.join(commits)})" for what, commits in kinds.items())
    return (
        f"{machines}. Full-size architectures with random weights, one sample, bfloat16 (SDXL float16), {STEPS} steps, "
        "embeddings drawn at random: time and memory alone, no quality."
    )


def short(parts: Mapping[str, Any]) -> str:
    """What the README shows.

    Args:
        parts: see `read_parts`.

    Returns:
        Markdown.
    """
    return f"{_about(parts)}\n\n{trajectories(parts, ('flux', 'blocks', 'whole', 'peers', 'cachedit'))}"


def page(parts: Mapping[str, Any]) -> str:
    """The whole page.

    Args:
        parts: see `read_parts`.

    Returns:
        Markdown.
    """
    texts = [
        "# On a GPU", _about(parts),
        "`python scripts/bench/gpu.py` measures it; the raw values are in `results/gpu`. The seconds go from the first "
        "call of the denoiser to the end of the last step; the device is synchronised there and nowhere between. The "
        "sides of a part were timed in turn in one process. A round's speed-up is the mean of the uncached runs before "
        "and after it over the side (cache-dit: over the one uncached run before it was put on, for its own forward "
        "stays on the denoiser). The table has the median over the rounds and [least, most]. Memory is the peak of the "
        "call above that of the uncached call. Run steps of cached calls can be quicker than uncached ones, for the "
        "GPU is at its power limit and rests in between: with compiled blocks by 1 to 2 %, which is in those ratios. "
        "A denoiser that is compiled whole is compiled twice, without a method and with one. "
        "SDXL's steps take as long as the host needs to launch them, and its pace changed between calls: no ratio is "
        "shown.",
        "## Whole trajectories", trajectories(parts),
    ]  # fmt: skip
    more = (
        ("ledger", "Where the time of a skipped step goes (FLUX.1-dev, device, ms)", _ledger),
        ("host", "A skipped step of FLUX.1-dev that finds the device idle: the host's launches are in it", _host),
        ("sums", "The weighted sum alone, in ms (and its bytes per second over those of a copy)", _sums),
    )
    if any(name in parts for name in LARGER):
        texts += [
            "## Larger models: some steps timed, and what follows for 50",
            "In parentheses stands how many steps were timed. The skipped ones are those of `spectrum` with the first "
            "three steps run and degree 2 (SD3.5: as with 14 runs), so the sum has 3 to 9 features; of them the "
            "slowest is shown, without the first, where the kernel of the sum is compiled.", _larger(parts),
        ]  # fmt: skip
    for name, title, table in more:
        if name in parts:
            texts += [f"## {title}", table(parts[name])]
    return "\n\n".join(text.strip() for text in texts) + "\n"


def csv_table(parts: Mapping[str, Any]) -> str:
    """Every side of every part with whole trajectories, as CSV.

    Args:
        parts: see `read_parts`.

    Returns:
        CSV with a head line.
    """
    heads = ["part", "side", "runs", "seconds", "speedup", "efficiency", "run_ms", "skip_ms", "memory_bytes", "commit"]
    rows = [
        [name, line.side, line.runs, *[f"{value:.6g}" for value in (line.seconds, line.speedup, line.efficiency)],
         f"{line.run_ms:.6g}", None if line.skip_ms is None else f"{line.skip_ms:.6g}", line.memory,
         parts[name]["commit"]]
        for name in WHAT if name in parts
        for line in lines_of(name, parts[name])
    ]  # fmt: skip
    return csv_text(heads, rows)
