"""What a run needs and this machine lacks: all of it is named at once, with its commands and places."""

import dataclasses
import json
import re

import pytest
from command import call, error_line
from web import empty_machine

from eval.metrics.files import metric_item, needed
from spectrum.bench.requirements import missing, missing_line
from spectrum.config.compose import compose
from spectrum.config.reader import group_file, group_files
from spectrum.models.sources import HubFiles, model_item

COMMIT = re.compile(r"[0-9a-f]{40}")
UNPINNED = {
    "animatediff", "bria", "cosmos2_image", "cosmos_video", "flux_control", "framepack", "hidream", "hunyuan_image",
    "hunyuan_video_i2v", "kandinsky5_image", "kandinsky5_video", "longcat", "ltx2", "ovis_image", "qwen_image_edit",
    "qwen_layered", "sana_sprint", "sana_video", "skyreels_v2", "svd", "wan_animate", "wan_vace",
}  # fmt: skip


@pytest.fixture
def empty(tmp_path, monkeypatch):
    return empty_machine(tmp_path, monkeypatch)


# what is here


def test_14_weights_that_broke_off_are_not_here(empty):
    source = HubFiles("org/model", "c" * 40, 1, "MIT", elsewhere=("text_encoder_4",))
    snapshot = empty / "hub" / "models--org--model" / "snapshots" / ("c" * 40)
    parts = {"transformer": ["diffusers", "X"], "scheduler": ["diffusers", "Y"], "image_encoder": [None, None]}
    files = {
        "model_index.json": json.dumps({"_class_name": "P", **parts, "text_encoder_4": ["transformers", "Z"]}),
        "scheduler/scheduler_config.json": "{}",
        "transformer/config.json": "{}",
        "transformer/m.safetensors.index.json": json.dumps(
            {"weight_map": {"a": "m-1-of-2.safetensors", "b": "m-2-of-2.safetensors"}}
        ),
        "transformer/m-1-of-2.safetensors": "",
        "transformer/m-2-of-2.safetensors": "",
    }
    for name, content in files.items():
        assert not source.here
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).write_text(content)
    assert source.here


def test_14_folders_that_a_model_takes_of_a_repository_are_here_when_all_of_them_are(empty):
    _, _, source = model_item(compose(["model=framepack"]).model).sources
    assert source.folders == ("image_encoder", "feature_extractor")
    source = dataclasses.replace(source, revision="c" * 40)
    snapshot = source.target / "snapshots" / ("c" * 40)
    for name in (
        "image_embedder/config.json",
        "image_encoder/config.json",
        "image_encoder/model.safetensors",
        "feature_extractor/preprocessor_config.json",
    ):
        assert not source.here
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).write_text("")
    assert source.here


def test_14_files_of_metrics_are_here_when_all_of_them_are(empty):
    item = metric_item("image_reward")
    for source in item.sources:
        assert not item.here
        folder = source.target / "snapshots" / str(source.revision)
        folder.mkdir(parents=True)
        (folder / source.allow[0]).write_text("")
    assert item.here


@pytest.mark.parametrize(
    ("metric", "parameters", "name"),
    [
        ("lpips", {"net": "alex", "weights": None}, "lpips"),
        ("lpips", {"net": "vgg"}, "lpips_vgg"),
        ("lpips", {"weights": "file"}, None),
        ("fid", {}, "fid"),
        ("kid", {}, "fid"),
        ("kid", {"weights": "file"}, None),
        ("image_reward", {"checkpoint": None}, "image_reward"),
        ("hpsv2", {"checkpoint": "file"}, None),
        ("vbench_quality", {"backbones": {}, "raft": None}, "raft"),
        ("vbench_quality", {"raft": "file"}, None),
        ("vbench_quality", {"backbones": {"dynamic_degree": "package.flow"}}, None),
        ("psnr", {}, None),
    ],
)
def test_14_what_a_metric_reads_depends_on_its_parameters(metric, parameters, name):
    assert needed(metric, parameters) == name


# what is named


def test_14_a_run_names_all_that_is_missing_at_once(empty, capsys):
    said = call("run", "model=flux", "prompts=drawbench", "eval=full", f"out={empty / 'out'}", capsys=capsys)
    line = error_line(said)
    start = line.partition(";")[0]
    for part in ("black-forest-labs/FLUX.1-dev", "drawbench", "lpips", "fid", "image_reward", "hpsv2"):
        assert part in start
    for name in ("flux", "drawbench", "lpips", "fid", "image_reward", "hpsv2"):
        assert f"scripts/fetch.py {name}, or" in line
    assert "scripts/fetch.py flux drawbench lpips fid image_reward hpsv2 (or spectrum fetch" in line
    for place in (
        "model.weights=FOLDER",
        "spectrum/prompts/drawbench.txt",
        "torch/checkpoints/alexnet",
        "checkpoint=FILE",
    ):
        assert place in line


def test_14_weights_alone_are_named_with_the_files_of_metrics(empty, capsys):
    said = call("run", "model=sdxl", "eval=video", "prompts.limit=1", f"out={empty / 'out'}", capsys=capsys)
    line = error_line(said)
    assert "scripts/fetch.py sdxl lpips raft" in line and "prompt list" not in line


def test_14_files_of_metrics_alone_stop_nothing(empty):
    config = compose(["eval=full"])
    assert [item.name for item in missing(config)] == ["lpips", "fid", "image_reward", "hpsv2"]
    assert missing_line(config) is None


def test_14_a_list_of_ones_own_is_not_missing(empty):
    place = empty / "spectrum" / "prompts"
    config = compose(["prompts=vbench"])
    assert "scripts/fetch.py vbench" in str(missing_line(config))
    place.mkdir(parents=True)
    (place / "vbench.txt").write_text("a cat\n")
    assert missing_line(config) is None
    assert missing_line(compose(["prompts=vbench", "prompts.file=other.txt"])) is None


# pins


@pytest.mark.parametrize(
    "model", [name for name, own in group_files("model").items() if not own["hub"].startswith("embedded")]
)
def test_14_every_model_is_pinned_or_known_not_to_be(model):
    item = model_item(compose([f"model={model}"]).model)
    assert item is not None
    pinned = [source.revision for source in item.sources]
    assert (pinned[0] is None) == (model in UNPINNED)
    assert all(COMMIT.fullmatch(str(revision)) for revision in pinned if revision is not None)
    assert all(source.licence and source.size_gb for source in item.sources)
    assert len(item.sources) == {"animatediff": 2, "hidream": 2, "framepack": 3}.get(model, 1)


@pytest.mark.parametrize("name", ["coco", "drawbench", "vbench"])
def test_14_every_prompt_list_is_pinned_by_commit_and_digest(name):
    about = group_file("prompts", name)["download"]
    assert COMMIT.search(about["url"]) and re.fullmatch(r"[0-9a-f]{64}", about["sha256"])
