"""Tables and figures as functions of records."""

import csv
import dataclasses
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
from by_hand import records_of, records_of_all
from command import call, error_line

from eval.tables import formats, tables
from eval.tables.differences import clip_difference, psnr_of_mean_error
from eval.tables.experiments import find_record, load_experiment, made_on_same_data
from spectrum.commands.tables import main
from spectrum.config.reader import choices
from spectrum.core.errors import SpectrumError
from spectrum.records.record import PromptSource, read_record, write_record

ROOT = Path(__file__).resolve().parent.parent
RECORDS = ROOT / "results" / "records"


@pytest.fixture(scope="module")
def records():
    return records_of_all("tiny_table", "tiny_growth")


@pytest.fixture
def filled(records):
    return tables.match_rows(load_experiment("tiny_table"), records)


def test_the_committed_tables_and_the_readme_follow_from_the_records(capsys):
    main(["--check"])
    assert "follow from the records" in capsys.readouterr().out


def test_tables_are_written_to_outputs_unless_told_otherwise(tmp_path, monkeypatch, capsys):
    committed = ROOT / "results" / "tables"
    before = {path: path.stat().st_mtime_ns for path in (*committed.iterdir(), ROOT / "README.md")}
    monkeypatch.chdir(tmp_path)
    main([])
    assert capsys.readouterr().out == "tables written to outputs/tables\n"
    written = {path.name for path in (tmp_path / "outputs" / "tables").iterdir()}
    names = {f"{name}.{kind}" for name in choices("experiment") for kind in ("md", "tex", "csv")}
    studies = [path.stem for path in (ROOT / "results" / "plan_study").glob("*.json")]
    names |= {"inner_score.md"} if (ROOT / "results" / "inner_score.json").exists() else set()
    assert written == names | {f"{name}.{kind}" for name in [*studies, "gpu", "cpu"] for kind in ("md", "csv")}
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


def test_check_fails_after_one_digit_of_a_table_is_changed(tmp_path):
    given = [f"records={RECORDS}", f"to={tmp_path}"]
    main(given)
    main(["--check", *given])
    path = tmp_path / "tiny_table.md"
    text = path.read_text()
    digit = re.search(r"\d(?= ±)", text)
    assert digit
    path.write_text(text[: digit.start()] + str((int(digit[0]) + 1) % 10) + text[digit.end() :])
    with pytest.raises(SpectrumError, match=rf"tiny_table\.md does not follow from the records: type .* to={tmp_path}"):
        main(["--check", *given])


