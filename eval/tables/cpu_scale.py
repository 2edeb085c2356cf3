"""The sections on throughput and on scale of a CPU's page: pure functions of two files in results/cpu."""

import statistics
from collections.abc import Mapping
from typing import Any

from eval.statistics import median_interval
from eval.tables.comparison import markdown_table

LOOPS = {"loop none": "times the uncached loop", "loop spectrum": "times the cached loop"}
"""The sides that the others are compared with, with the head of the column."""
_SIDES = {
    "loop": "one prompt a call, diffusers",
    "batched": "`run.py`'s sampling, batches, all threads in one process",
    "workers": "`run.py`'s sampling, batches, as many workers as threads",
}


def throughput_table(part: Mapping[str, Any]) -> str:
    """Images per minute of each side, and how many times those of the two loops.

    Args:
        part: what `scripts/bench/throughput.py` wrote.

    Returns:
        Markdown: medians over the rounds with their 95 % intervals.
    """
    rounds, rows = part["rounds"], []
    for name in rounds[0]:
        side, method = name.split()
        cells = [_SIDES[side], "uncached" if method == "none" else f"{method}, 14 of 50 runs"]
        cells.append(f"{statistics.median(made[name] for made in rounds):.1f}")
        for loop in LOOPS:
            value, low, high = median_interval([made[name] / made[loop] for made in rounds])
            cells.append("1" if name == loop else f"{value:.2f} [{low:.2f}, {high:.2f}]")
        rows.append(cells)
    return markdown_table(["", "method", "images per minute", *LOOPS.values()], rows)


def throughput(part: Mapping[str, Any], about: str) -> list[str]:
    """The section on throughput.

    Args:
        part: see `throughput_table`.
        about: where and when it was measured.

    Returns:
        Its paragraphs and tables, in Markdown.
    """
    same = [
        [f"{method}: {pair}", str(found["pictures"]), str(found["equal"]), str(found["largest_difference"])]
        for method, pairs in part["same_bits"].items()
        for pair, found in pairs.items()
    ]
    return [
        "## Images per minute",
        f"{about}. `python scripts/bench/throughput.py`: the embedded model, 50 steps, {part['threads']} threads in "
        f"all. In each of {len(part['rounds'])} rounds every side made its pictures in its turn: {part['singles']} in "
        f"the loops, {part['prompts']} at batch {part['batch']} in the others. Text encoding and saving are in the "
        "time, loading, metrics and records are not.",
        throughput_table(part),
        "Calls of other batch sizes use other kernels, which round otherwise, and calls with another number of threads "
        "may. What the sides' pictures share, in 8 bits:",
        markdown_table(["", "pictures", "equal in every bit", "largest difference of 255"], same),
    ]


def scale(part: Mapping[str, Any], about: str) -> list[str]:
    """The section on jobs and tables of growing size.

    Args:
        part: what `scripts/bench/scale.py` wrote.
        about: where and when it was measured.

    Returns:
        Its paragraphs and tables, in Markdown.
    """
    jobs = [
        [str(job["prompts"]), f"{job['first']['bookkeeping_ms_per_prompt']:.2f}",
         f"{job['first']['bookkeeping_cpu_ms_per_prompt']:.2f}", f"{job['again']['bookkeeping_ms_per_prompt']:.2f}",
         f"{job['before_mib']:.0f}", f"{job['peak_mib']:.0f}"]
        for job in part["jobs"]
    ]  # fmt: skip
    heads = ["prompts", "bookkeeping (ms a prompt)", "in CPU time", "again (ms a prompt)", "memory before (MiB)",
             "at most (MiB)"]  # fmt: skip
    names = list(part["tables"][0]["seconds"])
    tables = [
        [str(table["samples"]), *[f"{table['seconds'][name]:.1f}" for name in names], f"{table['peak_mib']:.0f}"]
        for table in part["tables"]
    ]
    rows = part["tables"][0]["rows"]
    return [
        "## Jobs and tables as they grow",
        f"{about}. `python scripts/bench/scale.py`. A job of toy FLUX with two steps, batch 16, in a process of its "
        "own with one thread for torch: bookkeeping is all but the calls of the pipeline, that is saving, ledger, "
        "metrics, record and report. Pictures are saved while the next call is under way, so that only the CPU time "
        "has all of it. `again` is the same command when everything is there.",
        markdown_table(heads, jobs),
        f"The main table with more samples in each of its {rows} records, drawn from the real ones; seconds for all of "
        "them together.",
        markdown_table(["samples a row", *names, "memory (MiB)"], tables),
    ]
