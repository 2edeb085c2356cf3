"""Sweeps on launchers that start processes (Hydra's own is in tests/test_cli.py), and jobs of the same run."""

import dataclasses
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from typed import typed

from spectrum.records.record import read_record, read_records, write_record

ROOT = Path(__file__).resolve().parent.parent
QUICK = ["model.steps=8", "prompts.limit=2", "probe=0", "timing=0"]
PLUGINS = {
    "joblib": "hydra_plugins.hydra_joblib_launcher",
    "submitit_local": "hydra_plugins.hydra_submitit_launcher",
    "ray": "hydra_plugins.hydra_ray_launcher",
}


def start(*words, python=()):
    return subprocess.Popen([sys.executable, *python, "run.py", *words], cwd=ROOT, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)  # fmt: skip


def installed(module):
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize("launcher", PLUGINS)
def test_a_sweep_ends_with_one_comparison(launcher, tmp_path):
    if not installed(PLUGINS[launcher]):
        pytest.skip(f"{PLUGINS[launcher]} is not installed")
    words = ["--multirun", f"hydra/launcher={launcher}", "method=fora,fewer_steps", "runs=4", *QUICK]
    job = start(*words, f"out={tmp_path}/o", f"records={tmp_path}/r")
    out, err = job.communicate(timeout=500)
    assert job.returncode == 0, err
    assert sorted(record.name for record in read_records(tmp_path / "r")) == ["fewer_steps", "fora", "none"]
    (table,) = (tmp_path / "o" / "multirun").rglob("comparison.md")
    assert len(table.read_text().splitlines()) == 4 and (table.parent / "sheet.png").exists()
    assert len(list((tmp_path / "o" / "tiny").glob("none-*"))) == 1
    assert "comparison:" in out


def test_two_processes_asked_for_the_same_run_share_it(tmp_path):
    words = ["method=fora", *QUICK, f"out={tmp_path}/o", f"records={tmp_path}/r"]
    jobs = [start(*words, python=["-X", "importtime"]) for _ in range(2)]
    said = [job.communicate(timeout=500) for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], said
    assert sorted(record.name for record in read_records(tmp_path / "r")) == ["fora", "none"]
    assert not list(tmp_path.rglob(".draft-*"))
    ledgers = list((tmp_path / "o").rglob("samples.jsonl"))
    assert [len(ledger.read_text().splitlines()) for ledger in ledgers] == [2, 2]
    loaded = ["diffusers.models.transformers.transformer_flux" in imports for _, imports in said]
    assert sorted(loaded) == [False, True], "the process that came second loads no model: it finds the record"


def test_what_has_a_record_is_not_sampled_again(tmp_path):
    words = ["run.py", "method=fora", *QUICK, f"out={tmp_path}/o", f"records={tmp_path}/r"]
    assert typed(*words).code == 0
    (path,) = (tmp_path / "r").glob("fora-*.json")
    before = path.read_text()
    assert typed(*words, f"out={tmp_path}/elsewhere").code == 0
    assert path.read_text() == before and not list((tmp_path / "elsewhere").rglob("*.png"))
    record = read_record(path)
    wrong = {name: dataclasses.replace(entry, mean=1.0) for name, entry in record.metrics.items()}
    write_record(path, dataclasses.replace(record, metrics=wrong))
    assert typed(*words, "redo=[metrics]").code == 0
    assert read_record(path).metrics == record.metrics
