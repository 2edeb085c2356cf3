"""One job shared by several processes: the same bytes as from one, also when some or all of them are killed."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from command import call, error_line
from typed import typed

from spectrum.bench import workers
from spectrum.bench.ledger import PARTS
from spectrum.bench.workers import Worker, in_turn, launched_worker, on_own_device, worker_of
from spectrum.config.compose import compose
from spectrum.core.errors import SpectrumError

ROOT = Path(__file__).resolve().parent.parent
JOB = ["method=fora", "schedule.interval=3", "model.steps=6", "batch=1", "prompts.limit=8", "timing=0", "probe=0"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1",
              "--mixed_precision", "no", "--dynamo_backend", "no"]  # fmt: skip
OF_A_PROCESS = ("command", "digest", "timing")
"""What a record says of the process that wrote it."""


def start(out, *launcher, **variables):
    """Start the job, by a launcher or alone."""
    words = [*(launcher or [sys.executable]), "run.py", *JOB, f"out={out}"]
    return subprocess.Popen(words, cwd=ROOT, env={**os.environ, **variables}, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, start_new_session=True)  # fmt: skip


def ended(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


def made(out):
    """All files of samples by name, and the records without what they say of a process."""
    files = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    kept = {name: content for name, content in files.items() if "/images/" in name or name.endswith("samples.jsonl")}
    records = [json.loads(content) for name, content in files.items() if name.endswith("record.json")]
    assert not [name for name in files if PARTS in name or ".claims" in name or ".draft" in name]
    return kept, [{key: value for key, value in record.items() if key not in OF_A_PROCESS} for record in records]


def wait_for(out, count):
    """Wait until so many samples are in the ledgers of processes at work."""
    until = time.time() + 120
    while time.time() < until:
        lines = [path.read_text().count('"sha256"') for path in out.rglob(f"{PARTS}/*.jsonl")]
        if sum(lines) >= count:
            return
        time.sleep(0.02)
    raise TimeoutError(f"{out} has no {count} samples")


def kill(process):
    """Kill a launcher and all that it started."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for pid in (process.pid, *map(int, children)):
        os.kill(pid, signal.SIGKILL)
    process.communicate()


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    out = tmp_path_factory.mktemp("alone")
    said = typed("run.py", *JOB, f"out={out}")
    assert said.code == 0, said.err
    samples, records = made(out)
    assert len(samples) == 18 and len(records) == 1
    return samples, records, table(said.out)


def table(said):
    return re.findall(r"^ fora.*$", said, re.MULTILINE)


def test_two_workers_give_the_bytes_of_one_process(alone, tmp_path):
    said = ended(start(tmp_path, *TORCHRUN, "--nproc-per-node", "2"))
    assert (*made(tmp_path), table(said)) == alone, "worker 0 alone prints the table"
    assert len(alone[2]) == 1


@pytest.mark.parametrize("then", [1, 3])
def test_workers_that_were_killed_are_followed_by_another_number_of_them(alone, tmp_path, then):
    killed = start(tmp_path, *TORCHRUN, "--nproc-per-node", "2")
    wait_for(tmp_path, 3)
    kill(killed)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.rglob("none-*/images/*.png")}
    assert len(before) >= 3 and not list(tmp_path.rglob("record.json"))
    lines = "".join(path.read_text() for path in tmp_path.rglob(f"{PARTS}/*.jsonl"))
    noted = [name for name in before if name in lines]
    launcher = [*TORCHRUN, "--nproc-per-node", str(then)] if then > 1 else []
    said = ended(start(tmp_path, *launcher))
    assert (*made(tmp_path), table(said)) == alone
    kept = {path.name: path.stat().st_mtime_ns for path in tmp_path.rglob("none-*/images/*.png")}
    assert len(noted) >= 3 and all(kept[name] == before[name] for name in noted), "what was noted is not made again"


def test_those_who_live_make_the_share_of_a_worker_that_was_killed(alone, tmp_path):
    both = [start(tmp_path, RANK=str(rank), WORLD_SIZE="2") for rank in range(2)]
    wait_for(tmp_path, 2)
    both[1].kill()
    said = ended(both[0])
    both[1].communicate()
    assert (*made(tmp_path), table(said)) == alone


def test_the_others_make_all_samples_where_the_first_is_killed(alone, tmp_path):
    both = [start(tmp_path, SLURM_PROCID=str(rank), SLURM_STEP_NUM_TASKS="2") for rank in range(2)]
    wait_for(tmp_path, 2)
    both[0].kill()
    both[0].communicate()
    assert ended(both[1]) == ""
    assert made(tmp_path) == (alone[0], [])
    said = typed("run.py", *JOB, f"out={tmp_path}")
    assert said.code == 0 and (*made(tmp_path), table(said.out)) == alone


def test_accelerate_launches_workers(alone, tmp_path):
    said = ended(start(tmp_path, *ACCELERATE, "--num_processes", "2"))
    assert (*made(tmp_path), table(said)) == alone


