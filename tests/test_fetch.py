"""`spectrum fetch`, against a server on this machine, and what a run says of that which is missing."""

import hashlib
import json
import os
import re
import subprocess
import sys

import pytest
from command import ROOT, call, error_line
from web import serving

from eval.metrics.files import NAMES, metric_item, needed
from spectrum.bench.requirements import missing, missing_line
from spectrum.config.compose import compose
from spectrum.config.reader import choices, group_file
from spectrum.core.errors import SpectrumError
from spectrum.models.downloading import check_room, download
from spectrum.models.sources import HubFiles, Item, WebFile, model_item

COMMIT = re.compile(r"[0-9a-f]{40}")
UNPINNED = {"hidream", "hunyuan_image"}
DATA = bytes(range(256)) * 40
SHA = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def web():
    with serving() as server:
        yield server


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """A machine with nothing on it: every cache is a new folder."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "torch"))
    monkeypatch.setenv("SPECTRUM_HOME", str(tmp_path / "spectrum"))
    return tmp_path


def fetch(folder, endpoint, *words):
    """Run scripts/fetch.py in a process of its own, whose hub is `endpoint` and whose caches lie in `folder`."""
    places = {"HF_ENDPOINT": endpoint, "HF_HUB_CACHE": f"{folder}/hub", "SPECTRUM_HOME": f"{folder}/spectrum"}
    environment = {
        **os.environ,
        **places,
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": f"{folder}/home",
        "TORCH_HOME": f"{folder}/torch",
    }
    command = [sys.executable, str(ROOT / "scripts" / "fetch.py"), *words]
    return subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
    )


def web_file(web, target, data=DATA, sha256=SHA, **more):
    web.files["/file"] = data
    return WebFile(f"{web.url}/file", target, len(data) / 1e9, "MIT", "https://example.org", sha256, **more)


def sdxl_repository(web):
    """SDXL's repository with small files, among them some that diffusers does not read."""
    parts = {"unet": ["diffusers", "UNet2DConditionModel"], "tokenizer": ["transformers", "CLIPTokenizer"]}
    files = {
        "model_index.json": json.dumps({"_class_name": "StableDiffusionXLPipeline", **parts}).encode(),
        "unet/config.json": b"{}",
        "unet/diffusion_pytorch_model.safetensors": b"weights",
        "unet/diffusion_pytorch_model.fp16.safetensors": b"half",
        "tokenizer/vocab.json": b"[]",
        "sd_xl_base_1.0.safetensors": b"all in one",
        "vae_1_0/config.json": b"{}",
    }
    revision = compose(["model=sdxl"]).model.revision
    web.repositories["stabilityai/stable-diffusion-xl-base-1.0"] = revision, files
    return revision


# weights


def test_14_weights_come_from_the_pinned_commit_without_the_spare_files(web, tmp_path):
    revision = sdxl_repository(web)
    done = fetch(tmp_path, web.url, "sdxl", "yes=true")
    assert done.returncode == 0, done.stderr
    wanted = (
        "model_index.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "tokenizer/vocab.json",
    )
    assert web.fetched() == {f"{revision}/{name}" for name in wanted}
    snapshot = tmp_path / "hub" / "models--stabilityai--stable-diffusion-xl-base-1.0" / "snapshots" / revision
    assert (snapshot / "unet" / "diffusion_pytorch_model.safetensors").read_bytes() == b"weights"
    asked, said = len(web.log), done.stdout
    for part in (
        "CreativeML Open RAIL++-M License",
        "https://huggingface.co/stabilityai",
        "14 GB",
        revision,
        "models--",
    ):
        assert part in said.partition(" at commit ")[0]
    assert str(snapshot) in said
    again = fetch(tmp_path, web.url, "sdxl", "yes=true")
    assert again.returncode == 0 and "all here" in again.stdout and len(web.log) == asked


