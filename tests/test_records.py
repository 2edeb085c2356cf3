"""A record knows its own text, its pictures and the code that made them."""

import dataclasses
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from command import QUICK, call, error_line
from digests import sha256

from spectrum.bench import machine, provenance
from spectrum.bench import run as bench
from spectrum.core.errors import SpectrumError
from spectrum.records.digests import record_digest, samples_digest
from spectrum.records.files import write_together
from spectrum.records.record import parse_record, read_record, sealed, write_record


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A function that runs FORA on two prompts with two seeds into one folder, and returns what it printed."""
    out = tmp_path_factory.mktemp("runs")

    def again(*words, capsys):
        said = call("run", "method=fora", *QUICK, "seeds=[0,1]", f"out={out}", *words, capsys=capsys)
        assert said.code == 0, said
        return said.out

    again.out = out
    return again


@pytest.fixture
def path(run, capsys):
    run("timing=1", capsys=capsys)
    (found,) = run.out.glob("tiny/fora-*/record.json")
    return found


def images(path):
    return sorted((path.parent / "images").iterdir())


def test_a_record_holds_the_digest_of_each_of_its_files_and_of_the_reference(path):
    record = read_record(path)
    assert len(images(path)) == 4 == record.samples
    assert record.digests == [sha256(image)[:16] for image in images(path)]
    reference = path.parent.parent / record.reference / "record.json"
    files = sorted((reference.parent / "images").iterdir())
    assert record.reference_samples == samples_digest([sha256(file)[:16] for file in files])


def test_nfe_is_the_mean_over_the_samples(path):
    record = read_record(path)
    assert record.nfe_by_sample == [len(record.runs["cond"])] * 4 and record.nfe == record.nfe_by_sample[0]


def test_efficiency_counts_the_runs_of_the_timed_calls(path):
    record = dataclasses.replace(read_record(path), nfe=5.0)
    assert dataclasses.replace(record, timing=None).efficiency is None
    timed = dataclasses.replace(record, timing=dataclasses.replace(record.timing, speedup=2.0, nfe=3.0))
    assert timed.efficiency == pytest.approx(2 * 3 / 7)


def leaves(content, where=()):
    """The place of every number, text and truth value in JSON content."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    inner = [leaf for key, value in items for leaf in leaves(value, (*where, key))]
    return inner or ([where] if not isinstance(content, (dict, list)) else [])


def forged(content, where):
    """The content with one leaf changed."""
    copy = json.loads(json.dumps(content))
    node = copy
    for key in where[:-1]:
        node = node[key]
    old = node[where[-1]]
    node[where[-1]] = (not old) if isinstance(old, bool) else old + 1 if isinstance(old, (int, float)) else f"{old}x"
    return copy


def test_a_record_that_was_changed_in_any_place_is_refused(path):
    content = json.loads(path.read_text())
    parse_record(content, "here")
    places = leaves(content)
    assert len(places) > 100 and ("metrics", "psnr", "values", 0) in places
    for where in places:
        with pytest.raises(SpectrumError, match=r"changed after it was written|damaged|has format"):
            parse_record(forged(content, where), "here")


def test_written_again_it_is_sealed_anew_and_text_layout_does_not_count(path, tmp_path):
    record = read_record(path)
    write_record(tmp_path / "other.json", dataclasses.replace(record, label="mine"))
    other = read_record(tmp_path / "other.json")
    assert other.label == "mine" and other.digest != record.digest == sealed(record).digest
    (tmp_path / "flat.json").write_text(json.dumps(json.loads(path.read_text()), sort_keys=True))
    assert read_record(tmp_path / "flat.json") == record
    assert record_digest({"a": float("nan")}) == record_digest({"a": None}) != record_digest({"a": 1})


@pytest.mark.parametrize("whose", ["fora", "none"])
def test_pictures_that_were_made_again_void_the_metrics_and_the_timing_of_the_others(run, path, capsys, whose):
    """Another picture with its line in the ledger, as another machine would leave it."""
    before = read_record(path)
    folder = path.parent if whose == "fora" else path.parent.parent / before.reference
    one, other, *_ = sorted((folder / "images").iterdir())
    ledger = folder / "samples.jsonl"
    kept = one.read_bytes(), ledger.read_text()
    ledger.write_text(kept[1].replace(sha256(one), sha256(other)))
    shutil.copy(other, one)
    said = run("timing=1", capsys=capsys)
    after = read_record(path)
    assert "is of other pictures than those in" in said
    assert after.metrics["psnr"].values[0] != before.metrics["psnr"].values[0]
    assert after.metrics["psnr"].values[1:] == before.metrics["psnr"].values[1:]
    assert after.timing.process != before.timing.process
    assert (after.digests != before.digests) == (whose == "fora")
    assert (after.reference_samples != before.reference_samples) == (whose == "none")
    assert "is of other pictures" not in run("timing=1", capsys=capsys) and read_record(path) == after
    one.write_bytes(kept[0])
    ledger.write_text(kept[1])


