"""Bad input: one clear line, the right exit code, nothing half-written."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from spectrum import files
from spectrum.config import build_method, compose
from spectrum.main import guarded
from spectrum.pipeline import EMBEDDED

ROOT = Path(__file__).resolve().parent.parent
QUICK = ["model.steps=7", "batch=2", "prompts.limit=2", "timing=0", "probe=0"]


def call(script, *words, capsys):
    """Exit code and standard error of a command, run in this process."""
    import importlib.util

    path = ROOT / script
    spec = importlib.util.spec_from_file_location(path.stem + "_command", path)
    module = importlib.util.module_from_spec(spec)
    argv, sys.argv = sys.argv, [str(path), *words]
    try:
        os.environ["HYDRA_FULL_ERROR"] = "1"
        spec.loader.exec_module(module)
        code = guarded(module.main)
    except SystemExit as stop:
        code = stop.code
    finally:
        sys.argv = argv
        GlobalHydra.instance().clear()
    return code, capsys.readouterr()


def one_line(text):
    lines = [line for line in text.splitlines() if line.strip()]
    assert len(lines) == 1, text
    return lines[0]


BAD = [
    (["method.degre=3"], "did you mean method.degree?"),
    (["modle.steps=3"], "did you mean model.steps?"),
    (["model.stepz=3"], "did you mean model.steps?"),
    (["stepz=3"], "no key stepz"),
    (["method=specrum"], "there is no method=specrum; there are"),
    (["schedule=explicit"], "must start with step 0"),
    (["schedule=explicit", "schedule.run_steps=[3,4]"], "must start with step 0"),
    (["schedule=explicit", "schedule.run_steps=[0,3,2]"], "must ascend without repeats, got [0, 3, 2]"),
    (["schedule=explicit", "schedule.run_steps=[0,3,7]"], "the steps of this run are 0 to 6"),
    (["schedule.growth=-1"], "schedule.growth must be at least 0"),
    (["schedule.growth=nan"], "schedule.growth must be finite"),
    (["method.ridge=-0.5"], "method.ridge must be at least 0"),
    (["method.blend=nan"], "method.blend must be finite"),
    (["method.degree=9"], "schedule.warmup=10"),
    (["method=taylorseer", "method.order=-1"], "method.order must be at least 0"),
    (["method=fora", "schedule.interval=0"], "schedule.interval must be at least 1"),
    (["method=fora", "runs=13"], "cannot run exactly 13 of 7 steps"),
    (["method=none", "schedule=growing_window"], "cannot skip a step"),
    (["method=fora", "schedule=accumulated_distance", "schedule.threshold=0.1"], "measures no drift"),
    (["method.space=latent"], "type one of feature, residual"),
    (["method.clock=noon"], "type one of step, timestep, sigma"),
    (["model.steps=0"], "model.steps must be at least 1"),
    (["model.steps=-3"], "model.steps must be at least 1"),
    (["batch=0"], "batch must be at least 1"),
    (["seeds=[]"], "seeds is empty"),
    (["prompts.file=nowhere.txt"], "no prompt file nowhere.txt"),
    (["prompts=nowhere"], "there is no prompts=nowhere"),
    (["prompts=inline", "prompts.text=['a cat','']"], "prompt 1 is empty"),
    (["prompts=inline"], "there are no prompts"),
    (["device=cuda:7"], "type device=cpu"),
    (["model.dtype=float8"], "model.dtype=float8 is unknown"),
    (["method=fewer_steps"], "method.steps=14 must be at most model.steps=7"),
    (["method=fewer_steps", "method.steps=5", "method.solver=Magic"], "no scheduler of diffusers"),
]


@pytest.mark.parametrize(("words", "says"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_bad_input_is_one_line(words, says, tmp_path, capsys):
    code, out = call("run.py", *QUICK, *words, f"out={tmp_path / 'out'}", capsys=capsys)
    assert code == 2
    line = one_line(out.err)
    assert line.startswith("error: ") and says in line
    assert not list(tmp_path.rglob("*.png")) and not list(tmp_path.rglob("record.json"))


def test_a_prompt_too_long_is_refused_and_one_with_slashes_is_not(tmp_path, capsys):
    long = tmp_path / "long.txt"
    long.write_text("a cat on blue\n" + "a very long cat " * 625 + "\n")
    code, out = call("run.py", *QUICK, f"prompts.file={long}", f"out={tmp_path / 'out'}", capsys=capsys)
    assert code == 2 and "prompt 1 has" in one_line(out.err)
    text = "prompts.text=['a cat/../on blue']"
    code, out = call("run.py", *QUICK, "prompts=inline", text, f"out={tmp_path / 'out'}", capsys=capsys)
    assert code == 0 and {p.name for p in tmp_path.rglob("0*.png")} == {"00000-s0.png"}


def test_an_unwritable_output_folder(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    code, out = call("run.py", *QUICK, f"out={tmp_path / 'file'}", capsys=capsys)
    assert code == 2 and "cannot be written to" in one_line(out.err)


def test_damaged_weights(tmp_path, capsys):
    folder = tmp_path / "tiny"
    shutil.copytree(EMBEDDED, folder)
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 255
    weights.write_bytes(data)
    words = [*QUICK, f"model.weights={folder}", f"out={tmp_path / 'out'}"]
    code, out = call("run.py", *words, capsys=capsys)
    assert code == 2 and "do not match their digest" in one_line(out.err)
    (folder / "digest.json").unlink()
    weights.write_bytes(data[:1000])
    code, out = call("run.py", *words, f"out={tmp_path / 'other'}", capsys=capsys)
    assert code == 2 and "cannot be loaded" in one_line(out.err)
    assert not list(tmp_path.rglob("*.png"))


def test_a_full_disk_keeps_what_was_finished(tmp_path):
    """A file size limit stands for the disk: pictures fit, the record does not."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    words = [*QUICK, f"out={tmp_path}", "batch=1"]
    ran = subprocess.run(
        [sys.executable, "run.py", *words], cwd=ROOT, preexec_fn=limit, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 3 and "File too large" in one_line(ran.stderr)
    assert len(list(tmp_path.rglob("0*.png"))) == 4 and not list(tmp_path.rglob(".draft-*"))
    assert (
        subprocess.run([sys.executable, "run.py", *words], cwd=ROOT, capture_output=True, check=False).returncode == 0
    )


def test_ctrl_c_is_one_line_and_leaves_no_record(tmp_path):
    words = ["prompts.limit=40", "batch=1", "timing=0", f"out={tmp_path}"]
    process = subprocess.Popen(
        [sys.executable, "run.py", *words],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    try:
        deadline = time.time() + 120
        while time.time() < deadline and not list(tmp_path.rglob("0*.png")):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130 and "the same command goes on" in one_line(err)
    assert not list(tmp_path.rglob("record.json"))


def test_flux_without_weights_says_what_to_do(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    code, out = call("run.py", "model=flux", f"out={tmp_path / 'out'}", capsys=capsys)
    line = one_line(out.err)
    assert code == 2
    for part in ("FLUX.1-dev", "https://huggingface.co/black-forest-labs/FLUX.1-dev", "hf auth login", "GB", "License"):
        assert part in line


def test_plan_as_json(capsys):
    code, out = call("scripts/plan.py", "model=flux", "schedule.growth=3.0", "format=json", capsys=capsys)
    found = json.loads(out.out)
    assert code == 0 and found["nfe"] == 10 and found["run_steps"] == [0, 1, 2, 3, 4, 6, 11, 19, 30, 44]
    assert len(found["weights"]) == 40 and found["cache_bytes"] == 10 * 4096 * 3072 * 2
    assert sum(found["weights"]["43"]) == pytest.approx(0.65363, abs=1e-5)
    code, out = call("scripts/plan.py", "model=flux", "schedule.growth=3.0", capsys=capsys)
    assert code == 0 and "0.6536" in out.out and "251,658,240 bytes" in out.out
    code, out = call("scripts/plan.py", "format=xml", capsys=capsys)
    assert code == 2 and "format=text" in one_line(out.err)


def choices(group):
    return files.names(group)


@pytest.mark.parametrize("model", choices("model"))
@pytest.mark.parametrize("method", choices("method"))
def test_every_config_composes_into_a_method(model, method):
    config = compose([f"model={model}", f"method={method}"])
    fitted = {"teacache": {"coefficients": [1.0, 0.0], "threshold": 0.1}, "magcache": {"ratios": [1.0, 1.1]}}
    assert build_method(config.method, config.schedule, fitted).name == method


@pytest.mark.parametrize("schedule", choices("schedule"))
@pytest.mark.parametrize("method", ["spectrum", "fora", "taylorseer", "teacache"])
def test_every_schedule_overrides_a_methods_own(method, schedule):
    words = [f"method={method}", f"schedule={schedule}"]
    if schedule == "explicit":
        words.append("schedule.run_steps=[0,1,2,3,4,9]")
    config = compose(words)
    own = "fixed_interval" if schedule == "fixed_interval_from_end" else schedule
    assert config.schedule["function"] == f"spectrum.schedule.{own}"
    if method == "teacache" or schedule != "accumulated_distance":
        fitted = {"coefficients": [1.0], "threshold": 0.1, "ratios": [1.0, 1.1]}
        build_method(config.method, config.schedule, {method: fitted})


@pytest.mark.parametrize("prompts", choices("prompts"))
def test_every_prompt_list_composes(prompts):
    assert compose([f"prompts={prompts}"]).prompts is not None


@pytest.mark.parametrize(("runs", "methods"), [(14, 3), (10, 3)])
def test_runs_finds_each_schedules_parameter(runs, methods):
    from spectrum.method import plan_method
    from spectrum.prepare import resolve

    for method in ("spectrum", "fora", "taylorseer")[:methods]:
        _, ready = resolve(compose([f"method={method}", f"runs={runs}"]))
        assert plan_method(ready, 50).nfe == runs
    config, _ = resolve(compose(["method=fewer_steps", f"runs={runs}"]))
    assert config.method["steps"] == runs


def test_a_multirun_ends_with_one_comparison(tmp_path, capsys):
    words = [
        *QUICK,
        "model.steps=15",
        "method=none,fewer_steps,spectrum,fora",
        f"out={tmp_path}",
        f"records={tmp_path}/r",
    ]
    code, out = call("run.py", "--multirun", *words, "probe=1", capsys=capsys)
    assert code == 0, out.err
    (table,) = tmp_path.rglob("comparison.md")
    rows = [line.split("|")[1].split()[0] for line in table.read_text().splitlines()[2:]]
    assert rows[0] == "none" and sorted(rows) == ["fewer_steps", "fora", "none", "spectrum"]
    assert len([p for p in (tmp_path / "tiny").glob("none-*")]) == 1 and len(list((tmp_path / "r").glob("*.json"))) == 4
    assert (table.parent / "sheet.png").stat().st_size > 10_000
    record = json.loads(next((tmp_path / "r").glob("spectrum-*.json")).read_text())
    assert record["runs"] == {key: [0, 1, 2, 3, 4, 6, 8, 11] for key in ["cond", "uncond"]}
    assert record["cache_bytes"]["predicted_per_sample"] == record["cache_bytes"]["seen_per_sample"] > 0
    assert {e["step"] for e in record["forecast_errors"]["cond"]} == {5, 7, 9, 10, 12, 13, 14}


def test_the_tables_follow_from_the_records(capsys):
    code, out = call("scripts/tables.py", "--check", capsys=capsys)
    assert code == 0, out.err
