"""What stands around a table: what it was made on, how its figures are to be read, and what holds for all of it."""

from collections.abc import Iterable, Sequence

from eval.metrics.columns import METRICS
from eval.tables.comparison import shown_metrics
from eval.tables.tables import ExperimentTable, is_video
from eval.timing import hardware_text
from spectrum.records.record import Record
from spectrum.records.timing import Timing

FIDELITY = (
    "Fidelity is to the uncached run on the same noise, and measured on the 8-bit pictures that are stored. Mean ± "
    "half of its 95 % interval; intervals come from the spread over prompts, each with all its seeds."
)
SSIM = "SSIM is taken over windows that lie inside the picture whole, without padding."
MEAN_ERROR = "PSNR of mean MSE averages the squared error over all samples first, and has no interval."
DIFFERENCES = (
    "Differences are on the same samples, each with its own 95 % interval. In parentheses stand those that are not "
    "significant at 5 % once p values are adjusted for the {count} differences of the table (Holm)."
)
CLIP = "CLIP less the full run's is on the same samples, with half of its own 95 % interval, not adjusted."
TIMED = (
    "Latency is denoising per image, the median over the timed rounds. Speed-up is the median of {rounds} rounds, with "
    "its 95 % interval; a round is the uncached run before and after over the method, on the same samples in the same "
    "process. Efficiency is the speed-up over steps / runs of the runs that were timed. Euler at this latency is the "
    "PSNR of plain sampling with as many steps as take the same time, between the measured controls; its interval "
    "carries those of the speed-ups, the row's and the controls'."
)
ORDER = "The whole order by PSNR comes back in"


def about(table: ExperimentTable) -> str:
    """What the measured rows were made on, and how their figures are to be read; one paragraph."""
    records = table.records
    if not records:
        return "No row of this table has been measured; published figures stand alone."
    first, timings = records[0], timings_of(records)
    batches = _listed(str(r.batch) for r in records)
    made = (
        f"Model `{first.model['name']}` ({_listed(r.model_kind for r in records)}), {first.samples} samples "
        f"({len(first.prompts)} prompts x {len(first.seeds)} seeds), sampled at batch {batches}, {first.steps} steps."
        f"{_timed_on(first, timings)} torch {_listed(str(r.packages['torch']) for r in records)}, commit "
        f"{_listed(str(r.git['commit'])[:9] for r in records)}."
    )
    shown = shown_metrics(records)
    parts = [made, FIDELITY if any(METRICS[name].identical is not None for name in shown) else ""]
    parts += [SSIM if "ssim" in shown else "", MEAN_ERROR if "psnr" in shown and not is_video(first) else ""]
    parts += [DIFFERENCES.format(count=len(table.differences)) if table.differences else ""]
    parts += [CLIP if table.compares_clip else ""]
    parts += [TIMED.format(rounds=_listed(str(len(t.rounds)) for t in timings)) if timings else ""]
    warned = {f"{METRICS[n].title}: {m.warning}." for r in records for n, m in r.metrics.items() if m.warning}
    return " ".join(filter(None, [*parts, *sorted(warned)]))


def timings_of(records: Sequence[Record]) -> list[Timing]:
    """The timings of the records that have one."""
    return [record.timing for record in records if record.timing is not None]


def _listed(words: Iterable[str]) -> str:
    return ", ".join(sorted(set(words)))


def _timed_on(first: Record, timings: Sequence[Timing]) -> str:
    """On which machines the rows were timed, at which batch; empty if none was."""
    chips = _listed(t.hardware["gpu"] if "gpu" in t.hardware else hardware_text(t.hardware) for t in timings)
    batches = _listed(str(t.batch) for t in timings)
    return f" Timed on {chips}, {first.model['dtype']}, batch {batches}." if timings else ""


def remarks(table: ExperimentTable) -> list[str]:
    """What holds for the table as a whole: whether its order is firm, and how it was timed. A sentence each."""
    records = table.records
    kept = [f"of the {rows} rows at {runs} runs in {100 * share:.0f} %" for runs, rows, share in table.orders]
    found = [f"When the prompts are resampled, the whole order by PSNR comes back: {', '.join(kept)}."] if kept else []
    passes = len({timing.process for timing in timings_of(records)})
    if passes > 1:
        found.append(f"The rows were timed in {passes} passes, between which the state of the machine can differ.")
    forced = [r.label for r in records if r.timing is not None and r.timing.conditions.forced]
    if forced:
        found.append(f"Timed on a loaded machine, by force: {', '.join(forced)}.")
    return found
