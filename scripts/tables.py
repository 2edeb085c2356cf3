"""Write the comparison tables from records alone, and into the README.

python scripts/tables.py             results/tables/tiny.md and the README's tables
python scripts/tables.py --check     fail if what is committed does not follow from the records
"""

import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from spectrum import report
from spectrum.errors import refuse
from spectrum.main import guarded

COMMAND = "python scripts/tables.py"


def groups(records: list[dict[str, Any]]) -> dict[tuple[str, ...], list[dict[str, Any]]]:
    """Records that may stand in one table: same weights, prompts, seeds and steps, so the same reference."""
    found: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for record in sorted(records, key=report.order):
        found.setdefault((record["model"]["name"], record["reference"]), []).append(record)
    return found


def table(records: list[dict[str, Any]]) -> str:
    """One table with what it was measured on."""
    first = records[0]
    where, commits = first["hardware"], sorted({str(r["git"]["commit"])[:9] for r in records})
    about = (
        f"Model `{first['model']['name']}` ({first['model_kind']}), {first['samples']} samples "
        f"({len(first['prompts'])} prompts), {first['steps']} steps, on {where['cpu']} with {where['threads']} "
        f"threads, torch {first['packages']['torch']}, commit {', '.join(commits)}. PSNR and SSIM are to the uncached "
        "run on the same noise, mean ± half of the 95 % bootstrap interval over prompts; latency is denoising per "
        "image, speed-up its ratio to the uncached run in the same process."
    )
    return f"{about}\n\n{report.markdown(records)}"


def outputs(root: Path) -> dict[Path, str]:
    """Every file that the records determine, with its text."""
    paths = sorted((root / "results" / "records").glob("*.json"))
    if not paths:
        refuse("there are no records in results/records: type python run.py records=results/records")
    tables = {name: table(rows) for (name, _), rows in groups([report.read_record(p) for p in paths]).items()}
    texts = {root / "results" / "tables" / f"{name}.md": text for name, text in tables.items()}
    readme = (root / "README.md").read_text()
    for name, text in tables.items():
        mark = re.compile(rf"(<!-- table {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        readme = mark.sub(lambda found, text=text: f"{found[1]}\n{text}\n{found[2]}", readme)
    return {**texts, root / "README.md": readme}


def main() -> None:
    """Write the tables, or check them."""
    words = sys.argv[1:]
    if words not in ([], ["--check"]):
        refuse(f"unknown option {' '.join(words)}: type {COMMAND} or {COMMAND} --check")
    for path, text in outputs(ROOT).items():
        if not words:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            refuse(f"{path.relative_to(ROOT)} does not follow from the records: type {COMMAND}")


if __name__ == "__main__":
    sys.exit(guarded(main))
