"""Bad input: one clear line, the right exit code, nothing half-written."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest
from command import QUICK, ROOT, call, error_line
from typed import typed

from spectrum.bench.resolve import resolve
from spectrum.config.compose import compose
from spectrum.config.methods import build_method
from spectrum.config.reader import choices, group_file
from spectrum.core.method import plan_method
from spectrum.models.identity import EMBEDDED

BAD = [
    (["seeds=[1.5]"], "seeds must be a whole number, got 1.5"),
    (["device=meta"], "device=meta holds no numbers: type device=cpu"),
    (["model.weights="], "type model.weights=pretrained, random, tiny, or a folder of diffusers weights"),
    (["method.degre=3"], "did you mean method.forecast.degree?"),
    (["modle.steps=3"], "did you mean model.steps?"),
    (["model.stepz=3"], "did you mean model.steps?"),
    (["stepz=3"], "no key stepz"),
    (["method=specrum"], "did you mean method=spectrum? There are"),
    (["schedule=explicit"], "must start with step 0"),
    (["schedule=explicit", "schedule.run_steps=[3,4]"], "must start with step 0"),
    (["schedule=explicit", "schedule.run_steps=[0,3,2]"], "must ascend without repeats, got [0, 3, 2]"),
    (["schedule=explicit", "schedule.run_steps=[0,3,7]"], "the steps of this run are 0 to 6"),
    (["schedule.growth=-1"], "schedule.growth must be at least 0"),
    (["schedule.growth=nan"], "schedule.growth must be finite"),
    (["method.forecast.ridge=-0.5"], "method.forecast.ridge must be at least 0"),
    (["method.forecast.blend=nan"], "method.forecast.blend must be finite"),
    (["method=resilphase", "method.forecast.steepness=0"], "method.forecast.steepness must be at least 0.001"),
    (["method=resilphase", "method.forecast.steepness=abc"], "method.forecast.steepness must be a number"),
    (["method.forecast.degree=9"], "schedule.warmup=10"),
    (["method=taylorseer", "method.forecast.order=-1"], "method.forecast.order must be at least 0"),
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
    said = call("run", *QUICK, *words, f"out={tmp_path / 'out'}", capsys=capsys)
    assert says in error_line(said)
    assert not list(tmp_path.rglob("*.png")) and not list(tmp_path.rglob("record.json"))


def test_a_prompt_too_long_is_refused_and_one_with_slashes_is_not(tmp_path, capsys):
    long = tmp_path / "long.txt"
    long.write_text("a cat on blue\n" + "a very long cat " * 625 + "\n")
    said = call("run", *QUICK, f"prompts.file={long}", f"out={tmp_path / 'out'}", capsys=capsys)
    assert "prompt 1 has" in error_line(said)
    text = "prompts.text=['a cat/../on blue']"
    said = call("run", *QUICK, "prompts=inline", text, f"out={tmp_path / 'out'}", capsys=capsys)
    assert said.code == 0 and {p.name for p in tmp_path.rglob("0*.png")} == {"00000-s0.png"}


def test_an_unwritable_output_folder(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    said = call("run", *QUICK, f"out={tmp_path / 'file'}", capsys=capsys)
    assert "cannot be written to" in error_line(said)


def test_damaged_weights(tmp_path, capsys):
    folder = tmp_path / "tiny"
    shutil.copytree(EMBEDDED, folder)
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 255
    weights.write_bytes(data)
    words = [*QUICK, f"model.weights={folder}", f"out={tmp_path / 'out'}"]
    said = call("run", *words, capsys=capsys)
    assert "do not match their digest" in error_line(said)
    (folder / "digest.json").unlink()
    weights.write_bytes(data[:1000])
    said = call("run", *words, f"out={tmp_path / 'other'}", capsys=capsys)
    assert "cannot be loaded" in error_line(said)
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
    assert ran.returncode == 3 and "File too large" in ran.stderr and ran.stderr.count("\n") == 1
    assert len(list(tmp_path.rglob("0*.png"))) == 4 and not list(tmp_path.rglob(".draft-*"))
    assert typed("run.py", *words).code == 0


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
    assert process.returncode == 130 and "the same command goes on" in err
    assert not list(tmp_path.rglob("record.json"))


def test_flux_without_weights_says_what_to_do(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    said = call("run", "model=flux", f"out={tmp_path / 'out'}", capsys=capsys)
    line = error_line(said)
    for part in ("FLUX.1-dev", "https://huggingface.co/black-forest-labs/FLUX.1-dev", "hf auth login", "GB", "License"):
        assert part in line


def test_plan_as_json(capsys):
    said = call("plan", "model=flux", "schedule.growth=3.0", "format=json", capsys=capsys)
    found = json.loads(said.out)
    assert said.code == 0 and found["nfe"] == 10 and found["run_steps"] == [0, 1, 2, 3, 4, 6, 11, 19, 30, 44]
    assert len(found["weights"]) == 40 and found["cache_bytes"] == 10 * 4096 * 3072 * 2
    assert sum(found["weights"]["43"]) == pytest.approx(0.65363, abs=1e-5)
    said = call("plan", "model=flux", "schedule.growth=3.0", capsys=capsys)
    assert said.code == 0 and "0.6536" in said.out and "251,658,240 bytes" in said.out
    said = call("plan", "format=xml", capsys=capsys)
    assert "format=text" in error_line(said)


FITTED = {
    "planned": {"run_steps": [0, 1], "weights": {"": [[1.0], [1.0]]}},
    "teacache": {"coefficients": [1.0, 0.0], "threshold": 0.1},
    "magcache": {"ratios": [1.0, 1.1]},
}


def builds(method, *words):
    """The method that a command line describes, with what it needs fitted."""
    config = compose([f"method={method}", *words])
    return build_method(config.method, config.schedule, FITTED)


@pytest.mark.parametrize("method", choices("method"))
def test_every_method_composes(method):
    words = ["schedule.run_steps=[0,1]"] if method == "planned" else []
    assert builds(method, *words).name == method


@pytest.mark.parametrize("model", choices("model"))
def test_every_model_composes(model):
    config = compose([f"model={model}"]).model
    assert config.name == model and config.steps == group_file("model", model)["steps"]
    assert builds("spectrum", f"model={model}").time_only


@pytest.mark.parametrize("schedule", choices("schedule"))
@pytest.mark.parametrize("method", ["spectrum", "teacache"])
def test_every_schedule_takes_the_place_of_a_methods_own(method, schedule):
    words = {"explicit": ["schedule.run_steps=[0,1,2,3,4,9]"], "magnitude": ["schedule.ratios=[1.0,1.1]"]}
    words = [f"method={method}", f"schedule={schedule}", *words.get(schedule, [])]
    config = compose(words)
    assert config.schedule["_target_"] == group_file("schedule", schedule)["_target_"]
    if method == "teacache" or schedule != "accumulated_distance":
        assert builds(*words[0].split("=")[1:], *words[1:]).name == method


@pytest.mark.parametrize("prompts", choices("prompts"))
def test_every_prompt_list_composes(prompts):
    found = compose([f"prompts={prompts}"]).prompts
    assert found.text == [] if prompts == "inline" else found.file == f"{prompts}.txt"


@pytest.mark.parametrize(("runs", "methods"), [(14, 3), (10, 3)])
def test_runs_finds_each_schedules_parameter(runs, methods):
    for method in ("spectrum", "fora", "taylorseer")[:methods]:
        _, ready = resolve(compose([f"method={method}", f"runs={runs}"]))
        assert plan_method(ready, 50).nfe == runs
    config, _ = resolve(compose(["method=fewer_steps", f"runs={runs}"]))
    assert config.method.steps == runs


def test_a_multirun_ends_with_one_comparison(tmp_path, capsys):
    words = [
        *QUICK,
        "model.steps=15",
        "method=none,fewer_steps,spectrum,fora",
        f"out={tmp_path}",
        f"records={tmp_path}/r",
    ]
    said = call("run", "--multirun", *words, "probe=1", capsys=capsys)
    assert said.code == 0, said.err
    (table,) = tmp_path.rglob("comparison.md")
    rows = [line.split("|")[1].split()[0] for line in table.read_text().splitlines()[2:]]
    assert rows[0] == "none" and sorted(rows) == ["fewer_steps", "fora", "none", "spectrum"]
    assert len([p for p in (tmp_path / "tiny").glob("none-*")]) == 1 and len(list((tmp_path / "r").glob("*.json"))) == 4
    assert (table.parent / "sheet.png").stat().st_size > 10_000
    record = json.loads(next((tmp_path / "r").glob("spectrum-*.json")).read_text())
    assert record["command"].startswith("spectrum run --multirun model.steps=7 ")
    assert record["runs"] == {key: [0, 1, 2, 3, 4, 6, 8, 11] for key in ["cond", "uncond"]}
    assert record["cache_bytes"]["predicted_per_sample"] == record["cache_bytes"]["seen_per_sample"] > 0
    assert {e["step"] for e in record["forecast_errors"]["cond"]} == {5, 7, 9, 10, 12, 13, 14}


def test_the_tables_follow_from_the_records(capsys):
    said = call("tables", "--check", capsys=capsys)
    assert said.code == 0, said.err


def test_output_that_nobody_reads_to_its_end_is_no_defect():
    reading, writing = os.pipe()
    os.close(reading)
    words = [sys.executable, "scripts/plan.py"]
    ended = subprocess.run(words, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert ended.returncode in (1, 141) and ended.stderr == "", "1 where rich writes the output"