@pytest.mark.parametrize("script", ["tables", "figures"])
def test_torch_is_not_imported(script, tmp_path):
    folder, to = tmp_path / "records", tmp_path / "to"
    for record in records_of("tiny_table"):
        write_record(folder / f"{record.id}.json", record)
    code = (
        f"import runpy, sys; sys.argv = ['x', 'records={folder}', 'to={to}']\n"
        f"try: runpy.run_path('scripts/{script}.py', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules and 'diffusers' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
    assert len(list(to.iterdir())) > 3


def test_every_row_of_the_main_table_is_there(filled):
    assert not filled.missing
    methods = {row.keys["method"] for row, _ in filled.rows}
    assert {
        "none",
        "fewer_steps",
        "fewer_steps_unipc",
        "spectrum",
        "fora",
        "taylorseer",
        "teacache",
        "planned",
    } <= methods
    budgets = {row.keys.get("runs") for row, _ in filled.rows}
    assert budgets == {None, 14, 10}
    assert filled.rows[0][0].keys == {"method": "none"}


def test_a_missing_row_prints_its_command(records):
    few = [r for r in records if r.name != "fora"]
    text = formats.markdown(tables.match_rows(load_experiment("tiny_table"), few))
    assert "python run.py seeds=[0,1,2] batch=1 timing=0 method=fora runs=14 eval=table records=results/records" in text
    none = formats.markdown(tables.match_rows(load_experiment("tiny_table"), []))
    assert none.count("python run.py") == 17 and "No row of this table has been measured" in none


def test_a_record_of_another_setting_is_not_taken_for_a_row(records, filled):
    (row,) = [r for r, _ in filled.rows if r.keys == {"method": "spectrum", "runs": 14}]
    find = lambda some: find_record(row, made_on_same_data(some, filled.experiment.data))  # noqa: E731
    own = find(records)
    assert own is not None and find([own]) is own
    for change in (
        {"method": {**own.method, "forecast": {**own.method["forecast"], "ridge": 0.2}}},
        {"schedule": {**own.schedule, "warmup": 3}},
        {"seeds": [1]},
        {"steps": 28},
        {"nfe": 13.0},
        {"model": {**own.model, "height": 64}},
        {"prompts_from": PromptSource(file="calibration.txt", limit=None)},
    ):
        assert find([dataclasses.replace(own, **change)]) is None, change


def test_a_record_of_another_plan_is_not_taken_for_a_row(records, filled):
    row, own = next((r, record) for r, record in filled.rows if r.keys == {"method": "planned", "runs": 14})
    assert own is not None and own.method["plan"]["digest"] == row.plan
    other = dataclasses.replace(own, method={**own.method, "plan": {**own.method["plan"], "digest": "0" * 16}})
    assert find_record(row, [own]) is own and find_record(row, [other]) is None
    forced = dataclasses.replace(own, method={**own.method, "plan": {**own.method["plan"], "sigmas": None}})
    assert find_record(row, [forced]) is None
    none = dataclasses.replace(own, method={k: v for k, v in own.method.items() if k != "plan"})
    assert find_record(row, [none]) is None


def test_csv_holds_the_records_numbers(filled):
    lines = list(csv.DictReader(io.StringIO(formats.csv_table(filled))))
    assert lines
    for line, (_, record) in zip(lines, filled.rows, strict=True):
        assert (line["method"], line["id"], line["missing_command"]) == (record.label, record.id, "")
        assert (float(line["nfe"]), int(line["steps"])) == (record.nfe, record.steps)
        assert float(line["seconds"]) == record.timing.seconds_per_sample["candidate"]["denoise"]
        assert float(line["efficiency"]) == pytest.approx(record.timing.speedup / (record.steps / record.timing.nfe))
        for name, entry in record.metrics.items():
            for part in ("mean", "interval", "worst_5_percent", "worst_interval"):
                stored = getattr(entry, part)
                assert line[f"{name}_{part}"] == ("" if stored is None else str(stored)), (name, part)


def test_latex_compiles_by_the_look_of_it(filled):
    text = formats.latex(filled)
    lines = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(lines) == len(filled.rows) + 1
    assert len({len(re.findall(r"(?<!\\)&", line)) for line in lines}) == 1
    assert not re.search(r"(?<!\\)[%_#]", "\n".join(lines)) and r"$\pm$" in text


def test_the_difference_is_to_the_named_method_at_the_same_runs(filled):
    assert {r.id for r in filled.records if r.name not in ("none", "spectrum")} == set(filled.differences)
    for row, record in filled.rows:
        if record.id in filled.differences:
            rival = next(r for k, r in filled.rows if k.keys == {"method": "spectrum", "runs": row.keys["runs"]})
            gap = record.metrics["psnr"].mean - rival.metrics["psnr"].mean
            found = filled.differences[record.id]
            assert found.difference.mean == pytest.approx(gap) and found.p >= found.difference.p


def test_every_other_row_is_compared_with_the_uncached_run(filled):
    assert filled.full is filled.rows[0][1]
    for record in filled.records[1:]:
        gap = record.metrics["clip_score"].mean - filled.full.metrics["clip_score"].mean
        assert clip_difference(record, filled.full).mean == pytest.approx(gap)
        assert psnr_of_mean_error(record.metrics["psnr"].values) < record.metrics["psnr"].mean


def test_rows_of_another_uncached_run_are_refused(records):
    odd = next(r for r in records if r.name == "fora" and r.prompts_from.file == "heldout.txt")
    mixed = [r if r is not odd else dataclasses.replace(r, reference="none-of-other-weights") for r in records]
    with pytest.raises(SpectrumError, match=f"{odd.id}.* stand in one table.*none-of-other-weights"):
        for name in ("tiny_table", "tiny_baselines", "tiny_curve"):
            tables.match_rows(load_experiment(name), mixed)


def test_a_function_that_a_record_names_is_not_imported(records, tmp_path, monkeypatch):
    (tmp_path / "planted.py").write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n")
    monkeypatch.syspath_prepend(tmp_path)
    node = {"_target_": "planted.forecast", "_partial_": True}
    planted = [
        dataclasses.replace(r, method={**r.method, "forecast": node}, schedule={**r.schedule, **node}) for r in records
    ]
    formats.markdown(tables.match_rows(load_experiment("tiny_table"), planted))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", choices("experiment"))
def test_every_experiment_has_a_table(name, records):
    filled = tables.match_rows(load_experiment(name, ROOT / "results" / "published.csv"), records)
    widths = {line.count("|") for line in formats.markdown(filled).splitlines() if line.startswith("|")}
    assert len(widths) == 1 and filled.rows
    assert len({r.id for r in filled.records}) == len(filled.records), "a record stands in two rows"


def test_a_row_of_another_growth_is_missing(records):
    filled = tables.match_rows(load_experiment("tiny_growth"), records)
    assert filled.records
    for row, record in filled.rows:
        assert record is None or record.schedule["growth"] == row.keys["schedule.growth"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{torn", "cannot be read"),
        ("[1]", "is no record of run.py"),
        ('{"id": "a", "metrics": {}, "command": "run.py x"}', "format 1.*run run.py x again"),
        ('{"id": "a", "metrics": {}, "format": 4}', "lacks model.name"),
    ],
)
def test_bad_records_are_named(tmp_path, content, said, capsys):
    path = tmp_path / "bad.json"
    path.write_text(content)
    with pytest.raises(SpectrumError, match=f"bad.json.*{said}"):
        read_record(path)
    error_line(call("tables", f"records={tmp_path}", f"to={tmp_path / 'to'}", capsys=capsys))
    assert not (tmp_path / "to").exists()


def test_records_name_what_they_were_made_with(records):
    absolute = re.compile(r"(?<![\w.:/~])/\w+/\w+")
    assert records
    for record in records:
        assert re.fullmatch(r"[0-9a-f]{40}", record.git["commit"])
    for path in RECORDS.glob("*.json"):
        assert not [found for found in absolute.findall(path.read_text()) if not found.startswith("/tmp/inception")]


def test_two_records_that_differ_in_their_code_alone_are_refused(records, filled):
    row, own = next((r, record) for r, record in filled.rows if record is not None and record.caches)
    edited = dataclasses.replace(own, id=f"{own.id}-edited", code="0" * 12)
    same = made_on_same_data([*records, edited], filled.experiment.data)
    with pytest.raises(SpectrumError, match="have the same settings, and other code"):
        find_record(row, same)
