"""What a first user met, an item a test. Items 5 and 6 have files of their own beside this one."""

import dataclasses
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from by_hand import records_of
from command import QUICK, ROOT, call, error_line
from rich.console import Console
from typed import typed

from eval.metrics.measure import measure
from eval.metrics.pictures import Pictures
from spectrum.bench.progress import Progress
from spectrum.config.compose import compose
from spectrum.models.fitted import fits_of
from spectrum.models.identity import EMBEDDED
from spectrum.records.record import write_record

FORECAST = """
import numpy as np

from mypkg.weights import newest

def f(times, target, span):
    '''The newest feature again.'''
    return newest(len(times))
"""
WEIGHTS = """
import numpy as np

FACTOR = 1.0

def newest(count):
    weights = np.zeros(count)
    weights[-1] = FACTOR
    return weights
"""


def test_1_the_code_of_a_method_is_part_of_a_run_s_identity(tmp_path):
    package = tmp_path / "mypkg"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "forecast.py").write_text(FORECAST)
    (package / "weights.py").write_text(WEIGHTS)
    words = ["run.py", *QUICK, "method=fora", "plugins=[mypkg]", "method.forecast._target_=mypkg.forecast.f"]
    words += [f"out={tmp_path / 'out'}", f"records={tmp_path / 'records'}"]

    def run():
        code, out, err = typed(*words, PYTHONPATH=str(tmp_path))
        assert code == 0, err
        return out

    def pictures():
        return {path.parent.parent.name: path.read_bytes() for path in tmp_path.rglob("fora-*/images/00000-s0.png")}

    out = run()
    (first,) = pictures().items()
    assert "has changed" not in out
    (package / "forecast.py").write_text(FORECAST.replace("The newest feature again.", "Another text.") + "\n# More.\n")
    out = run()
    assert "has changed" not in out and pictures() == dict([first]), "comments and docstrings change no result"
    (package / "weights.py").write_text(WEIGHTS.replace("FACTOR = 1.0", "FACTOR = 0.5"))
    out = run()
    assert f"the code of fora has changed since {tmp_path}" in out and "made again" in out
    fresh = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONHASHSEED": "7"}
    again = subprocess.run([sys.executable, *words], cwd=ROOT, env=fresh, capture_output=True, text=True, check=False)
    assert again.returncode == 0 and "has changed" not in again.stdout, "the code's digest depends on no order of sets"
    both = pictures()
    assert len(both) == 2 and both[first[0]] == first[1] and len(set(both.values())) == 2
    codes = {json.loads(path.read_text())["code"] for path in (tmp_path / "records").glob("fora-*.json")}
    assert len(codes) == 2


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    path = tmp_path_factory.mktemp("trace") / "t.pt"
    assert call("trace", "model.steps=50", "prompts.limit=1", f"trace={path}").code == 0
    return path


def test_2_a_replay_of_records_skips_what_a_trace_cannot_score(trace, tmp_path, capsys):
    """Records of methods that store at the exit, at other places, and of one that names a function of nobody's."""
    chosen = [record for record in records_of("tiny_baselines") if record.name in ("fora", "dbcache", "fora_modules")]
    names = sorted(record.id for record in chosen)
    scored = [name for name in names if name.startswith("fora-")]
    assert scored and any(name.startswith("dbcache-") for name in names)
    own = next(record for record in chosen if record.id == scored[0])
    planted = {**own.method, "forecast": {**own.method["forecast"], "_target_": "os.system"}}
    for record in (*chosen, dataclasses.replace(own, id="strange", method=planted)):
        write_record(tmp_path / f"{record.id}.json", record)
    code, out, err = call("replay", f"trace={trace}", f"records={tmp_path}", "format=json", capsys=capsys)
    assert code == 0, err
    assert len(json.loads(out)) == len(scored)
    said = err.splitlines()
    assert sorted(line.split(": ")[1] for line in said) == sorted({*names, "strange"} - set(scored))
    assert all(line.startswith("left out: ") for line in said)
    assert any("strange: method.forecast names os.system" in line for line in said)


def test_3_pictures_that_are_missing_are_drawn_again_by_the_same_command(tmp_path, capsys):
    words = [*QUICK, "probe=1", f"out={tmp_path}"]
    assert call("run", *words, capsys=capsys).code == 0
    (folder,) = (path.parent for path in tmp_path.rglob("record.json"))
    drawn = ("sheet.png", "timeline.png", "error.png")
    before = {path.name: path.stat().st_mtime_ns for path in (folder / "images").iterdir()}
    for name in drawn:
        (folder / name).unlink()
        assert call("run", *words, capsys=capsys).code == 0
        assert all((folder / each).stat().st_size > 1000 for each in drawn)
    assert before == {path.name: path.stat().st_mtime_ns for path in (folder / "images").iterdir()}


