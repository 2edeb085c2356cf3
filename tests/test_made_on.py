"""A folder's samples are all made on one kind of machine, whoever comes when, and so are those it is compared with."""

import errno
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module
from command import call

from spectrum.bench import generate as g
from spectrum.bench import made_on
from spectrum.bench.ledger import PARTS, Ledger, names_in, whole_ledger
from spectrum.bench.made_on import FILE, keep_kind, kind_of
from spectrum.bench.prompts import numbered_samples
from spectrum.bench.workers import Worker
from spectrum.config.compose import compose
from spectrum.config.methods import build_method
from spectrum.config.sampling import Sampling
from spectrum.core.errors import SpectrumError

ROOT = Path(__file__).resolve().parent.parent
JOB = ["method=fora", "schedule.interval=3", "model.steps=4", "batch=1", "prompts.limit=2", "timing=0", "probe=0"]
SAMPLES = numbered_samples(["a cat on blue", "a key on red", "a cup on green"], [0])
ONE, OTHER = ({"torch": "2", "device": "cpu", "kernels": "AVX2", "threads": count} for count in (1, 2))


def make(pipe, folder):
    config = compose(JOB)
    return g.generate(pipe, build_method(config.method, config.schedule), SAMPLES, Sampling.of(config), folder)


def entries(folder):
    """The lines of pictures that are written here."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    found = []
    for sample in SAMPLES:
        (folder / "images" / sample.file).write_bytes(b"a picture")
        found.append({"index": sample.index, "seed": 0, "prompt": sample.prompt, "file": sample.file,
                      "sha256": hashlib.sha256(b"a picture").hexdigest(), "runs": {}, "calls": {}})  # fmt: skip
    return found


@pytest.mark.parametrize("links", [True, False])
def test_of_all_that_begin_at_once_one_kind_goes_on(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", lambda *names: (_ for _ in ()).throw(OSError(errno.EPERM, "no links")))
    together = threading.Barrier(8)

    def begin(number):
        together.wait()
        try:
            keep_kind(tmp_path, {**ONE, "threads": number % 4})
        except SpectrumError:
            return None
        return number % 4

    for number in range(8):
        (tmp_path / FILE).unlink(missing_ok=True)
        with ThreadPoolExecutor(8) as pool:
            goes_on = [kind for kind in pool.map(begin, range(8)) if kind is not None]
        assert goes_on == [(kind_of(tmp_path) or {})["threads"]] * 2, number
    assert names_in(tmp_path) == [FILE], "no draft is left"


def test_another_kind_is_refused_before_it_makes_anything(_tiny, tmp_path):
    keep_kind(tmp_path, {**g.kernels_of(_tiny.device), "threads": 3})
    with pytest.raises(SpectrumError, match=r"begun with threads=3, .* type OMP_NUM_THREADS=3 before the command, or"):
        make(_tiny, tmp_path)
    assert names_in(tmp_path) == [FILE]


def test_the_samples_that_a_whole_folder_has_lost_are_made_by_its_own_kind_alone(_tiny, tmp_path, monkeypatch):
    ledger, here = make(_tiny, tmp_path), g.kernels_of(_tiny.device)
    assert kind_of(tmp_path) == here
    monkeypatch.setattr(g, "kernels_of", lambda device: {**here, "threads": 3})
    assert make(_tiny, tmp_path) == ledger, "what is there can be read by any"
    (tmp_path / "images" / SAMPLES[1].file).unlink()
    with pytest.raises(SpectrumError, match="was begun with threads=1, and this process has threads=3"):
        make(_tiny, tmp_path)
    assert SAMPLES[1].file not in names_in(tmp_path / "images")
    monkeypatch.undo()
    assert make(_tiny, tmp_path) == ledger


def test_a_folder_without_a_note_is_taken_as_it_is(_tiny, tmp_path):
    ledger = make(_tiny, tmp_path)
    (tmp_path / FILE).unlink()
    (tmp_path / "images" / SAMPLES[1].file).unlink()
    assert make(_tiny, tmp_path) == ledger
    assert kind_of(tmp_path) == g.kernels_of(_tiny.device)


@pytest.mark.parametrize("content", ['{"torch": ', json.dumps({**ONE, "unheard": None})])
def test_a_damaged_note_is_refused(content, tmp_path, monkeypatch):
    monkeypatch.setattr(made_on, "PATIENCE", 0.2)
    (tmp_path / FILE).write_text(content)
    with pytest.raises(SpectrumError, match=r"made_on.json is damaged, .*: delete "):
        keep_kind(tmp_path, ONE)


@pytest.mark.parametrize("noted", [True, False])
def test_lines_of_another_kind_are_never_taken(tmp_path, noted):
    lines = entries(tmp_path)
    if noted:
        keep_kind(tmp_path, ONE)
    Ledger(tmp_path, made_on=ONE).add(lines[:2])
    Ledger(tmp_path, made_on=OTHER).add(lines[1:])
    assert whole_ledger(tmp_path, SAMPLES) is None
    worker = Ledger(tmp_path, made_on=ONE)
    worker.follow()
    assert sorted(worker.done) == [sample.file for sample in SAMPLES[:2]]
    assert whole_ledger(tmp_path, SAMPLES[:2]) == (lines[:2] if noted else None)


@pytest.mark.parametrize("number", [0, 1])
def test_a_folder_whose_last_process_was_killed_before_it_ended_it_is_ended(tmp_path, number):
    lines = entries(tmp_path)
    keep_kind(tmp_path, ONE)
    Ledger(tmp_path, made_on=ONE).add(lines)
    (tmp_path / g.CLAIMS).mkdir()
    (tmp_path / "images" / ".draft-torn").touch()
    assert g.finished(SAMPLES, tmp_path, Worker(number, 2)) == lines
    left = [PARTS, g.CLAIMS] if number else ["samples.jsonl"]
    assert set(names_in(tmp_path)) == {"images", FILE, *left}
    assert (".draft-torn" in names_in(tmp_path / "images")) == (number == 1)
    assert g.finished(SAMPLES, tmp_path) == whole_ledger(tmp_path, SAMPLES) == lines


@pytest.mark.parametrize("gone", [PARTS, "images"])
def test_a_folder_that_another_process_deletes_meanwhile_is_empty(tmp_path, monkeypatch, gone):
    """It goes between the look whether it is there and the list of what is in it."""
    (tmp_path / gone).mkdir()
    real = os.scandir, os.listdir

    def deleted(which):
        def lists(path="."):
            if Path(path) == tmp_path / gone:
                (tmp_path / gone).rmdir()
            return which(path)

        return lists

    monkeypatch.setattr(os, "scandir", deleted(real[0]))
    monkeypatch.setattr(os, "listdir", deleted(real[1]))
    ledger = Ledger(tmp_path)
    ledger.follow()
    assert ledger.done == {} and g.finished([], tmp_path) == []
    assert not (tmp_path / gone).exists(), "it went when it was listed"


def test_an_offloaded_pipeline_is_of_the_device_that_it_computes_on(_tiny, tmp_path):
    """Offloading leaves the weights on the CPU, and hooks say where the modules compute."""
    keep_kind(tmp_path, g.kernels_of(torch.device("cpu")))
    modules = [part for part in _tiny.components.values() if isinstance(part, torch.nn.Module)]
    hook = ModelHook()
    setattr(hook, "execution_device", torch.device("meta"))  # noqa: B010
    try:
        for module in modules:
            add_hook_to_module(module, hook)
        assert _tiny.device.type == "cpu"
        with pytest.raises(SpectrumError, match="begun with device=cpu, and this process has device=meta"):
            make(_tiny, tmp_path)
    finally:
        for module in modules:
            remove_hook_from_module(module)


def run_by(threads, *command):
    """Run a command in an interpreter of its own, which reads the number of threads when it starts."""
    variables = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    return subprocess.run([sys.executable, *command], cwd=ROOT, env=variables, capture_output=True, text=True,
                          check=False)  # fmt: skip


def test_the_command_says_how_a_job_of_one_thread_goes_on(tmp_path):
    """torchrun gives each worker one thread on a CPU, and a plain command takes all cores."""
    assert call("run", *JOB, f"out={tmp_path}").code == 0
    for path in [*tmp_path.rglob("record.json"), *tmp_path.rglob("fora-*/images")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    said = run_by(2, "run.py", *JOB, f"out={tmp_path}")
    assert said.returncode == 2, said.stderr
    (line,) = said.stderr.splitlines()
    assert "begun with threads=1, and this process has threads=2: the last bits of pictures could differ; " in line
    threads, *command = shlex.split(line.partition("; type ")[2].partition(", or delete")[0])
    assert (threads, *command) == ("OMP_NUM_THREADS=1", "python", "run.py", *JOB, f"out={tmp_path}")
    said = run_by(threads[-1], *command[1:])
    assert len(list(tmp_path.rglob("record.json"))) == 1, said


def test_a_whole_reference_serves_methods_that_are_sampled_with_other_threads(tmp_path):
    """As after a plain command, which takes all cores, a sweep of jobs with one thread each."""
    assert call("run", *JOB, f"out={tmp_path}").code == 0
    said = run_by(2, "run.py", *JOB, "schedule.interval=2", f"out={tmp_path}")
    assert said.returncode == 0, said.stderr
    assert len(list(tmp_path.rglob("none-*/samples.jsonl"))) == 1 and len(list(tmp_path.rglob("record.json"))) == 2


def test_the_command_ends_what_was_killed_before_its_end(tmp_path):
    assert call("run", *JOB, f"out={tmp_path}").code == 0
    for path in tmp_path.rglob("record.json"):
        path.unlink()
    before = {}
    for ledger in tmp_path.rglob("samples.jsonl"):
        before[ledger] = ledger.read_bytes()
        part = ledger.parent / PARTS / "a.jsonl"
        part.parent.mkdir()
        part.write_text(json.dumps({"made_on": kind_of(ledger.parent)}) + "\n" + ledger.read_text())
        (ledger.parent / g.CLAIMS).mkdir()
        ledger.unlink()
    assert len(before) == 2 and call("run", *JOB, f"out={tmp_path}").code == 0
    assert {ledger: ledger.read_bytes() for ledger in tmp_path.rglob("samples.jsonl")} == before
    assert not [*tmp_path.rglob(PARTS), *tmp_path.rglob(g.CLAIMS)]
