"""Measure what this machine can do, and estimate the seconds of a sample for the models whose weights are here.

python scripts/bench.py                                about a minute
python scripts/bench.py models=flux,sdxl method=fora   for any models: nothing is loaded or downloaded
"""

import json
import textwrap
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from spectrum.commands.guard import nearest, options, quiet, wants_help
from spectrum.config.compose import compose
from spectrum.config.reader import choices
from spectrum.core.errors import refuse

USAGE = "python scripts/bench.py [models=flux,sdxl] [method=spectrum] [device=auto] [format=json]"
OPTIONS = {
    "models": "names with commas between them; by default those whose weights are on this machine",
    "method": "the caching method; spectrum by default",
    "device": "auto (the default), cpu, cuda, cuda:1, mps",
    "format": "text, or json",
}
EMBEDDED = "tiny"
UNITS = (("days", 86400.0, 2.0), ("h", 3600.0, 2.0), ("min", 60.0, 2.0), ("s", 1.0, 1.0), ("ms", 1e-3, 0.0))
"""Units of time, with their seconds and the least of them that is written so."""


def main(words: list[str]) -> int:
    """Measure and print.

    Args:
        words: see `OPTIONS`.

    Returns:
        0.
    """
    if wants_help(words, __doc__ or "", OPTIONS):
        return 0
    given = options(words, OPTIONS, USAGE)
    if given.get("format", "text") not in ("text", "json"):
        refuse(f"format={given['format']} is unknown: type format=text or format=json")
    asked = _asked(given.get("models"))
    _check_method(given.get("method", "spectrum"))
    quiet()
    found = _measure(asked, given.get("method", "spectrum"), given.get("device", "auto"))
    if given.get("format") == "json":
        print(json.dumps(found, indent=1))
    else:
        print_bench(found, Console(width=min(80, Console().width)))
    return 0


def _asked(text: str | None) -> list[str] | None:
    """The models that were asked for; None where none is named."""
    if text is None:
        return None
    names, known = text.split(","), choices("model")
    for name in names:
        if name not in known:
            refuse(f"models={name} is unknown{nearest(name, known)}: python scripts/models.py lists them")
    return list(dict.fromkeys(names))


def _check_method(name: str) -> None:
    if name not in choices("method"):
        refuse(f"method={name} is unknown{nearest(name, choices('method'))}: python run.py --help lists them")


def _here() -> list[str]:
    """The models whose published weights are on this machine; those that ship here are left out."""
    from spectrum.models.identity import on_this_machine, weights_folder

    models = [compose([f"model={name}"]).model for name in choices("model")]
    return [model.name for model in models if weights_folder(model) is None and on_this_machine(model)]


def _measure(asked: list[str] | None, method: str, device_name: str) -> dict[str, Any]:
    """What is measured and what follows from it."""
    from spectrum.bench.capability import embedded_seconds, hook_microseconds, rates_of
    from spectrum.bench.estimates import REACHED, RUNS, Rates, estimate, method_words
    from spectrum.bench.machine import cores_of_others, load_at_start, loaded, note_start
    from spectrum.bench.provenance import environment
    from spectrum.models.pipelines import device_of

    note_start()
    began, device, words = time.monotonic(), device_of(device_name), method_words(method)
    others = cores_of_others()
    rates = rates_of(device)
    hook, embedded = hook_microseconds(words), embedded_seconds(words, RUNS, device)
    took = time.monotonic() - began
    own = Rates(rates["matmul_tflops"], rates["sum_bytes_per_second"], hook["hook"] / 1e6)
    names = _here() if asked is None else asked
    load = {"load_average": load_at_start(), "cores_of_others": others}
    return {
        "machine": {**environment(device), **load, "loaded": loaded(load_at_start()) or loaded(others)},
        "measured": {"seconds": took, **rates, "hook_us": hook, "embedded": embedded},
        "estimated": {
            "method": method,
            "reached": REACHED,
            "check": estimate(EMBEDDED, words, own),
            "models": [estimate(name, words, own) for name in names if name != EMBEDDED or asked is None],
        },
    }