def test_14_a_model_without_a_pinned_commit_is_fetched_with_a_warning_and_its_commit_is_named(web, tmp_path):
    commit = "a1" * 20
    files = {"model_index.json": b'{"vae": ["diffusers", "AutoencoderKL"]}', "vae/config.json": b"{}"}
    web.repositories["hunyuanvideo-community/HunyuanImage-2.1-Diffusers"] = commit, files
    done = fetch(tmp_path, web.url, "hunyuan_image", "yes=true")
    assert done.returncode == 0 and "not pinned" in done.stderr and f"at commit {commit}" in done.stdout
    assert "NOT PINNED" in done.stdout
    (found,) = tmp_path.rglob("model_index.json")
    assert found.parent.name == commit


def test_14_gated_weights_say_where_to_accept_and_how_to_log_in(web, tmp_path):
    sdxl_repository(web)
    web.gated = set(web.repositories)
    done = fetch(tmp_path, web.url, "sdxl", "yes=true")
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0" in line and "hf auth login" in line


def test_14_without_a_connection_there_is_one_line_and_nothing_half_written(tmp_path):
    done = fetch(tmp_path, "http://127.0.0.1:9", "sdxl", "yes=true")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    (line,) = done.stderr.splitlines()
    assert (
        line.startswith("error: stabilityai/stable-diffusion-xl-base-1.0 cannot be reached") and "same command" in line
    )
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_14_nothing_is_downloaded_unasked(web, tmp_path):
    sdxl_repository(web)
    done = fetch(tmp_path, web.url, "sdxl")
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and line.endswith("type sdxl yes=true to agree")
    assert "CreativeML Open RAIL++-M License" in done.stdout and not web.log


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 1), ("", 1)])
def test_14_at_a_terminal_it_asks(answer, code, empty, web, monkeypatch, capsys):
    target = empty / "spectrum" / "prompts" / "drawbench.txt"
    source = web_file(web, target, b"a cat\n", hashlib.sha256(b"a cat\n").hexdigest(), prompts=True)
    item = Item("drawbench", "the prompt list drawbench", (source,), "write one")
    monkeypatch.setattr("spectrum.commands.fetch.item_of", lambda name: item)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: answer)
    said = call("fetch", "drawbench", capsys=capsys)
    assert said.code == code and target.exists() == (code == 0) and bool(web.log) == (code == 0)


# single files


def test_14_a_download_that_broke_off_goes_on_where_it_stopped(web, tmp_path):
    source = web_file(web, tmp_path / "new" / "file.pt")
    web.cut = 4000
    with pytest.raises(SpectrumError, match=r"503.*same command"):
        download(source)
    assert not source.here and (tmp_path / "new" / "file.pt.part").read_bytes() == DATA[:4000]
    web.cut = None
    assert "file.pt" in download(source)
    assert source.target.read_bytes() == DATA and web.log[-1][2] == "bytes=4000-"
    assert [path.name for path in source.target.parent.iterdir()] == ["file.pt"]


def test_14_a_part_that_is_whole_is_not_fetched_again(web, tmp_path):
    source = web_file(web, tmp_path / "file.pt")
    (tmp_path / "file.pt.part").write_bytes(DATA)
    download(source)
    assert source.target.read_bytes() == DATA and not web.log


def test_14_a_part_that_is_longer_than_the_file_is_fetched_anew(web, tmp_path):
    source = web_file(web, tmp_path / "file.pt")
    (tmp_path / "file.pt.part").write_bytes(DATA + b"more")
    download(source)
    assert source.target.read_bytes() == DATA


@pytest.mark.parametrize("sha256", [SHA, SHA[:8]])
def test_14_a_file_with_another_digest_is_thrown_away(sha256, web, tmp_path):
    source = web_file(web, tmp_path / "file.pt", data=DATA[:-1] + b"?", sha256=sha256)
    with pytest.raises(SpectrumError, match=f"SHA-256.*{sha256}"):
        download(source)
    assert not list(tmp_path.iterdir())


