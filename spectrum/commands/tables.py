"""Make the tables of every experiment from records alone: Markdown, LaTeX and CSV; those of plan studies, and of a GPU.

python scripts/tables.py                      write them to outputs/tables
python scripts/tables.py to=results/tables    write the committed ones, those of the README and the leaderboard
python scripts/tables.py --check              fail if what is committed does not follow from the records
python scripts/tables.py records=FOLDER       from other records

Whatever a record says is worked out again from its raw values first, and a record that does not hold is refused.
"""

import re
from pathlib import Path

from eval.tables import cpu, formats, gpu, gpu_lines, inner_score, plan_studies
from eval.tables.experiments import load_experiment
from eval.tables.leaderboard import MAIN, leaderboard, read_authors
from eval.tables.tables import match_rows
from eval.tables.verify import check_records
from spectrum.commands.guard import options, records_folder, wants_help
from spectrum.config.reader import RESULTS, choices, plan_study
from spectrum.core.errors import refuse
from spectrum.records.files import writable, write_bytes
from spectrum.records.record import read_records
from spectrum.records.study_file import read_studies

COMMAND = "python scripts/tables.py"
USAGE = f"{COMMAND} [to=FOLDER] [records=FOLDER], or {COMMAND} --check"
OPTIONS = {
    "records": "the folder of the records; results/records by default",
    "to": "where the tables go; results/tables also updates the README. outputs/tables by default",
}


def outputs(records: Path, to: Path, readme: Path | None) -> dict[Path, str]:
    """Every file that the records determine, with its text.

    Args:
        records: the folder of the records.
        to: the folder of the tables.
        readme: a README whose tables between marks, and the leaderboard, are made of the same records; None for none.

    Raises:
        SpectrumError: if a record says anything that does not follow from its raw values.
    """
    found = read_records(records)
    check_records(found)
    published = RESULTS / "published.csv"
    texts: dict[Path, str] = {}
    front = readme.read_text() if readme else ""
    for name in choices("experiment"):
        table = match_rows(load_experiment(name, published if published.exists() else None), found)
        text = formats.markdown(table)
        texts[to / f"{name}.md"] = f"# {table.experiment.title}\n\n{text}"
        texts[to / f"{name}.tex"] = formats.latex(table)
        texts[to / f"{name}.csv"] = formats.csv_table(table)
        front = _filled(front, name, text)
    for study in read_studies(RESULTS / "plan_study"):
        about = plan_study(study.name)
        texts[to / f"{study.name}.md"] = plan_studies.markdown(about, study)
        texts[to / f"{study.name}.csv"] = plan_studies.csv_table(study)
        front = _filled(front, study.name, plan_studies.body(about, study))
    if scores := inner_score.read(RESULTS / "inner_score.json"):
        texts[to / "inner_score.md"] = inner_score.page(scores)
    if parts := gpu_lines.read_parts(RESULTS / "gpu"):
        texts |= {to / "gpu.md": gpu.page(parts), to / "gpu.csv": gpu.csv_table(parts)}
        front = _filled(front, "gpu", gpu.short(parts))
    if parts := cpu.read_parts(RESULTS / "cpu"):
        texts[to / "cpu.md"] = cpu.page(parts)
        if "embedded" in parts:
            texts[to / "cpu.csv"] = cpu.csv_table(parts)
            front = _filled(front, "cpu", cpu.short(parts))
        if "throughput" in parts:
            front = _filled(front, "throughput", cpu.short_throughput(parts))
    if readme is None:
        return texts
    page = leaderboard(found, read_authors(RESULTS / "submissions.csv"), load_experiment(MAIN).data)
    return {**texts, readme: front, RESULTS / "leaderboard.md": page}


def _filled(page: str, name: str, text: str) -> str:
    """A page whose table of that name, between its marks, is a text."""
    mark = re.compile(rf"(<!-- table {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    return mark.sub(lambda match: f"{match[1]}\n{text}\n{match[2]}", page)


def main(words: list[str]) -> None:
    """Write the tables, or check them.

    Args:
        words: `--check`, `records=FOLDER`, `to=FOLDER`.

    Raises:
        SpectrumError: if there are no records, a checked file does not follow from them, or the tables cannot be
            written.
    """
    if wants_help(words, __doc__ or "", OPTIONS):
        return
    check = "--check" in words
    given = options([word for word in words if word != "--check"], OPTIONS, USAGE)
    records = records_folder(Path(given.get("records", RESULTS / "records")))
    committed = RESULTS / "tables"
    to = Path(given.get("to", committed if check and not given else "outputs/tables"))
    front = RESULTS.parent / "README.md"
    readme = front if front.exists() and to.resolve() == committed.resolve() else None
    texts = outputs(records, to, readme)
    if not check:
        writable(to, "to")
    for path, text in texts.items():
        if check and (not path.exists() or path.read_text() != text):
            refuse(f"{path} does not follow from the records: type {COMMAND} to={to}")
        if not check:
            write_bytes(path, text.encode())
    print(f"the tables in {to} follow from the records" if check else f"tables written to {to}")
