"""`spectrum timing` on an experiment of one's own with few steps, in a copy of the project that runs it for real."""

import dataclasses
import os
import re
import shutil
from pathlib import Path

import pytest
from command import call, error_line
from typed import typed

from eval.reports.timing_page import read_pass, timing_page
from spectrum.bench import machine
from spectrum.commands.timing import jobs_of
from spectrum.records.record import read_records, write_record

ROOT = Path(__file__).resolve().parent.parent
MINE = """\
# @package _global_
prompts: {limit: 2}
seeds: [0, 1]
batch: 1
timing: 0
probe: 0
records: records
model: {steps: 5}
experiment: {name: mine, title: Mine}
hydra: {mode: MULTIRUN, sweeper: {params: {method: "none,fora", runs: 3}}}
"""


def run(folder, *words):
    return typed(*words, folder=folder, PYTHONPATH=str(folder), COLUMNS="80")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project with an experiment of two rows, sampled and timed once."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("spectrum", "eval", "baselines", "configs", "scripts"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("assets", "__pycache__"))
    for name in ("spectrum", "eval"):
        (folder / name / "assets").symlink_to(ROOT / name / "assets")
    shutil.copy(ROOT / "run.py", folder)
    (folder / "configs" / "experiment" / "mine.yaml").write_text(MINE)
    code, _, err = run(folder, "run.py", "experiment=mine")
    assert code == 0, err
    return folder


TIME = ("scripts/timing.py", "experiment=mine", "rounds=7", "force=true")


@pytest.fixture(scope="module")
def timed(project):
    """The records before the first pass, and what it printed; compared with a page that nothing can disagree with."""
    before = {record.id: record for record in read_records(project / "records")}
    rows = [f"| `{name}` | x | 1 | 1 ms | 1.000x [0.001, 1000.000] | 1.000x | 1 % |" for name in before]
    (project / "wide.md").write_text("\n".join(["| hardware | Abacus with 64 threads |", *rows]))
    return before, run(project, *TIME, "records=records", "to=first.md", "compare=wide.md")


def test_every_record_gets_the_timing_of_one_process(project, timed):
    before, (code, out, err) = timed
    assert code == 0, err
    after = read_records(project / "records")
    assert len(after) == 2 and {r.id for r in after} == before.keys()
    assert len({r.timing.process for r in after}) == 1
    for record in after:
        timing = record.timing
        assert [len(timing.rounds), timing.batch] == [7, 1] and before[record.id].timing is None
        assert len({file for timed in timing.rounds for file in timed.samples}) == 4
        assert timing.nfe == record.nfe == {"none": 5, "fora": 3}[record.name]
        assert timing.conditions.command.startswith("timing.py experiment=mine rounds=7")
        assert timing.conditions.git == {"commit": None, "dirty": None}
        assert record.metrics == before[record.id].metrics and record.command == before[record.id].command
        assert record.command.startswith("run.py experiment=mine")
    wide = [line for line in out.splitlines() if len(line) > 80]
    assert all(line.startswith(("written: first.md", "wide.md was timed on")) for line in wide)


def test_the_reference_after_one_method_is_the_one_before_the_next(project, timed):
    none, fora = sorted(read_records(project / "records"), key=lambda record: record.name == "fora")
    for one, other in zip(none.timing.rounds, fora.timing.rounds, strict=True):
        assert one.after == other.before and one.before != one.after and one.samples == other.samples


def test_the_page_follows_from_the_records_and_can_be_read_again(project, timed):
    records = read_records(project / "records")
    text = (project / "first.md").read_text()
    assert text == timing_page(records)
    found = read_pass(project / "first.md")
    for record in records:
        timing = record.timing
        assert f"| `{record.id}` | {record.label} | {timing.nfe:.4g} / 5 |" in text
        assert found.speedups[record.id] == pytest.approx((timing.speedup, *timing.speedup_interval), abs=6e-4)
    assert found.hardware.endswith("with 1 thread") and found.hardware == read_pass(project / "records").hardware
    assert read_pass(project / "records").speedups.keys() == found.speedups.keys() == {r.id for r in records}
    for fact in (timing.process, timing.conditions.date, timing.conditions.command, "| rounds | 7, after a"):
        assert fact in text, fact
    assert ("The machine was loaded" in text) == timing.conditions.forced


def moved(text, factor):
    """A page whose speed-ups are all `factor` times as high."""

    def higher(match):
        numbers = [float(number) * factor for number in match.groups()]
        return "{:.3f}x [{:.3f}, {:.3f}] |".format(*numbers)

    return re.sub(r"([\d.]+)x \[([\d.]+), ([\d.]+)\] \|", higher, text)


def test_an_earlier_page_that_agrees_and_one_that_does_not(project, timed):
    _, (_, out, _) = timed
    assert out.count("agrees") == 2 and "DISAGREES" not in out and "2 of 2 rows agree" in out
    assert "wide.md was timed on Abacus with 64 threads, this on" in out
    (project / "far.md").write_text(moved((project / "first.md").read_text(), 9.0))
    (none,) = (record for record in read_records(project / "records") if record.is_reference)
    (project / "far.md").write_text((project / "far.md").read_text().replace(f"`{none.id}`", "`another`"))
    code, out, err = run(project, *TIME, "records=records", "to=second.md", "compare=far.md")
    assert code == 1 and out.count("DISAGREES") == 1 and out.count("is new") == 1, err
    assert "0 of 1 rows agree" in out and "far.md was timed on" not in out and (project / "second.md").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "which tables?"),
        (["experiment=tiny_clock", "rounds=6"], "rounds=6: a record is timed in at least 7 rounds"),
        (["experiment=tiny_clock", "force=yes"], "force=yes is unknown: type force=true"),
        (["experiment=tiny_clock", "compare=nowhere.md"], "compare=nowhere.md cannot be read"),
        (["experiment=tiny_clock", f"compare={ROOT}/README.md"], "has no timing in it"),
        (["experiment=tiny_clock", "force=true", f"to={ROOT}"], f"to={ROOT} is a folder: type to=FILE"),
        (["experiment=yours", "force=true"], "there is no experiment yours"),
        (["experiment=tiny_clock"], "the machine is loaded: its 1-minute load average is 0.75"),
        (["experiment=tiny_clock", "force=true"], "rows of tiny_clock have no record in RECORDS: type python run.py"),
    ],
)
def test_what_cannot_be_timed_is_refused(project, words, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.75, 0.0, 0.0))
    machine.load_at_start.cache_clear()
    line = error_line(call("timing", f"records={project / 'records'}", *words, capsys=capsys))
    machine.load_at_start.cache_clear()
    assert said.replace("RECORDS", str(project / "records")) in line


def test_a_record_that_its_row_does_not_make_any_more_is_refused(project, tmp_path):
    shutil.copytree(project / "records", tmp_path / "records")
    for record in read_records(tmp_path / "records"):
        if record.name == "fora":
            (tmp_path / "records" / f"{record.id}.json").unlink()
            other = dataclasses.replace(record, id="fora-0123456789ab")
            write_record(tmp_path / "records" / f"{other.id}.json", other)
    code, _, err = run(project, *TIME, f"records={tmp_path / 'records'}")
    assert code == 2 and "fora-0123456789ab is not what its row in mine makes now, which is fora-" in err


def test_every_timed_record_is_what_its_row_makes_with_the_code_of_today():
    """An edit of a method's code asks for its samples anew; `scripts/timing.py` refuses the rows until then."""
    assert len(jobs_of(["tiny_table", "tiny_baselines"], ROOT / "results" / "records")) > 30
