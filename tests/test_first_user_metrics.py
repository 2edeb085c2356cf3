"""What a metric that cannot be computed costs a first user, what its progress shows, and what a failed check leaves."""

import functools
import io
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from command import QUICK, call, error_line
from rich.console import Console

from eval.metrics.measure import measure
from eval.metrics.pictures import Pictures
from eval.tables.comparison import comparison_csv
from spectrum.bench import machine
from spectrum.bench.loggers import per_sample, scalars
from spectrum.bench.progress import Progress
from spectrum.records.record import read_record

ROOT = Path(__file__).resolve().parent.parent


def record_in(folder):
    (path,) = [path for path in folder.glob("tiny/*/record.json") if not path.parent.name.startswith("none-")]
    return json.loads(path.read_text())


def test_one_picture_leaves_only_the_metrics_out_that_need_two(tmp_path, capsys):
    pytest.importorskip("timm")
    said = call("run", *QUICK, "prompts.limit=1", "eval=table", f"out={tmp_path}", capsys=capsys)
    assert said.code == 0, said.err
    record = record_in(tmp_path)
    reason = (
        "frechet_lite0 needs two pictures or more on either side, and there are 1 and 1: sample more prompts or seeds"
    )
    assert record["left_out"]["frechet_lite0"] == reason and {"psnr", "ssim"} <= record["metrics"].keys()
    assert f"frechet_lite0 is left out: {reason}" in " ".join(said.out.split())


def test_three_seeds_give_metrics_of_a_prompt_and_every_reader_of_the_record_copes(tmp_path, capsys):
    for package in ("timm", "open_clip"):
        pytest.importorskip(package)
    words = ["seeds=[0,1,2]", "method=fora", "schedule.interval=3", "+eval.diversity={}", "+eval.seed_rank={}"]
    said = call("run", *QUICK, *words, f"out={tmp_path}", capsys=capsys)
    assert said.code == 0, said.err
    record = read_record(next(path for path in tmp_path.glob("tiny/fora-*/record.json")))
    assert len(record.metrics["psnr"].values) == 6
    for name in ("diversity", "seed_rank"):
        assert len(record.metrics[name].values) == 2 and record.metrics[name].interval > 0
    heads, rows = per_sample(record)
    assert heads == ["prompt", "seed", "psnr", "ssim"] and len(rows) == 6
    assert {"diversity", "seed_rank_worst_5_percent"} <= scalars(record).keys()
    assert "diversity_mean" in comparison_csv([record]).splitlines()[0]


@pytest.mark.parametrize(
    ("metric", "says"),
    [
        ("frechet_lite0={dimensions: 0}", "eval.frechet_lite0.dimensions must be at least 1, got 0"),
        ("diversity={seeds: 3}", "eval.diversity.seeds is no parameter of diversity: it takes none"),
        ("seed_rank={model: ViT-Z-1}", "eval.seed_rank.model=ViT-Z-1 is unknown to open_clip: type for example ViT-B"),
        ("lpips={net: squeeze}", "eval.lpips.net=squeeze is unknown: type alex or vgg"),
        ("st_lpips={net: squeeze}", "eval.st_lpips.net=squeeze is unknown: type alex or vgg"),
        ("lpips={weights: mine.pth}", "torchmetrics does not read eval.lpips.weights=mine.pth: copy the file to "),
        ("fid={weights: 3}", "eval.fid.weights must be text, got 3: type eval.fid.weights=NAME, or a path"),
        ("clip_score={model: null}", "eval.clip_score.model must be text, got None"),
        (
            "clip_score={model: ViT-Z-1}",
            "eval.clip_score.model=ViT-Z-1 is unknown to open_clip: type for example ViT-B",
        ),
        ("hpsv2={model: ViT-Z-1}", "eval.hpsv2.model=ViT-Z-1 is unknown to open_clip: type ViT-H-14"),
        (
            "vbench_quality={backbones: {subject: a.b}}",
            "eval.vbench_quality.backbones.subject is no dimension: type one",
        ),
        ("vbench_quality={results: no_such.json}", "no_such.json is missing: give the path of VBench's"),
    ],
)
def test_a_metrics_parameter_that_cannot_do_is_refused_before_anything_is_sampled(metric, says, tmp_path, capsys):
    if "Z-1" in metric:
        pytest.importorskip("open_clip")
    said = call("run", *QUICK, f"+eval.{metric}", f"out={tmp_path}", capsys=capsys)
    assert error_line(said).startswith(f"error: {says}")
    assert not list(tmp_path.iterdir())


