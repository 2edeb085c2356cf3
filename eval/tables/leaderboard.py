"""The leaderboard: every method with a complete record on the main data, the nearest to the uncached run first."""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval import statistics
from eval.metrics.columns import METRICS
from eval.tables.comparison import markdown_table, metric_cell, record_cells
from eval.tables.differences import Comparison, less
from eval.tables.experiments import Row, find_record, made_on_same_data
from eval.tables.tables import NONE, worst_cell
from spectrum.config.reader import choices, group_file, method_files
from spectrum.core.errors import refuse
from spectrum.records.record import Record

BUDGETS = (14, 10)
"""The numbers of block runs that methods are compared at."""
MAIN = "tiny_table"
"""The experiment whose data the leaderboard is made on."""
ABOVE = "PSNR less the row above's"
HEADS = ("method", "NFE", METRICS["psnr"].title, "PSNR, worst 5 %", "speed-up", "efficiency", ABOVE, "who", "link")
TITLE = "# Leaderboard"
EXPLAINED = (
    "Every method with a complete record on the embedded model, at {budgets} of {steps} block runs: {samples} samples "
    "({prompts} held-out prompts x {seeds} seeds), PSNR to the uncached run on the same noise. For each number of runs "
    "the nearest to the uncached run stands first. The difference to the row above is on the same samples, with its 95 "
    "% interval; in parentheses stand those that are not significant at 5 % once p values are adjusted for the {count} "
    "differences of this page (Holm). Such rows are ties, and their order says nothing. Rows of different people were "
    "timed on their machines: compare speed-ups with the efficiency in mind, which is the speed-up over steps / runs. "
    "Plain sampling with fewer steps, `fewer_steps` and `fewer_steps_unipc`, is what a method has to beat. How a "
    "method gets here: [Submit a method](../docs/submit.md)."
)


@dataclass(frozen=True)
class Author:
    """Who stands behind a row.

    Attributes:
        who: a name.
        link: where the method is described; empty for none.
    """

    who: str
    link: str = ""

    @property
    def link_cell(self) -> str:
        """The link as a Markdown cell.

        Example:
            >>> Author("X", "https://arxiv.org/abs/2603.01623").link_cell, Author("X").link_cell
            ('[arXiv 2603.01623](https://arxiv.org/abs/2603.01623)', '-')
        """
        paper = re.fullmatch(r"https://arxiv\.org/abs/([\d.]+)", self.link)
        return f"[arXiv {paper[1]}]({self.link})" if paper else f"<{self.link}>" if self.link else NONE


def read_authors(path: Path) -> dict[str, Author]:
    """Who each method is by, from a CSV file with the columns method, who and link; empty if there is no such file.

    Raises:
        SpectrumError: if a line lacks one of them.
    """
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    for number, line in enumerate(lines):
        if set(line) != {"method", "who", "link"} or not line["method"] or not line["who"] or line["link"] is None:
            refuse(f"{path}, line {number + 2} is no method,who,link: correct that line")
    return {line["method"]: Author(line["who"], line["link"]) for line in lines}


def authors_csv(authors: Mapping[str, Author]) -> str:
    """The content of the file that `read_authors` reads."""
    from eval.tables.comparison import csv_text

    return csv_text(("method", "who", "link"), [(name, own.who, own.link) for name, own in authors.items()])


def lacks(record: Record, metrics: Sequence[str]) -> Iterator[str]:
    """What a record lacks to be complete: metrics, with the reason if there is one, and a timing.

    Args:
        record: the record.
        metrics: the metrics that it has to have.
    """
    for name in metrics:
        if name not in record.metrics:
            yield f"the metric {name} ({record.left_out.get(name, 'it was not asked for')})"
    if record.timing is None:
        yield "a timing"


def ranked(
    records: Sequence[Record], data: Mapping[str, Any], metrics: Sequence[str], budgets: Sequence[int] = BUDGETS
) -> list[tuple[str, Record, Record | None]]:
    """The rows: method, record, and the record of the row above at the same number of runs.

    Args:
        records: any records.
        data: what they have to be made on, see `Experiment.data`.
        metrics: the metrics of a complete record.
        budgets: the numbers of block runs.
    """
    same = made_on_same_data(records, data)
    found: list[tuple[str, Record, Record | None]] = []
    for runs in budgets:
        pairs = [(name, find_record(Row({"method": name, "runs": runs}, ""), same)) for name in choices("method")]
        own = [(name, r) for name, r in pairs if r is not None and skips(name) and not [*lacks(r, metrics)]]
        own.sort(key=lambda pair: (-(pair[1].metric("psnr") or float("inf")), pair[0]))
        above = [None, *(record for _, record in own)]
        found += [(name, record, over) for (name, record), over in zip(own, above, strict=False)]
    return found


def skips(name: str) -> bool:
    """Whether a method saves anything: it forecasts, or takes fewer steps."""
    own = method_files()[name][0]
    return own["forecast"] is not None or own["steps"] is not None


def leaderboard(
    records: Sequence[Record],
    authors: Mapping[str, Author],
    data: Mapping[str, Any],
    metrics: Sequence[str] | None = None,
    budgets: Sequence[int] = BUDGETS,
) -> str:
    """The page.

    Args:
        records: any records.
        authors: who each method is by.
        data: what rows have to be made on, see `Experiment.data`.
        metrics: the metrics of a complete record; by default those of `eval=table`.
        budgets: the numbers of block runs.
    """
    rows = ranked(records, data, metrics or list(group_file("eval", "table")), budgets)
    if not rows:
        return f"{TITLE}\n\nNo method has a complete record yet: see [Submit a method](../docs/submit.md).\n"
    gaps = [less(record, above, "psnr") if above is not None else None for _, record, above in rows]
    adjusted = statistics.holm([gap.p if gap else float("nan") for gap in gaps])
    lines = []
    for (name, record, _), gap, p in zip(rows, gaps, adjusted, strict=True):
        author = authors.get(name, Author(NONE))
        label, nfe, _, speedup, efficiency = record_cells(record, ())
        cells = [label, nfe, metric_cell("psnr", record), worst_cell(record), speedup, efficiency]
        cells += [Comparison(gap, p).cell if gap else "", author.who, author.link_cell]
        lines.append([cell or NONE for cell in cells])
    first = rows[0][1]
    text = EXPLAINED.format(
        budgets=" and ".join(map(str, budgets)), steps=first.steps, samples=first.samples, prompts=len(first.prompts),
        seeds=len(first.seeds), count=sum(gap is not None for gap in gaps),
    )  # fmt: skip
    return f"{TITLE}\n\n{text}\n\n{markdown_table(HEADS, lines)}"