def test_workers_started_one_by_one_are_numbered_by_keys(alone, tmp_path):
    said = typed("run.py", *JOB, f"out={tmp_path}", "worker=1", "workers=2")
    assert said == (0, "", "")
    assert made(tmp_path) == (alone[0], []), "a worker whose fellows never come makes all samples, and no record"
    said = typed("run.py", *JOB, f"out={tmp_path}", "worker=0", "workers=2")
    assert said.code == 0 and (*made(tmp_path), table(said.out)) == alone


def test_a_sweep_of_two_workers_has_one_table(tmp_path):
    words = ["--multirun", "method=fora,fewer_steps", "runs=4", "model.steps=8", "prompts.limit=2", "batch=1"]
    words += ["timing=0", "probe=0", f"out={tmp_path}"]
    said = subprocess.run([*TORCHRUN, "--nproc-per-node", "2", "run.py", *words], cwd=ROOT, capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert said.returncode == 0, said.stderr
    (sweep,) = (tmp_path / "multirun").iterdir()
    assert len(list(sweep.rglob("comparison.csv"))) == 1 and said.stdout.count("comparison:") == 1
    assert sorted(path.name for path in (sweep / "jobs").iterdir()) == ["0.json", "1.json"]
    assert len(list(tmp_path.rglob("record.json"))) == 2


def test_each_batch_is_in_the_turn_of_every_worker_and_begins_one_share():
    turns = [in_turn(range(11), Worker(number, 3)) for number in range(3)]
    assert all(sorted(turn) == list(range(11)) for turn in turns)
    assert turns[0] == [0, 3, 6, 9, 10, 8, 7, 5, 4, 2, 1]
    assert sorted(turns[0][:4] + turns[1][:4] + turns[2][:3]) == list(range(11))
    assert in_turn([0, 1], Worker(4, 5)) == [1, 0]


def test_the_environment_says_which_worker_this_is():
    torchrun = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}
    assert launched_worker(environment=torchrun) == Worker(3, 4, 1, launched=True)
    srun = {"SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "0", "SLURM_NTASKS": "4"}
    assert launched_worker(environment=srun) == Worker(2, 4, 0, launched=True)
    assert launched_worker(environment={**srun, **torchrun}).number == 3, "torchrun in each task of srun"
    sbatch = {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0"}
    assert launched_worker(environment=sbatch).count == 1, "the batch script itself is one process"
    assert launched_worker(environment={**srun, "RANK": "0", "WORLD_SIZE": "1"}).number == 2
    ray = "hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher"
    assert launched_worker(ray, srun) == workers.ALONE, "Ray's processes inherit what srun gave the one that began it"
    submitit = "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher"
    assert launched_worker(submitit, srun).number == 2


@pytest.mark.parametrize(
    ("variables", "says"),
    [({"RANK": "4", "WORLD_SIZE": "4"}, "RANK=4 is not below WORLD_SIZE=4"),
     ({"RANK": "one", "WORLD_SIZE": "4"}, "RANK=one in the environment is no number")],
)  # fmt: skip
def test_an_environment_that_cannot_be_is_refused(variables, says, monkeypatch, tmp_path, capsys):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert says in error_line(call("run", *JOB, f"out={tmp_path}", capsys=capsys))


@pytest.mark.parametrize(
    ("words", "says"),
    [(["workers=2"], "worker= and workers= go together"), (["worker=0"], "worker= and workers= go together"),
     (["worker=2", "workers=2"], "workers are numbered 0 to workers - 1"),
     (["worker=0", "workers=2", "redo=samples"], "redo=[samples] goes with one process"),
     (["worker=1", "workers=2", "seeds=[-1]"], "seeds")],
)  # fmt: skip
def test_keys_that_cannot_be_are_refused(words, says, tmp_path, capsys):
    assert says in error_line(call("run", *JOB, *words, f"out={tmp_path}", capsys=capsys))


def test_what_does_not_go_with_workers_of_a_launcher_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    words = [*JOB, f"out={tmp_path}"]
    assert "started one by one" in error_line(call("run", *words, "worker=0", "workers=2", capsys=capsys))
    ray = error_line(call("run", "--multirun", *words, "hydra/launcher=joblib", capsys=capsys))
    assert "hydra/launcher=joblib starts processes, and so did torchrun or srun" in ray
    with pytest.raises(SpectrumError, match="type timing=0, and time the sweep afterwards"):
        worker_of(compose(["timing=3"]), sweep=True)
    assert worker_of(compose(["timing=3"])).number == 1
    bad = error_line(call("run", *words, "batch=0", capsys=capsys))
    assert bad.startswith("error: worker 1 of 2: batch"), "each worker says which one it is"


@pytest.mark.parametrize(("count", "devices"), [(4, ["cuda:0", "cuda:1", "cuda:0"]), (1, ["auto"] * 3)])
def test_each_worker_has_an_accelerator_of_its_own(count, devices, monkeypatch):
    found = []
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: min(count, 2))
    monkeypatch.setattr(torch.accelerator, "set_device_index", found.append)
    config = compose(["device=auto"])
    of_three = [Worker(5 + local, 9, local, launched=True) for local in range(3)]
    assert [on_own_device(config, worker).device for worker in of_three] == devices
    assert found == [int(device[-1]) for device in devices if device != "auto"]
    assert on_own_device(compose(["device=cpu"]), of_three[1]).device == "cpu"
    assert on_own_device(config, workers.ALONE).device == "auto"