def test_14_the_first_digits_of_a_digest_are_enough(web, tmp_path):
    download(web_file(web, tmp_path / "file.pt", sha256=SHA[:8]))
    assert (tmp_path / "file.pt").read_bytes() == DATA


def test_14_a_file_that_is_gone_or_a_server_that_is_down_leaves_nothing(web, tmp_path):
    gone = WebFile(f"{web.url}/gone", tmp_path / "a" / "b.pt", 0, "MIT", "page", SHA)
    with pytest.raises(SpectrumError, match="answered 404"):
        download(gone)
    assert not list(tmp_path.iterdir())


def test_14_a_prompt_list_is_put_in_place_without_its_blank_lines_and_a_run_reads_it(web, empty):
    data = "a cat\n\ntwo pears\n   \nein Fuß".encode()
    target = empty / "spectrum" / "prompts" / "drawbench.txt"
    download(web_file(web, target, data, hashlib.sha256(data).hexdigest(), prompts=True))
    from spectrum.bench.prompts import read_prompts

    assert read_prompts(compose(["prompts=drawbench"]).prompts) == ["a cat", "two pears", "ein Fuß"]
    assert [path.name for path in target.parent.iterdir()] == ["drawbench.txt"]


def test_14_what_does_not_fit_on_the_disk_is_refused(tmp_path):
    source = WebFile("http://127.0.0.1:9/file", tmp_path / "a" / "file", 1e9, "MIT", "page")
    with pytest.raises(SpectrumError, match=rf"huge takes 1e\+09 GB and {tmp_path} has .* left"):
        check_room(Item("huge", "a file", (source,), "nothing"))


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


def test_14_the_list_has_every_name_with_its_size_and_licence(empty, capsys):
    said = call("fetch", capsys=capsys)
    assert said.code == 0
    rows = {words[0]: " ".join(words[1:]) for line in said.out.splitlines() if (words := line.split())}
    expected = {*choices("model"), "coco", "drawbench", "vbench", *NAMES} - {"tiny", "tiny_shifted"}
    assert expected <= set(rows) and not {"tiny", "heldout"} & set(rows)
    assert rows["flux"] == "34 GB FLUX.1 [dev] Non-Commercial License" and rows["lpips"].startswith(
        "244 MB BSD-3-Clause"
    )
    (empty / "torch" / "checkpoints").mkdir(parents=True)
    metric_item("lpips").sources[0].target.write_text("")
    assert re.search(r"^ *lpips +here", call("fetch", capsys=capsys).out, re.MULTILINE)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["fluxx"], "did you mean flux?"),
        (["tiny"], "tiny ships with the project"),
        (["heldout"], "heldout ships with the project"),
        (["flux", "yes=perhaps"], "yes=perhaps is neither true nor false"),
        (["flux", "yess=true"], "did you mean yes?"),
    ],
)
def test_14_what_cannot_be_fetched_says_what_to_type(words, part, capsys):
    assert part in error_line(call("fetch", *words, capsys=capsys))


# pins


@pytest.mark.parametrize("model", [name for name in choices("model") if group_file("model", name)["hub"] != "embedded"])
def test_14_every_model_is_pinned_or_known_not_to_be(model):
    item = model_item(compose([f"model={model}"]).model)
    assert item is not None
    pinned = [source.revision for source in item.sources]
    assert (pinned[0] is None) == (model in UNPINNED)
    assert all(COMMIT.fullmatch(str(revision)) for revision in pinned if revision is not None)
    assert all(source.licence and source.size_gb for source in item.sources)
    assert len(item.sources) == (2 if model == "hidream" else 1)


@pytest.mark.parametrize("name", ["coco", "drawbench", "vbench"])
def test_14_every_prompt_list_is_pinned_by_commit_and_digest(name):
    about = group_file("prompts", name)["download"]
    assert COMMIT.search(about["url"]) and re.fullmatch(r"[0-9a-f]{64}", about["sha256"])
