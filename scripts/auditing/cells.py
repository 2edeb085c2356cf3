"""The text of a table's cell, from the numbers of the same row in the table's CSV."""

from collections.abc import Callable, Mapping

from auditing.records import METRICS, OF_THE_SET, Record

NOTHING = "-"
Numbers = Mapping[str, float]


def cells_of(line: Mapping[str, str], record: Record, head: str, beyond: str) -> str:
    """What a cell has to say.

    Args:
        line: the row's line of the CSV.
        record: the row's record.
        head: of the cell's column.
        beyond: what stands under "Euler at this latency" where the CSV has no number there.

    Returns:
        The text; `unknown column` where this script does not know the column.
    """
    own = _numbers(line)
    if head == "method":
        return line["method"]
    metric = next((name for name, (title, *_) in METRICS.items() if title == head), None)
    if metric is not None:
        return _metric(own, record, metric)
    if head == "PSNR of mean MSE":
        values = record["metrics"].get("psnr", {}).get("values")
        return f"{own['psnr_of_mean_mse']:.2f}" if "psnr_of_mean_mse" in own else "same" if values else NOTHING
    if head == "Euler at this latency":
        return with_half(own, "psnr_at_latency", "psnr_at_latency_interval", 2) or beyond
    if head.startswith("PSNR less "):
        return _difference(own) or NOTHING
    return _CELLS[head](own, line) or NOTHING if head in _CELLS else "unknown column"


def _numbers(line: Mapping[str, str]) -> Numbers:
    found = {}
    for key, value in line.items():
        try:
            found[key] = float(value)
        except ValueError:
            continue
    return found


def with_half(own: Numbers, mean: str, half: str, digits: int, sign: str = "") -> str:
    """`mean ± half`; the mean alone where the CSV has no half; empty where it has no mean."""
    if mean not in own:
        return ""
    return f"{own[mean]:{sign}.{digits}f}" + (f" ± {own[half]:.{digits}f}" if half in own else "")


def _metric(own: Numbers, record: Record, metric: str) -> str:
    if metric not in record["metrics"]:
        return NOTHING
    if metric not in OF_THE_SET and record["id"] == record["reference"]:
        return "same"
    if f"{metric}_mean" not in own:
        return "same" if metric == "psnr" else NOTHING
    return with_half(own, f"{metric}_mean", f"{metric}_interval", METRICS[metric][1])


def _difference(own: Numbers) -> str:
    keys = ("psnr_difference", "psnr_difference_low", "psnr_difference_high")
    if keys[0] not in own:
        return ""
    if keys[1] not in own:
        return f"({own[keys[0]]:+.2f})"
    text = "{:+.2f} [{:+.2f}, {:+.2f}]".format(*(own[key] for key in keys))
    return text if own["psnr_difference_p_holm"] < 0.05 else f"({text})"


def _latency(own: Numbers, line: Mapping[str, str]) -> str:
    seconds = own.get("seconds")
    if seconds is None:
        return ""
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _speedup(own: Numbers, line: Mapping[str, str]) -> str:
    if "speedup" not in own:
        return ""
    text = f"{own['speedup']:.2f}x [{own['speedup_low']:.2f}, {own['speedup_high']:.2f}]"
    return text + (" forced" if line["timing_forced"] == "True" else "")


_CELLS: Mapping[str, Callable[[Numbers, Mapping[str, str]], str]] = {
    "NFE": lambda own, line: f"{own['nfe']:.3g} / {own['steps']:.0f}",
    "latency": _latency,
    "speed-up": _speedup,
    "efficiency": lambda own, line: f"{100 * own['efficiency']:.0f} %" if "efficiency" in own else "",
    "PSNR, worst 5 %": lambda own, line: with_half(own, "psnr_worst_5_percent", "psnr_worst_interval", 2),
    "CLIP less the full run's": lambda own, line: with_half(
        own, "clip_difference", "clip_difference_interval", 2, sign="+"
    ),
}
