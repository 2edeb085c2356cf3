"""Mirrors of records, read back: a multirun's offline W&B runs, and its TensorBoard event files."""

import json
import struct

import pytest
from typed import typed

from spectrum.records.record import read_record

QUICK = ["model.steps=8", "prompts.limit=2", "probe=1", "timing=1"]
SWEEP = ["--multirun", "method=fora,spectrum", *QUICK]
BLOCK, HEADER = 32768, 7


def command(*words, **environment):
    return typed("run.py", *words, WANDB_SILENT="true", **environment)


def wandb_records(path):
    """The protocol records of a .wandb file, which is a LevelDB log behind a header of seven bytes."""
    pb = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    data, at, parts = path.read_bytes(), HEADER, []
    while at + HEADER <= len(data):
        left = BLOCK - at % BLOCK
        if left < HEADER:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + HEADER])
        at += HEADER
        parts.append(data[at : at + length])
        at += length
        if kind in (1, 4):
            yield pb.Record.FromString(b"".join(parts))
            parts = []


def read_run(folder):
    """(group, job type, config, summary and history values) of an offline run's folder."""
    about, values, config = None, {}, {}
    for record in wandb_records(next(folder.glob("*.wandb"))):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            about = record.run
            config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif kind in ("history", "summary"):
            items = record.history.item if kind == "history" else record.summary.update
            values |= {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
    return about, config, values


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    pytest.importorskip("wandb")
    out = tmp_path_factory.mktemp("wandb")
    folders = {f"WANDB_{name}_DIR": str(out / name.lower()) for name in ("DATA", "CACHE", "CONFIG")}
    ran = command(*SWEEP, "logger=wandb", f"out={out}", WANDB_DIR=str(out), **folders)
    assert ran.code == 0, ran.err
    runs = {f.name: read_run(f) for f in (out / "wandb").glob("offline-run-*") if f.is_dir()}
    return out, runs


def stored(out):
    found = [read_record(path) for path in (out / "tiny").glob("*/record.json")]
    return {record.name: record for record in found}


def test_a_multirun_is_one_group_of_runs_and_a_comparison(offline):
    out, runs = offline
    kinds = sorted((about.job_type, about.display_name.split(" ")[0]) for about, _, _ in runs.values())
    assert kinds == [("comparison", "comparison"), ("run", "fora"), ("run", "spectrum")]
    (multirun,) = (out / "multirun").iterdir()
    assert {about.run_group for about, _, _ in runs.values()} == {multirun.name}


@pytest.mark.parametrize("method", ["fora", "spectrum"])
def test_config_metrics_images_and_tables_are_the_records(offline, method):
    out, runs = offline
    record = stored(out)[method]
    (name,) = [n for n, (about, config, _) in runs.items() if config.get("record") == record.id]
    _, config, values = runs[name]
    assert config["method"] == record.method and config["schedule"] == record.schedule
    assert values["psnr"] == pytest.approx(record.metrics["psnr"].mean)
    assert values["speedup"] == pytest.approx(record.timing.speedup) and values["nfe"] == record.nfe
    files = out / "wandb" / name / "files"
    for picture in ("sheet", "timeline", "error"):
        image = files / values[f"{picture}/path"]
        assert image.read_bytes() == (out / "tiny" / record.id / f"{picture}.png").read_bytes()
    table = json.loads((files / values["samples/path"]).read_text())
    assert table["columns"] == ["prompt", "seed", "psnr", "ssim"]
    assert [row[:2] for row in table["data"]] == [[prompt, 0] for prompt in record.prompts] and len(table["data"]) == 2
    assert [row[2] for row in table["data"]] == pytest.approx(record.metrics["psnr"].values)
    latency = json.loads((files / values["latency/path"]).read_text())
    assert latency["data"][0][1] == pytest.approx(record.timing.rounds[0].candidate["denoise"])


def test_the_comparison_run_holds_the_table(offline):
    out, runs = offline
    (name,) = [n for n, (about, _, _) in runs.items() if about.job_type == "comparison"]
    values = runs[name][2]
    table = json.loads((out / "wandb" / name / "files" / values["comparison/path"]).read_text())
    assert table["columns"][0] == "method" and {row[0].split(" ")[0] for row in table["data"]} == {"fora", "spectrum"}
    assert (out / "wandb" / name / "files" / values["sheet/path"]).exists()


def test_online_without_a_key_is_refused_before_sampling(tmp_path):
    pytest.importorskip("wandb")
    nobody = {"HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc"), "WANDB_API_KEY": ""}
    ran = command(*QUICK, "logger=wandb", "logger.mode=online", f"out={tmp_path}", **nobody)
    assert ran.code == 2 and "wandb login" in ran.err and len(ran.err.strip().splitlines()) == 1
    assert not list(tmp_path.rglob("*.png"))


def test_tensorboard_holds_the_same_numbers(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    ran = command("method=fora", *QUICK, "logger=tensorboard", f"out={tmp_path}")
    assert ran.code == 0, ran.err
    record = stored(tmp_path)["fora"]
    found = events.EventAccumulator(str(tmp_path / "tensorboard" / "runs" / record.id))
    found.Reload()
    assert found.Scalars("psnr")[0].value == pytest.approx(record.metrics["psnr"].mean, rel=1e-6)
    assert set(found.Tags()["images"]) == {"sheet", "timeline", "error"}