def test_a_short_timing_does_not_get_into_the_folder_of_all_records(run, path, capsys, tmp_path):
    timed = read_record(path)
    run(f"records={tmp_path}", capsys=capsys)
    (shared,) = tmp_path.glob("fora-*.json")
    assert timed.timing is not None and read_record(shared).timing is None
    assert read_record(shared).metrics == timed.metrics
    long = dataclasses.replace(timed.timing, rounds=timed.timing.rounds * 7)
    calm = dataclasses.replace(timed.timing.conditions, forced=False)
    assert machine.shareable(dataclasses.replace(long, conditions=calm))
    assert not machine.shareable(dataclasses.replace(long, conditions=dataclasses.replace(calm, forced=True)))
    assert not machine.shareable(dataclasses.replace(long, rounds=long.rounds[:6], conditions=calm))


def test_rows_are_not_mixed_with_those_that_are_compared_with_other_uncached_pictures(run, path, capsys, tmp_path):
    run(f"records={tmp_path}", capsys=capsys)
    (shared,) = tmp_path.glob("none-*.json")
    own = read_record(shared)
    write_record(shared, dataclasses.replace(own, digests=["0" * 16, *own.digests[1:]]))
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    words = [*QUICK, "seeds=[0,1]", f"out={run.out}", f"records={tmp_path}"]
    for more in ([], ["redo=[metrics]"]):
        said = call("run", "method=fora", *words, *more, capsys=capsys)
        assert f"{path.parent.parent / own.id} are other ones than those of {shared}" in error_line(said)
        assert "records=FOLDER with an empty folder, or delete" in said.err
        assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before
    assert call("run", "method=none", *words, capsys=capsys).code == 0
    assert read_record(shared).digests == own.digests
    run(f"records={tmp_path}", capsys=capsys)


def test_a_checkout_is_dirty_if_any_file_of_its_code_is_changed_or_new(tmp_path, monkeypatch):
    def git(*words):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    here = tmp_path / "spectrum" / "bench" / "provenance.py"
    here.parent.mkdir(parents=True)
    here.write_text("code")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "LOG.md").write_text("log")
    monkeypatch.setattr(provenance, "__file__", str(here))
    assert provenance.git_state() == {"commit": None, "dirty": None}
    git("init", "-q")
    git("add", "results")
    git("commit", "-qm", "results")
    assert provenance.git_state() == {"commit": None, "dirty": None}, "somebody's own repository"
    git("add", ".")
    git("commit", "-qm", "all")
    clean = provenance.git_state()
    assert len(clean["commit"]) == 40 and clean["dirty"] is False
    (tmp_path / "results" / "LOG.md").write_text("more")
    (tmp_path / "notes.txt").write_text("mine")
    plan = tmp_path / "spectrum" / "assets" / "tiny" / "plans" / "50-steps-10-runs.json"
    plan.parent.mkdir(parents=True)
    plan.write_text("{}")
    assert provenance.git_state() == clean, "no code"
    for name in ("configs/method/new.yaml", "baselines/new.py", "eval/new.py", "scripts/new.py", "run.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("new")
        assert provenance.git_state()["dirty"] is True, name
        path.unlink()
        assert provenance.git_state() == clean
    here.write_text("changed")
    assert provenance.git_state()["dirty"] is True


def test_a_record_tells_the_code_that_was_loaded_and_not_what_was_committed_since(tmp_path, capsys, monkeypatch):
    """A start on a changed tree that is committed while the run samples."""
    state = {"commit": "a" * 40, "dirty": True}
    real = bench.generate

    def committed_meanwhile(*args):
        state.update(commit="b" * 40, dirty=False)
        return real(*args)

    monkeypatch.setattr(provenance, "git_state", lambda: dict(state))
    monkeypatch.setattr(bench, "generate", committed_meanwhile)
    provenance.git_at_start.cache_clear()
    said = call("run", "method=fora", *QUICK, "timing=1", f"out={tmp_path}", capsys=capsys)
    provenance.git_at_start.cache_clear()
    assert said.code == 0, said
    (path,) = tmp_path.glob("tiny/fora-*/record.json")
    record = read_record(path)
    assert record.git == record.timing.conditions.git == {"commit": "a" * 40, "dirty": True}


def test_other_work_that_began_while_a_run_sampled_stops_its_timing_and_keeps_its_samples(
    tmp_path, capsys, monkeypatch
):
    words = ["method=fora", *QUICK, "timing=7", f"out={tmp_path / 'out'}", f"records={tmp_path / 'records'}"]
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    monkeypatch.setattr(machine, "cores_of_others", lambda: 2.0)
    machine.load_at_start.cache_clear()
    said = call("run", *words, capsys=capsys)
    machine.load_at_start.cache_clear()
    assert "other processes keep 2.00 cores busy" in error_line(said)
    (path,) = tmp_path.glob("out/tiny/fora-*/record.json")
    assert read_record(path).timing is None and len(images(path)) == 2
    assert not list((tmp_path / "records").glob("*.json"))


def test_files_are_written_together_or_not_at_all(tmp_path):
    (tmp_path / "a").write_text("old")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        write_together({tmp_path / "a": b"new", tmp_path / "file" / "b": b"new"})
    assert (tmp_path / "a").read_text() == "old" and sorted(p.name for p in tmp_path.iterdir()) == ["a", "file"]
    write_together({tmp_path / "a": b"new", tmp_path / "c" / "b": b"more"})
    assert [(tmp_path / name).read_text() for name in ("a", "c/b")] == ["new", "more"]
    assert not list(Path(tmp_path).rglob(".draft-*"))