def test_samples_and_timing_survive_an_error_in_a_metric(tmp_path, capsys, monkeypatch):
    for package in ("transformers", "torchvision"):
        pytest.importorskip(package)
    (tmp_path / "ImageReward.pt").write_bytes(b"torn")
    (tmp_path / "vocab.txt").write_text("[PAD]\n")
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    monkeypatch.setattr(machine, "cores_of_others", lambda: 0.0)
    machine.load_at_start.cache_clear()
    words = [*QUICK, "batch=1", "timing=7", f"out={tmp_path / 'out'}", f"records={tmp_path / 'records'}"]
    torn = f"+eval.image_reward={{checkpoint: {tmp_path / 'ImageReward.pt'}}}"
    said = call("run", *words, torn, capsys=capsys)
    assert "vocab.txt" in error_line(said)
    before = record_in(tmp_path / "out")
    assert before["samples"] == 2 and len(before["timing"]["rounds"]) == 7
    assert not list((tmp_path / "records").glob("*.json")), "what lacks its metrics is no result yet"
    assert call("run", *words, capsys=capsys).code == 0
    after = record_in(tmp_path / "out")
    assert after["timing"] == before["timing"] and after["metrics"].keys() == {"psnr", "ssim"}
    (shared,) = (path for path in (tmp_path / "records").glob("*.json") if not path.name.startswith("none-"))
    assert json.loads(shared.read_text()) == after


def test_a_terminal_shows_bars_of_the_metrics_that_are_computed_alone():
    printed, left_out = io.StringIO(), []
    own, other = (Pictures(torch.rand(5, 3, 16, 16)) for _ in range(2))
    wanted = {"psnr": {}, "ms_ssim": {}, "fid": {"weights": "no_such.pt"}, "ssim": {}}
    with Progress(Console(file=printed, force_terminal=True, width=100)) as progress:
        begin = functools.partial(progress.start, unit="pictures")
        measure(wanted, own, other, ["x"] * 5, ("a", "b"), left_out.append, begin)
    assert len(left_out) == 2 and left_out[0].startswith("ms_ssim") and left_out[1].startswith("fid")
    shown = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", printed.getvalue())
    for name in ("psnr", "ssim"):
        assert re.search(rf" {name} \S+ 5/5 pictures", shown)
    assert "ms_ssim" not in printed.getvalue() and "fid" not in printed.getvalue()


def test_pictures_that_are_read_after_a_metric_do_not_count_for_it():
    told = []
    own, other = (Pictures(torch.rand(5, 3, 16, 16)) for _ in range(2))
    measure({"psnr": {}}, own, other, ["x"] * 5, ("a", "b"), print, lambda name, total: told.append)
    assert sum(told) == 5
    list(own.batches(2))
    assert sum(told) == 5


def test_a_terminal_counts_the_frames_of_videos(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    words = ["model=wan21_1_3b", "model.weights=tiny", "model.steps=4", "prompts=examples", "prompts.limit=1"]
    said = call("run", *words, "method=fora", "timing=0", "probe=0", f"out={tmp_path}", capsys=capsys)
    assert said.code == 0, said.err
    assert "5/5" in said.out and "frames" in said.out and "pictures 0:" not in said.out


FAKE_PYTHON = """#!/bin/sh
mkdir -p "$3/bin"
printf '#!/bin/sh\\necho "$@" >> pip.log\\ncase "$3 $4" in *lowest*) exit 1;; esac\\n' > "$3/bin/pip"
printf '#!/bin/sh\\n' > "$3/bin/mkdocs"
chmod +x "$3/bin/pip" "$3/bin/mkdocs"
"""


TOOLS = ("ruff", "pyright", "lint-imports", "python")


def test_ci_pins_what_it_installs_and_removes_its_environments_after_a_failure(tmp_path):
    """`.ci/run` with stand-ins for the tools, where the lowest versions cannot be installed."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
    shutil.copy(ROOT / "requirements-dev.lock", tmp_path)
    (tmp_path / "README.md").write_text("<!-- tests -->\n```bash\npython3 -m venv .venv\n```\n")
    (tmp_path / "bin").mkdir()
    for path, content in [
        (tmp_path / "bin" / "python3", FAKE_PYTHON),
        *((tmp_path / ".venv" / "bin" / tool, "#!/bin/sh\n") for tool in TOOLS),
    ]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", ".ci/run"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    installed = (tmp_path / "pip.log").read_text().splitlines()  # at the same time
    marks = ("outputs/quantised", "requirements-docs.lock", "requirements-lowest.txt")
    quantised, docs, lowest = (line for mark in marks for line in installed if mark in line)
    (pinned,) = [line for line in (ROOT / "requirements-dev.lock").read_text().splitlines() if line[:8] == "pytest=="]
    assert all("==" in word for word in quantised.partition("outputs/quantised ")[2].split()) and "torchao" in quantised
    assert docs == "install -q -r requirements-docs.lock" and lowest.split()[-1] == pinned
    assert not list((tmp_path / "outputs").iterdir())
