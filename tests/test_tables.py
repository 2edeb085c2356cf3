"""Tables and figures as functions of records."""

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from eval import experiment, statistics, tables
from spectrum.errors import SpectrumError
from spectrum.files import names
from spectrum.store import read_record, read_records

ROOT = Path(__file__).resolve().parent.parent
RECORDS = ROOT / "results" / "records"


@pytest.fixture(scope="module")
def records():
    return read_records(RECORDS)


@pytest.fixture
def filled(records):
    return tables.fill(experiment.load("tiny_table"), records)


def command(*words):
    ran = subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, capture_output=True, text=True, check=False)
    return ran.returncode, ran.stdout, ran.stderr


def test_check_fails_after_one_digit_of_a_table_is_changed(tmp_path):
    given = [f"records={RECORDS}", f"to={tmp_path}"]
    assert command("scripts/tables.py", *given)[0] == 0
    assert command("scripts/tables.py", "--check", *given)[0] == 0
    path = tmp_path / "tiny_table.md"
    text = path.read_text()
    digit = re.search(r"\d(?= ±)", text)
    assert digit
    path.write_text(text[: digit.start()] + str((int(digit[0]) + 1) % 10) + text[digit.end() :])
    code, _, err = command("scripts/tables.py", "--check", *given)
    assert code == 2 and "tiny_table.md does not follow from the records" in err


@pytest.mark.parametrize("script", ["tables", "figures"])
def test_torch_is_not_imported(script, tmp_path):
    code = (
        f"import runpy, sys; sys.argv = ['x', 'records={RECORDS}', 'to={tmp_path}']\n"
        f"try: runpy.run_path('scripts/{script}.py', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules and 'diffusers' not in sys.modules"
    )
    assert command("-c", code)[0] == 0
    assert len(list(tmp_path.iterdir())) > 3


def test_every_row_of_the_main_table_is_there(filled):
    assert not filled.missing
    methods = {row.keys["method"] for row, _ in filled.rows}
    assert {"none", "fewer_steps", "fewer_steps_unipc", "spectrum", "fora", "taylorseer", "teacache"} <= methods
    budgets = {row.keys.get("runs") for row, _ in filled.rows}
    assert budgets == {None, 14, 10}
    assert filled.rows[0][0].keys == {"method": "none"}


def test_a_missing_row_prints_its_command(records):
    few = [r for r in records if r["method"]["name"] != "fora"]
    text = tables.markdown(tables.fill(experiment.load("tiny_table"), few))
    assert "python run.py timing=2 method=fora runs=14 eval=table records=results/records" in text
    none = tables.markdown(tables.fill(experiment.load("tiny_table"), []))
    assert none.count("python run.py") == 15 and "No row of this table has been measured" in none


def test_a_record_of_another_setting_is_not_taken_for_a_row(records, filled):
    (row,) = [r for r, _ in filled.rows if r.keys == {"method": "spectrum", "runs": 14}]
    find = lambda some: experiment.find(row, experiment.same_data(some, filled.experiment.shared))  # noqa: E731
    own = find(records)
    assert own
    for change in (
        {"method": {**own["method"], "ridge": 0.2}},
        {"schedule": {**own["schedule"], "warmup": 3}},
        {"seeds": [1]},
        {"steps": 28},
        {"nfe": 13.0},
        {"model": {**own["model"], "height": 64}},
        {"prompts_from": {"file": "calibration.txt", "limit": None}},
    ):
        assert find([{**own, **change}]) is None, change


def test_csv_holds_the_records_numbers(filled):
    rows = list(csv.DictReader(io.StringIO(tables.plain(filled))))
    for line, (_, record) in zip(rows, filled.rows, strict=True):
        assert line["id"] == record["id"] and float(line["nfe"]) == record["nfe"]
        stored = record["metrics"]["psnr"]["mean"]
        assert (line["psnr_mean"] == "" and stored is None) or float(line["psnr_mean"]) == stored


def test_latex_compiles_by_the_look_of_it(filled):
    text = tables.latex(filled)
    lines = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(lines) == len(filled.rows) + 1
    assert len({len(re.findall(r"(?<!\\)&", line)) for line in lines}) == 1
    assert not re.search(r"(?<!\\)[%_#]", "\n".join(lines)) and r"$\pm$" in text


def test_paired_intervals_are_narrower_than_unpaired_ones():
    rng = np.random.default_rng(0)
    base = rng.normal(25, 4, 200)
    own = base + 0.5 + rng.normal(0, 0.3, 200)
    mean, low, high = statistics.paired(own.tolist(), base.tolist())
    assert low < 0.5 < high and low < mean < high
    assert high - low < 0.2 * 2 * statistics.interval(own.tolist())[1]
    assert statistics.paired([1.0, None, float("inf")], [0.0, 3.0, 1.0])[0] == 1.0
    assert np.isnan(statistics.paired([None], [1.0])[0])
    with pytest.raises(ValueError, match=r"shorter|longer"):
        statistics.paired([1.0], [1.0, 2.0])


def test_the_difference_is_to_the_named_method_at_the_same_runs(filled):
    for row, record in filled.rows:
        shown = tables.difference(filled, row, record)
        name = row.keys["method"]
        assert (shown == tables.NONE) == (name in ("none", "spectrum"))
        if shown != tables.NONE:
            rival = next(r for k, r in filled.rows if k.keys == {"method": "spectrum", "runs": row.keys["runs"]})
            gap = record["metrics"]["psnr"]["mean"] - rival["metrics"]["psnr"]["mean"]
            assert float(shown.split()[0]) == pytest.approx(gap, abs=0.006)


def test_the_control_at_the_same_latency_lies_between_its_measured_points(filled):
    points = sorted(r["metrics"]["psnr"]["mean"] for r in filled.controls)
    low, high = points[0], points[-1]
    for record in filled.records:
        shown = tables.same_latency(record, filled.controls)
        if record["method"]["name"] in ("none", "fewer_steps"):
            assert shown == tables.NONE
        elif not shown.startswith(("above", "below")):
            assert low <= float(shown) <= high


@pytest.mark.parametrize("name", names("experiment"))
def test_every_experiment_has_a_table(name, records):
    filled = tables.fill(experiment.load(name, ROOT / "results" / "published.csv"), records)
    widths = {line.count("|") for line in tables.markdown(filled).splitlines() if line.startswith("|")}
    assert len(widths) == 1 and filled.rows
    assert len({r["id"] for r in filled.records}) == len(filled.records), "a record stands in two rows"


def test_a_row_of_another_growth_is_missing(records):
    filled = tables.fill(experiment.load("tiny_growth"), records)
    for row, record in filled.rows:
        assert record is None or record["schedule"]["growth"] == row.keys["schedule.growth"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{torn", "cannot be read"),
        ("[1]", "is no record of run.py"),
        ('{"id": "a", "metrics": {}, "command": "run.py x"}', "format 1.*run run.py x again"),
    ],
)
def test_bad_records_are_named(tmp_path, content, said):
    path = tmp_path / "bad.json"
    path.write_text(content)
    with pytest.raises(SpectrumError, match=f"bad.json.*{said}"):
        read_record(path)
    code, _, err = command("scripts/tables.py", f"records={tmp_path}", f"to={tmp_path / 'to'}")
    assert code == 2 and len(err.strip().splitlines()) == 1 and not (tmp_path / "to").exists()


def test_records_name_what_they_were_made_with(records):
    absolute = re.compile(r"(?<![\w.:/~])/\w+/\w+")
    for record in records:
        assert record["git"]["commit"]
        assert not [found for found in absolute.findall(json.dumps(record)) if not found.startswith("/tmp/inception")]
