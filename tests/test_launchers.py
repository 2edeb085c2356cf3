"""Sweeps on every launcher, and jobs that ask for the same thing at once."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
QUICK = ["model.steps=8", "prompts.limit=2", "probe=0", "timing=0"]
PLUGINS = {
    "basic": "hydra",
    "joblib": "hydra_plugins.hydra_joblib_launcher",
    "submitit_local": "hydra_plugins.hydra_submitit_launcher",
    "ray": "hydra_plugins.hydra_ray_launcher",
}


def start(*words):
    return subprocess.Popen([sys.executable, "run.py", *words], cwd=ROOT, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)  # fmt: skip


def stored(folder):
    return {path.name: json.loads(path.read_text()) for path in folder.glob("*.json")}


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
    records = stored(tmp_path / "r")
    assert sorted(r["method"]["name"] for r in records.values()) == ["fewer_steps", "fora"]
    (table,) = (tmp_path / "o" / "multirun").rglob("comparison.md")
    assert len(table.read_text().splitlines()) == 4 and (table.parent / "sheet.png").exists()
    assert len(list((tmp_path / "o" / "tiny").glob("none-*"))) == 1
    assert "comparison:" in out


def test_two_processes_asked_for_the_same_run_share_it(tmp_path):
    words = ["method=fora", *QUICK, f"out={tmp_path}/o", f"records={tmp_path}/r"]
    jobs = [start(*words) for _ in range(2)]
    said = [job.communicate(timeout=500) for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], said
    assert len(stored(tmp_path / "r")) == 1
    assert not list(tmp_path.rglob(".draft-*"))
    for ledger in (tmp_path / "o").rglob("samples.jsonl"):
        assert len(ledger.read_text().splitlines()) == 2
    assert sorted("sample steps" in out for out, _ in said) == [False, True], "the second found the first one's record"


def test_what_has_a_record_is_not_sampled_again(tmp_path):
    words = ["method=fora", *QUICK, f"out={tmp_path}/o", f"records={tmp_path}/r"]
    assert start(*words).communicate(timeout=300) and len(stored(tmp_path / "r")) == 1
    (path,) = (tmp_path / "r").glob("*.json")
    before = path.stat().st_mtime_ns, path.read_text()
    job = start(*words, f"out={tmp_path}/elsewhere")
    _, err = job.communicate(timeout=300)
    assert job.returncode == 0, err
    assert path.read_text() == before[1] and not list((tmp_path / "elsewhere").rglob("*.png"))
    job = start(*words, "fresh=[metrics]", f"out={tmp_path}/o")
    assert job.communicate(timeout=300) and stored(tmp_path / "r")[path.name]["metrics"].keys() == {"psnr", "ssim"}
