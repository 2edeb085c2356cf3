"""Draw chosen samples of a run beside those of its uncached run, as the first picture of the README has them.

python run.py prompts=development timing=0 eval=default            the run that it was drawn from
python scripts/sheet.py run=FOLDER prompts=0,2,31,43,21,45,5,17
python scripts/sheet.py run=FOLDER prompts=0,2,31,43,21,45,5,17 to=results/figures/tiny_sheet.png
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from eval.figures.sheets import draw_sheet
from eval.metrics.pictures import load_images
from spectrum.bench.prompts import Sample
from spectrum.commands.guard import guarded, options, wants_help
from spectrum.core.errors import refuse
from spectrum.records.files import writable
from spectrum.records.record import read_record

USAGE = "python scripts/sheet.py run=FOLDER prompts=0,1,2 [to=FILE]"
OPTIONS = {
    "run": "the folder of a run, which holds its record and its pictures",
    "prompts": "the numbers of the prompts to show, from 0 on",
    "to": "the file to write, PNG or SVG; outputs/sheet.png by default",
}
FORMATS = (".png", ".svg")


def main() -> None:
    """Draw the sheet."""
    words = sys.argv[1:]
    if wants_help(words, __doc__ or "", OPTIONS):
        return
    given = options(words, OPTIONS, USAGE)
    if not given.get("run") or not given.get("prompts"):
        refuse(f"which run and which prompts? type {USAGE}")
    folder, to = Path(given["run"]), Path(given.get("to", "outputs/sheet.png"))
    if to.suffix not in FORMATS:
        refuse(f"to={to}: type a file that ends in {' or '.join(FORMATS)}")
    writable(to.parent, "to")
    record = read_record(folder / "record.json")
    numbers = given["prompts"].split(",")
    if not all(number.isdecimal() and int(number) < len(record.prompts) for number in numbers):
        refuse(f"prompts={given['prompts']}: type numbers from 0 to {len(record.prompts) - 1} with commas between them")
    shown = [Sample(int(number), record.prompts[int(number)], record.seeds[0]) for number in numbers]
    files = [sample.file for sample in shown]
    rows = {
        f"all {record.steps} steps": load_images(folder.parent / record.reference / "images", files),
        f"{record.name}, {record.nfe:.3g} runs": load_images(folder / "images", files),
    }
    draw_sheet(to, [sample.prompt for sample in shown], rows)
    print(f"written: {to}")


if __name__ == "__main__":
    sys.exit(guarded(main))
