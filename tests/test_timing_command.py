"""`spectrum timing` on an experiment of one's own with few steps, in a copy of the project that runs it for real."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from eval.reports.timing_page import read_pass, timing_page
from spectrum.records.record import read_records

ROOT = Path(__file__).resolve().parent.parent
MINE = """\
# @package _global_
prompts: {limit: 2}
seeds: [0, 1]
batch: 1
timing: 0
probe: 0
records: records
model: {steps: 6}
experiment: {name: mine, title: Mine}
hydra: {mode: MULTIRUN, sweeper: {params: {method: "none,fewer_steps,fora", runs: 4}}}
"""


def run(folder, *words):
    environment = {**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "80"}
    words = [sys.executable, *words]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project with an experiment of three rows, sampled and timed once."""
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


TIME = ("scripts/timing.py", "experiment=mine", "rounds=7", "records=records", "force=true")


@pytest.fixture(scope="module")
def timed(project):
    before = {record.id: record for record in read_records(project / "records")}
    return before, run(project, *TIME, "to=first.md")


def test_every_record_gets_the_timing_of_one_process(project, timed):
    before, (code, out, err) = timed
    assert code == 0, err
    after = read_records(project / "records")
    assert len(after) == 3 and {r.id for r in after} == before.keys()
    assert len({r.timing.process for r in after}) == 1
    for record in after:
        timing = record.timing
        assert [len(timing.rounds), timing.batch] == [7, 1] and before[record.id].timing is None
        assert len({file for timed in timing.rounds for file in timed.samples}) == 4
        assert timing.nfe == record.nfe == {"none": 6, "fewer_steps": 4, "fora": 4}[record.name]
        assert timing.conditions.command.startswith("timing.py experiment=mine rounds=7")
        assert timing.conditions.git == {"commit": None, "dirty": None}
        assert record.metrics == before[record.id].metrics and record.command == before[record.id].command
        assert record.command.startswith("run.py experiment=mine")
    none = next(record for record in after if record.is_reference)
    assert {json.dumps(r.timing.rounds[0].after) for r in after} & {json.dumps(none.timing.rounds[0].before)} == set()
    assert len(max(out.splitlines(), key=len)) <= 80 or "written: first.md" in max(out.splitlines(), key=len)


def test_the_reference_after_one_method_is_the_one_before_the_next(project, timed):
    rounds = [record.timing.rounds for record in read_records(project / "records")]
    links = [(a.after, b.before) for one in rounds for other in rounds for a, b in zip(one, other, strict=True)]
    assert sum(after == before for after, before in links) == 2 * 7


def test_the_page_follows_from_the_records_and_can_be_read_again(project, timed):
    records = read_records(project / "records")
    text = (project / "first.md").read_text()
    assert text == timing_page(records)
    for record in records:
        timing = record.timing
        assert f"| `{record.id}` | {record.label} | {timing.nfe:.4g} / 6 |" in text
        assert read_pass(project / "first.md").speedups[record.id] == pytest.approx(
            (timing.speedup, *timing.speedup_interval), abs=6e-4
        )
    assert read_pass(project / "records").speedups.keys() == read_pass(project / "first.md").speedups.keys()
    for fact in (timing.process, timing.conditions.date, timing.conditions.command, "with 1 threads", "7, after a"):
        assert fact in text, fact
    assert ("The machine was loaded" in text) == timing.conditions.forced


def moved(text, factor):
    """A page whose speed-ups are all `factor` times as high."""

    def higher(match):
        numbers = [float(number) * factor for number in match.groups()]
        return "{:.3f}x [{:.3f}, {:.3f}] |".format(*numbers)

    return re.sub(r"([\d.]+)x \[([\d.]+), ([\d.]+)\] \|", higher, text)


def test_an_earlier_page_that_agrees_and_one_that_does_not(project, timed):
    page = (project / "first.md").read_text()
    wide = re.sub(r"\[[\d.]+, [\d.]+\]", "[0.100, 90.000]", page)
    (project / "wide.md").write_text(wide.replace("with 1 threads", "with 64 threads"))
    code, out, err = run(project, *TIME, "to=second.md", "compare=wide.md")
    assert code == 0, err
    assert out.count("agrees") == 3 and "DISAGREES" not in out and "3 of 3 rows agree" in out
    assert "wide.md was timed on" in out and "with 64 threads, this on" in out
    (project / "far.md").write_text(moved(page, 3.0))
    code, out, err = run(project, *TIME, "to=third.md", "compare=far.md")
    assert code == 1 and out.count("DISAGREES") == 3 and "0 of 3 rows agree" in out, err
    assert (project / "third.md").exists() and "far.md was timed on" not in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "which tables?"),
        (["experiment=mine", "rounds=6"], "rounds=6: a record is timed in at least 7 rounds"),
        (["experiment=mine", "force=yes"], "force=yes is unknown: type force=true"),
        (["experiment=mine", "compare=none.md"], "compare=none.md cannot be read"),
        (["experiment=mine", "compare=MINE"], "has no timing in it"),
        (["experiment=mine", "force=true", "to=records"], "to=records is a folder"),
        (["experiment=yours", "force=true"], "there is no experiment yours"),
        (["experiment=tiny_clock", "force=true"], "rows of tiny_clock have no record in records: type python run.py"),
    ],
)
def test_what_cannot_be_timed_is_refused(project, words, said):
    words = [word.replace("MINE", "configs/experiment/mine.yaml") for word in words]
    code, _, err = run(project, "scripts/timing.py", "records=records", *words)
    assert code == 2 and said in err and len(err.strip().splitlines()) == 1, err
