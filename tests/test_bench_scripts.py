"""The benchmarks of scale and of throughput, at sizes at which they say nothing."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from spectrum.bench import machine
from spectrum.core.errors import SpectrumError

ROOT = Path(__file__).resolve().parent.parent


def bench(script, *words):
    words = [sys.executable, f"scripts/bench/{script}.py", *map(str, words)]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)


def test_scale_measures_jobs_and_tables(tmp_path):
    said = bench("scale", "prompts=2,40", "samples=24", "force=true", f"to={tmp_path / 'scale.json'}")
    assert said.returncode == 0, said.stderr
    found = json.loads((tmp_path / "scale.json").read_text())
    assert [job["prompts"] for job in found["jobs"]] == [2, 40]
    for job in found["jobs"]:
        assert job["first"]["seconds"] > job["first"]["pipeline_seconds"] > 0
        assert job["again"]["pipeline_seconds"] == 0, "what is there is not sampled again"
        assert job["peak_mib"] >= job["before_mib"] > 0
    (table,) = found["tables"]
    assert table["rows"] > 10 and set(table["one_call"]) > {"interval", "worst", "paired"}
    assert {"read records", "check records", "markdown", "figures"} <= set(table["seconds"])
    assert found["environment"]["hardware"]["device"] == "cpu"
    assert {"load", "threads", "date", "command", "forced"} <= found["conditions"].keys()


def test_throughput_compares_loops_batches_and_workers(tmp_path):
    to = tmp_path / "throughput.json"
    said = bench("throughput", "prompts=2", "singles=1", "batch=1", "rounds=1", "force=true", f"to={to}")
    assert said.returncode == 0, said.stderr
    found = json.loads(to.read_text())
    sides = {f"{name} {method}" for name in ("loop", "batched", "workers") for method in ("none", "spectrum")}
    assert set(found["images_per_minute"]) == sides and found["of_loop_spectrum"]["loop spectrum"] == 1
    assert {"load", "threads", "date", "command", "forced"} <= found["conditions"].keys()
    for pairs in found["same_bits"].values():
        assert pairs["loop and generate at batch 1"] == {"pictures": 1, "equal": 1, "largest_difference": 0}
        assert all(pair["pictures"] for pair in pairs.values())


@pytest.mark.parametrize(
    ("script", "word", "says"),
    [("scale", "prompts=0", "prompts=0 is no list of multiples of 1"),
     ("scale", "samples=6", "samples=6 is no list of multiples of 4"),
     ("scale", "force=yes", "force=yes is unknown: type force=true"),
     ("throughput", "force=yes", "force=yes is unknown: type force=true"),
     ("cpu", "batch=65", "batch=65 is more than the 64 prompts that there are: type batch=64 or less"),
     ("throughput", "prompts=65", "prompts=65 is more than the 64 prompts that there are: type prompts=64 or less"),
     ("throughput", "singles=65", "singles=65 is more than the 64 prompts"),
     ("throughput", "prompts=31", "prompts=31 are no batch of 16 for each of 2 workers: type batch=15, or prompts=32"),
     ("throughput", "prompts=1", "prompts=1 are no batch of 16 for each of 2 workers: type prompts=32"),
     ("throughput", "rounds=x", "rounds=x is no number of at least 1: type rounds=5")],
)  # fmt: skip
def test_a_size_that_is_none_is_refused(script, word, says):
    said = bench(script, word)
    assert said.returncode == 2 and says in said.stderr and len(said.stderr.splitlines()) == 1


def test_a_loaded_machine_is_refused_unless_it_is_forced(monkeypatch):
    monkeypatch.setattr(machine, "load_at_start", lambda: 3.0)
    with pytest.raises(SpectrumError, match=r"load average is 3\.00.*or type force=true"):
        machine.load_of_script({})
    assert machine.load_of_script({"force": "true"}) == 3.0 and machine.conditions(3.0).forced


def test_a_job_that_fails_shows_its_error(monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT / "scripts" / "bench")
    with pytest.raises(SpectrumError, match="the job with prompts=0 ended with exit code 2: see its error above"):
        importlib.import_module("scale").job_apart(0)
    assert "job=0 is no list of multiples of 1" in capsys.readouterr().err
