"""Damaged records and tables: `scripts/audit.py` says in one line which file it is and what to type."""

import audit
import pytest
from by_hand import FOUR, at, record_of, table_of

from eval.tables import formats
from spectrum.records.record import write_record


@pytest.fixture
def results(tmp_path):
    """The records of two rows and their table, in a folder for each."""
    full = record_of("none", *FOUR, psnr=[None] * 4)
    row = record_of("fora", "runs=14", *FOUR, psnr=[30.0, 31.0, 32.0, 33.0])
    for record in (full, row):
        write_record(tmp_path / "records" / f"{record.id}.json", record)
    table = table_of(({"method": "none"}, full), (at("fora"), row), against=None)
    (tmp_path / "tables").mkdir()
    for kind, text in (("md", f"# A table\n\n{formats.markdown(table)}"), ("tex", formats.latex(table)),
                       ("csv", formats.csv_table(table))):  # fmt: skip
        (tmp_path / "tables" / f"small.{kind}").write_text(text)
    return tmp_path


def refused(results, capsys):
    """The one line on standard error with which an audit ended."""
    code = audit.main([f"records={results / 'records'}"])
    (line,) = capsys.readouterr().err.splitlines()
    assert code == 2 and line.startswith("error: ")
    return line


def test_what_is_whole_is_audited(results, capsys):
    assert audit.main([f"records={results / 'records'}"]) == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", "cannot be read (Expecting property name"),
        (b"", "cannot be read (Expecting value"),
        (b"\xff\xfe", "cannot be read ('utf-8' codec"),
        (b"[]", "is no record of run.py: take it out of the folder"),
        (b'{"format": 4}', "is no record of run.py: take it out of the folder"),
    ],
)
def test_a_damaged_record_is_named(content, says, results, capsys):
    path = results / "records" / "fora-1.json"
    path.write_bytes(content)
    assert f"{path} {says}" in refused(results, capsys)


@pytest.mark.parametrize("column", ["id", "psnr_interval"])
def test_a_csv_file_that_lacks_a_column_is_named(column, results, capsys):
    path = results / "tables" / "small.csv"
    path.write_text(path.read_text().replace(f"{column},", f"{column}_of_old,", 1))
    again = f"type python scripts/tables.py records={results / 'records'} to={results / 'tables'}"
    assert f"{path} has no column {column}: {again}" in refused(results, capsys)


def test_a_damaged_or_missing_table_is_named(results, capsys):
    path = results / "tables" / "small.md"
    path.write_text("nothing")
    assert f"a table in {results / 'tables'} is damaged" in refused(results, capsys)
    path.unlink()
    assert f"{path} cannot be read (No such file" in refused(results, capsys)
