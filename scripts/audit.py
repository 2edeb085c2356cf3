"""Work the committed figures out again, with code that shares nothing with the code that made them.

python scripts/audit.py                                       from the raw values in results/records
python scripts/audit.py samples=outputs                       and from the pictures below a folder
python scripts/audit.py sample=6 ids=spectrum-003038bd6c61    and sample the first pictures of a record again
python scripts/audit.py records=FOLDER tables=FOLDER          other records, other tables

From raw values: means, intervals, worst 5 %, PSNR of the mean error, paired differences with their p values and Holm's,
NFE, speed-ups and efficiency from raw seconds, Euler at a row's latency, orders, and each cell of the tables, those of
plan studies among them. From pictures: their digests, PSNR and SSIM. Frechet distances and CLIP scores need their
backbones and are left out.

It prints for each kind of figure the largest disagreement, relative to the figure or absolute below 1, and ends with 1
where one is above its tolerance: 1e-9 for arithmetic, 5e-4 for pictures.
"""

import json
import sys
from pathlib import Path

from auditing.again import sample_again
from auditing.cpu import check_cpu
from auditing.findings import Findings
from auditing.pictures import check_pictures
from auditing.plan_studies import check_plan_studies
from auditing.records import check_records, read_records
from auditing.tables import check_tables

RESULTS = Path(__file__).resolve().parent.parent / "results"
OPTIONS = {
    "records": "the folder of the records; results/records by default",
    "tables": "the folder of the tables; the folder `tables` beside that of the records by default",
    "samples": "a folder below which the pictures of runs are, such as outputs",
    "sample": "how many pictures of each record of ids= to sample again",
    "ids": "the records to sample again, with commas between them",
}
USAGE = "type python scripts/audit.py [records=FOLDER] [tables=FOLDER] [samples=FOLDER] [sample=COUNT ids=ID,ID]"


def main(words: list[str]) -> int:
    """Compare, and print what was compared.

    Args:
        words: the options, as `key=value`.

    Returns:
        0; 1 if a figure disagrees; 2 for what cannot be done.
    """
    if any(word in ("-h", "--help", "help") for word in words):
        print((__doc__ or "").strip() + "\n\n" + "\n".join(f"  {key + '=':12} {text}" for key, text in OPTIONS.items()))
        return 0
    given = dict(word.split("=", 1) for word in words if "=" in word)
    folder = Path(given.get("records", RESULTS / "records"))
    problem = _problem(words, given, folder)
    findings = Findings()
    records = {} if problem else read_records(folder, findings)
    ids = [name for name in given.get("ids", "").split(",") if name]
    unknown = [name for name in ids if name not in records]
    if not problem and not records:
        problem = f"{folder} has no record of the format that this script reads: make records with python run.py"
    if not problem and unknown:
        problem = f"{folder} has no record {unknown[0]}: {USAGE}"
    if problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    records = check_records(records, findings)
    tables = Path(given.get("tables", folder.parent / "tables"))
    if tables.is_dir():
        try:
            studies = tables.parent / "plan_study"
            check_tables(records, tables, findings, {*(path.stem for path in studies.glob("*.json")), "gpu", "cpu"})
            if (tables / "gpu.csv").exists():
                findings.leave("the page of a GPU's timings")
            check_plan_studies(studies, tables, findings)
            if (tables / "cpu.csv").exists():
                check_cpu(tables.parent / "cpu", tables, findings)
        except (OSError, LookupError, ValueError) as error:
            print(f"error: {_table_problem(tables, folder, error)}", file=sys.stderr)
            return 2
    samples = Path(given["samples"]) if "samples" in given else None
    if samples is not None:
        check_pictures(records, samples, findings)
    for name in (name for name in ids if name in records):
        sample_again(records[name], records, int(given["sample"]), samples, findings)
    print("\n".join(findings.lines()))
    print(f"{len(findings.found)} figures compared, {len(findings.wrong)} wrong")
    return 1 if findings.wrong else 0


def _problem(words: list[str], given: dict[str, str], folder: Path) -> str | None:
    """What cannot be done, with what to type; None if all is well."""
    unknown = [word for word in words if word.partition("=")[0] not in OPTIONS or "=" not in word]
    if unknown:
        return f"unknown option {unknown[0]}: {USAGE}"
    for key, path in (("records", folder), ("tables", given.get("tables")), ("samples", given.get("samples"))):
        if path is not None and not Path(path).is_dir():
            return f"{key}={path} is no folder: {USAGE}"
    if (
        ("sample" in given) != ("ids" in given)
        or not given.get("sample", "1").isdecimal()
        or given.get("sample") == "0"
    ):
        return f"sample= takes a number of pictures, and ids= the records that they are of: {USAGE}"
    return next((problem for path in sorted(folder.glob("*.json")) if (problem := _record_problem(path))), None)


def _record_problem(path: Path) -> str | None:
    """Why a file in the folder of the records is none, with what to do; None if it is one."""
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        return f"the record {path} cannot be read ({reason}): delete it and run its command again"
    if not isinstance(record, dict) or "id" not in record:
        return f"{path} is no record of run.py: take it out of the folder"
    return None


def _table_problem(tables: Path, records: Path, error: Exception) -> str:
    """What is wrong with the tables, from the error that reading them ended with, and what to type."""
    again = f"type python scripts/tables.py records={records} to={tables}"
    if isinstance(error, KeyError):
        column = str(error.args[0])
        heads = {path: path.read_text().partition("\n")[0].split(",") for path in sorted(tables.glob("*.csv"))}
        where = next((path for path, names in heads.items() if column not in names), f"a table in {tables}")
        return f"{where} has no column {column}: {again}"
    if isinstance(error, OSError):
        return f"{error.filename} cannot be read ({error.strerror}): {again}"
    return f"a table in {tables} is damaged ({error}): {again}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