def test_4_weights_of_a_folder_are_not_called_embedded(tmp_path, capsys):
    shutil.copytree(EMBEDDED, tmp_path / "mine")
    words = [*QUICK, "method=none"]
    said = call("run", *words, f"model.weights={tmp_path / 'mine'}", f"out={tmp_path / 'a'}", capsys=capsys)
    assert said.code == 0 and "weights of the user's folder mine" in said.out and "embedded" not in said.out
    said = call("run", *words, f"out={tmp_path / 'b'}", capsys=capsys)
    assert said.code == 0 and "embedded, trained" in said.out
    kinds = {path.parts[-4]: json.loads(path.read_text())["model_kind"] for path in tmp_path.rglob("record.json")}
    assert kinds == {"a": "weights of the user's folder mine", "b": "embedded, trained"}


def test_7_calibrate_prints_unless_told_and_overwrites_no_other_fit(tmp_path, capsys):
    shutil.copytree(EMBEDDED, tmp_path / "tiny")
    kept = tmp_path / "tiny" / "calibration.json"
    shipped = json.loads(kept.read_text())
    samples = shipped["teacache"]["fitted_on"]["samples"]
    words = [f"model.weights={tmp_path / 'tiny'}", "method=teacache", "batch=2", "prompts=inline"]
    words += ["prompts.text=['a cat on blue', 'a key on red']", "budgets=5"]
    said = call("calibrate", *words, "model.steps=8", capsys=capsys)
    found = json.loads(said.out.splitlines()[-1])
    assert said.code == 0 and found["fitted_on"]["steps"] == 8 and "write=true" in said.out
    assert json.loads(kept.read_text()) == shipped, "nothing is written unless it is asked for"
    line = error_line(call("calibrate", *words, "model.steps=8", "write=true", capsys=capsys))
    assert f"50 steps and {samples} samples" in line and "type overwrite=true" in line
    line = error_line(call("calibrate", *words, "write=true", capsys=capsys))
    assert f"{samples} samples, and this one is of tiny, 50 steps and 2" in line
    assert json.loads(kept.read_text()) == shipped, "a fit of other steps, or of more prompts, is not overwritten"
    assert call("calibrate", *words, "model.steps=8", "write=true", "overwrite=true", capsys=capsys).code == 0
    now = json.loads(kept.read_text())
    line = error_line(call("calibrate", *words, "model.steps=9", "write=true", capsys=capsys))
    assert "8 steps and 2 samples" in line and json.loads(kept.read_text()) == now
    assert now["teacache"]["coefficients"] == found["coefficients"]
    assert {name: fit for name, fit in now.items() if name != "teacache"} == {
        name: fit for name, fit in shipped.items() if name != "teacache"
    }
    at_eight, at_fifty = (fits_of(compose([*words[:-1], f"model.steps={steps}"]).model) for steps in (8, 50))
    assert at_eight.keys() == {"teacache"} and "teacache" not in at_fifty and at_fifty, "a fit is for its own steps"