def print_bench(found: Mapping[str, Any], console: Console) -> None:
    """Print what was measured and what is estimated.

    Args:
        found: what `format=json` prints.
        console: where its tables go.
    """
    measured, machine = found["measured"], found["machine"]
    hardware = machine["hardware"]
    what = hardware.get("gpu") or hardware["cpu"]
    _line(f"{what} ({hardware['device']}), {hardware['threads']} threads, torch {machine['packages']['torch']}")
    busy = [f"load average {machine['load_average']:.2f}"] if machine["load_average"] is not None else []
    busy += [f"other processes keep {machine['cores_of_others']:.2f} cores busy"] if machine["cores_of_others"] else []
    warning = ["the machine is loaded: idle, it does more than is said below"] if machine["loaded"] else []
    _line("; ".join([*busy, *warning]) or "how loaded the machine is cannot be told")
    _line("")
    _line(f"Measured here, in {measured['seconds']:.0f} s")
    rates = [f"{name} {_digits(rate)}" for name, rate in measured["matmul_tflops"].items() if rate is not None]
    hook = measured["hook_us"]
    for name, text in {
        "matrix products": f"{', '.join(rates)} TFLOP/s",
        "copy": f"{_digits(measured['copy_bytes_per_second'] / 1e9)} GB/s, read and written together",
        "weighted sum": f"{_digits(measured['sum_bytes_per_second'] / 1e9)} GB/s, {measured['sum_of_copy']:.2f} of the "
        f"copy's: 14 features of FLUX.1 at 1024x1024 in {measured['sum_dtype']}",
        "hook": f"{hook['hook']:.0f} us at a skipped step, {hook['forecast']:.0f} of them for the forecast, with the "
        "marks that measure it: a FLUX of toy width on the CPU",
    }.items():
        _line(f"  {name:17} {text}", "  " + " " * 18)
    _print_embedded(measured["embedded"], found["estimated"]["method"], console)
    _print_estimates(found["estimated"], measured["embedded"], console)


def _print_embedded(embedded: Mapping[str, Any], method: str, console: Console) -> None:
    heads = (
        f"  model={EMBEDDED}",
        "step that ran",
        "skipped step",
        f"{embedded['steps']} steps",
        "speed-up (of ideal)",
    )
    rows = []
    for name, row in embedded["sides"].items():
        skipped = "-" if row["skipped_ms"] is None else f"{_digits(row['skipped_ms'])} ms"
        gain = "-" if name == "full" else f"{row['speedup']:.2f}x ({100 * row['efficiency']:.0f} %)"
        side = "  in full" if name == "full" else f"  {method}, {name} runs"
        rows.append((side, f"{_digits(row['run_ms'])} ms", skipped, _seconds(row["seconds"]), gain))
    _table(heads, rows, console)
    _line(
        "  Timed in turn for a few steps of each; the seconds of one sample are what these make of all its steps.", "  "
    )
    _line("")


def _print_estimates(estimated: Mapping[str, Any], embedded: Mapping[str, Any], console: Console) -> None:
    shares = sorted(estimated["reached"].values())
    middle, models = shares[len(shares) // 2], estimated["models"]
    whole = [row for row in models if "reason" not in row]
    if whole:
        _line("Estimated, not measured: one sample's denoising, without text encoders and VAE")
        runs = [key for key in whole[0] if key.isdecimal()]
        heads = ("model", "TFLOP a step", "full", *(f"{estimated['method']}\n{key} runs" for key in runs))
        rows = [
            (f"{row['model']}\n{row['size']}, {row['steps']} steps", f"{row['tflop']:,.0f}" if row["tflop"] >= 100 else
             f"{row['tflop']:.3g}", *(_range(row[key]) for key in ("full", *runs)))
            for row in whole
        ]  # fmt: skip
        _table(heads, rows, console)
        for row in whole:
            for reason in dict.fromkeys(row["without"].values()):
                _line(f"{row['model']}: {reason}", "  ")
    for row in (row for row in models if "reason" in row):
        _line(f"{row['model']}: {row['reason']}", "  ")
    if not models:
        _line("No weights of other models are on this machine: type models=flux,sdxl for an estimate of any model.")
    check = estimated["check"]
    if "reason" not in check:
        _line(
            f"For {EMBEDDED} the same estimate says {_range(check['full'], ' ')} in full, where "
            f"{_seconds(embedded['sides']['full']['seconds'])} were measured."
        )
    _line(
        f"An estimate is the operations of the steps over {100 * middle:.0f} % of the rate of matrix products, in "
        f"parentheses over {100 * shares[-1]:.0f} and {100 * shares[0]:.0f} %: what {', '.join(estimated['reached'])} "
        "reached on an H100 (results/gpu), uncompiled; the lowest was bound by the host. Other hardware and small "
        "models may lie outside. Whether a model fits into memory is not looked at."
    )


def _line(text: str, indent: str = "") -> None:
    print(textwrap.fill(text, 80, subsequent_indent=indent))


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], console: Console) -> None:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for number, head in enumerate(heads):
        table.add_column(head, justify="right" if number else "left", overflow="fold", no_wrap=not number)
    for row in rows:
        table.add_row(*row)
    console.print(table, highlight=False)


def _digits(value: float) -> str:
    """Three digits, without an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}" if value >= 1e-3 else f"{value:.6f}"


def _seconds(value: float) -> str:
    name, unit = _unit(value)
    return f"{_digits(value / unit)} {name}"


def _unit(value: float) -> tuple[str, float]:
    return next((name, seconds) for name, seconds, least in UNITS if value >= least * seconds)


def _range(span: Mapping[str, float] | None, between: str = "\n") -> str:
    """`9.8 s (7.6-20)` in the unit of the middle; a dash where there is none."""
    if span is None:
        return "-"
    _, unit = _unit(span["middle"])
    low, high = (_digits(float(f"{span[key] / unit:.2g}")) for key in ("low", "high"))
    return f"{_seconds(span['middle'])}{between}({low}-{high})"
