"""Write the tables of every experiment from records alone: Markdown, LaTeX and CSV, and the README's.

python scripts/tables.py                 results/tables/NAME.{md,tex,csv} and what stands between the README's marks
python scripts/tables.py --check         fail if what is committed does not follow from the records
python scripts/tables.py records=FOLDER to=FOLDER      other records, other tables; the README is left alone
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from eval import experiment, tables
from spectrum.errors import refuse
from spectrum.files import names
from spectrum.main import guarded, pairs
from spectrum.store import read_records

COMMAND = "python scripts/tables.py"
USAGE = f"{COMMAND}, {COMMAND} --check, or {COMMAND} records=FOLDER to=FOLDER"


def outputs(records: Path, to: Path, readme: Path | None) -> dict[Path, str]:
    """Every file that the records determine, with its text."""
    found = read_records(records)
    texts: dict[Path, str] = {}
    front = readme.read_text() if readme else ""
    for name in names("experiment"):
        filled = tables.fill(experiment.load(name, ROOT / "results" / "published.csv"), found)
        text = tables.markdown(filled)
        texts[to / f"{name}.md"] = f"# {filled.experiment.title}\n\n{text}"
        texts[to / f"{name}.tex"] = tables.latex(filled)
        texts[to / f"{name}.csv"] = tables.plain(filled)
        mark = re.compile(rf"(<!-- table {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        front = mark.sub(lambda seen, text=text: f"{seen[1]}\n{text}\n{seen[2]}", front)
    return texts if readme is None else {**texts, readme: front}


def main() -> None:
    """Write the tables, or check them."""
    check = "--check" in sys.argv[1:]
    given = pairs((word for word in sys.argv[1:] if word != "--check"), ("records", "to"), USAGE)
    records = Path(given.get("records", ROOT / "results" / "records"))
    if not records.is_dir():
        refuse(f"there is no folder {records}: make records with python run.py records={records}")
    to = Path(given.get("to", ROOT / "results" / "tables"))
    for path, text in outputs(records, to, None if given else ROOT / "README.md").items():
        there = path.read_text() if path.exists() else None
        if check and there != text:
            refuse(f"{path.relative_to(ROOT) if not given else path} does not follow from the records: type {COMMAND}")
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    if not check:
        print(f"tables written to {to}")


if __name__ == "__main__":
    sys.exit(guarded(main, models=False))