def test_7_commands_write_into_no_tracked_folder_unless_told(tmp_path):
    left_out = shutil.ignore_patterns(".git", ".venv", "outputs", "multirun", "__pycache__", ".*_cache")
    shutil.copytree(ROOT, tmp_path / "copy", ignore=left_out)
    records = tmp_path / "copy" / "results" / "records"
    shutil.rmtree(records)
    for record in records_of("tiny_table"):
        write_record(records / f"{record.id}.json", record)

    def contents():
        files = (path for path in (tmp_path / "copy").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        return {path.relative_to(tmp_path / "copy"): path.read_bytes() for path in files}

    before = contents()
    for command in ("tables", "figures"):
        assert typed(f"scripts/{command}.py", folder=tmp_path / "copy").code == 0
        new = contents().keys() - before.keys()
        assert new and {path.parts[0] for path in new} == {"outputs"}, command
    assert {path: content for path, content in contents().items() if path.parts[0] != "outputs"} == before
    asked = subprocess.run(["git", "check-ignore", "outputs/tables"], cwd=ROOT, capture_output=True, check=False)
    assert asked.returncode == 0


def launchers():
    found = importlib.util.find_spec("hydra_plugins")
    joblib = found is not None and importlib.util.find_spec("hydra_plugins.hydra_joblib_launcher") is not None
    return ["basic", *(["joblib"] if joblib else [])]


@pytest.mark.parametrize("launcher", launchers())
def test_8_a_bad_job_does_not_stop_a_sweep(launcher, tmp_path):
    words = ["method=fora,fewer_steps", "runs=6,7", *QUICK, f"out={tmp_path}", "--multirun", "hydra.job.chdir=false"]
    words += [f"hydra/launcher={launcher}", f"records={tmp_path / 'records'}"]
    code, out, err = typed("run.py", *words)
    assert code == 1
    assert "Traceback" not in err and "Error executing" not in err
    (failed,) = [line for line in out.splitlines() if line.startswith("failed: ")]
    assert "method=fora runs=6" in failed and "cannot run exactly 6 of 7 steps" in failed
    assert [line for line in err.splitlines() if line.startswith("error: ")] == [failed.replace("failed: ", "error: ")]
    (table,) = tmp_path.rglob("comparison.md")
    assert failed in table.read_text().splitlines()
    made = sorted(json.loads(path.read_text())["label"] for path in (tmp_path / "records").glob("f*.json"))
    assert len(made) == 3 and {label.split()[0] for label in made} == {"fora", "fewer_steps"}
    assert all(label.split()[0] in table.read_text() for label in made)


def test_8_a_sweep_whose_jobs_all_end_well_is_one_that_ends_well(tmp_path):
    code, out, err = typed("run.py", "--multirun", "method=none,fora", *QUICK, f"out={tmp_path}")
    assert code == 0 and "failed" not in out, err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["model.height=100000", "model.width=100000"], "model.height=100000 is more than any model here can make"),
        (
            ["model.height=16384", "model.width=16384", "batch=64", "prompts.limit=64"],
            "type a smaller model.height, model.width or batch",
        ),
    ],
)
def test_9_absurd_sizes_are_refused_before_memory_is_touched(words, says, tmp_path, capsys):
    said = call("run", *QUICK, *words, f"out={tmp_path}", capsys=capsys)
    assert says in error_line(said)
    assert not said.out and not list(tmp_path.iterdir())


def test_9_long_phases_print_a_line_every_30_seconds_where_there_is_no_terminal():
    now = 0.0
    printed = io.StringIO()
    with Progress(Console(file=printed, force_terminal=False), clock=lambda: now) as progress:
        advance = progress.start("spectrum", 100)
        for _ in range(10):
            now += 8.0
            advance(10)
    lines = printed.getvalue().splitlines()
    assert lines == [
        "spectrum: 40 of 100 sample steps, 32 s, about 48 s left",
        "spectrum: 80 of 100 sample steps, 64 s, about 16 s left",
    ]


def test_9_metrics_show_how_many_pictures_they_have_read():
    pixels = torch.rand(5, 3, 16, 16)
    told = []

    def begin(name, total):
        told.append((name, total))
        return told.append

    measure({"psnr": {}, "ssim": {}}, Pictures(pixels), Pictures(pixels), ["x"] * 5, ("a", "b"), print, begin)
    first, second = told.index(("psnr", 5)), told.index(("ssim", 5))
    assert first == 0 and sum(told[1:second]) == 5 and sum(told[second + 1 :]) == 5


def test_9_the_timing_pass_shows_how_far_it_is(_tiny):
    from spectrum.bench import timing
    from spectrum.bench.prompts import numbered_samples
    from spectrum.config.sampling import Sampling
    from spectrum.named_methods import load_method

    sampling = Sampling.of(compose(["model.steps=4", "batch=1"]))
    none, fora = (timing.Side(load_method(name), sampling) for name in ("none", "fora"))
    told = []
    batches = timing.batches_of(numbered_samples(["a cat on blue"], [0]), 1, 2)
    timing.timed_rounds(_tiny, none, [fora], batches, told.append)
    assert told == [4] * 8 and sum(told) == timing.sample_steps(none, [fora], batches)


def test_1_a_record_that_cannot_be_read_does_not_block_a_run_that_does_not_use_it(tmp_path, capsys):
    old = tmp_path / "tiny" / "fora-0123456789ab" / "record.json"
    old.parent.mkdir(parents=True)
    old.write_text('{"id": "fora-0123456789ab", "format": 2, "metrics": {}}')
    assert call("run", *QUICK, "method=fora", f"out={tmp_path}", capsys=capsys).code == 0


def test_8_the_jobs_of_an_earlier_sweep_in_the_same_folder_do_not_count(tmp_path, capsys):
    folder = tmp_path / "sweep"
    (folder / "jobs").mkdir(parents=True)
    (folder / "jobs" / "7.json").write_text('{"job": "method=old", "error": "it failed last week"}')
    words = ["--multirun", *QUICK, "method=none,fora", f"out={tmp_path}", f"hydra.sweep.dir={folder}"]
    said = call("run", *words, capsys=capsys)
    assert said.code == 0 and "last week" not in said.out
