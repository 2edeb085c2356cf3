"""`spectrum fetch` against a server on this machine."""

import hashlib
import json
import os
import subprocess
import sys

import pytest
from command import ROOT, call, error_line
from web import empty_machine, serving

from eval.metrics.files import NAMES, metric_item
from spectrum.config.compose import compose
from spectrum.config.reader import group_files
from spectrum.core.errors import SpectrumError
from spectrum.models.downloading import check_room, download
from spectrum.models.sources import Item, WebFile

DATA = bytes(range(256)) * 40
SHA = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def web():
    with serving() as server:
        yield server


@pytest.fixture
def empty(tmp_path, monkeypatch):
    return empty_machine(tmp_path, monkeypatch)


ON_A_LARGE_DISK = """
import runpy, shutil, sys, types
shutil.disk_usage = lambda path: types.SimpleNamespace(free=10**14)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def fetch(folder, endpoint, *words):
    """Run scripts/fetch.py in a process of its own, whose hub is `endpoint` and whose caches lie in `folder`.

    The files that the hub sends are tiny, but the check of the disk goes by the model's true size: the process sees a
    disk with room for any model, however full the machine's is.
    """
    places = {"HF_ENDPOINT": endpoint, "HF_HUB_CACHE": f"{folder}/hub", "SPECTRUM_HOME": f"{folder}/spectrum"}
    environment = {
        **os.environ,
        **places,
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": f"{folder}/home",
        "TORCH_HOME": f"{folder}/torch",
    }
    command = [sys.executable, "-c", ON_A_LARGE_DISK, str(ROOT / "scripts" / "fetch.py"), *words]
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
    revision = str(compose(["model=sdxl"]).model.revision)
    web.repositories["stabilityai/stable-diffusion-xl-base-1.0"] = {revision: files, "b2" * 20: {"README.md": b"moved"}}
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
    web.repositories["hunyuanvideo-community/HunyuanImage-2.1-Diffusers"] = {commit: files}
    done = fetch(tmp_path, web.url, "hunyuan_image", "yes=true")
    assert done.returncode == 0 and "not pinned" in done.stderr and f"at commit {commit}" in done.stdout
    assert "NOT PINNED" in done.stdout
    (found,) = tmp_path.rglob("model_index.json")
    assert found.parent.name == commit


def test_14_of_a_repository_with_a_part_in_a_folder_that_folder_alone_is_fetched(web, tmp_path):
    files = {
        "hunyuanvideo-community/HunyuanVideo": {
            "model_index.json": b'{"transformer": ["diffusers", "T"], "vae": ["diffusers", "V"]}',
            "transformer/config.json": b"{}",
            "vae/config.json": b"{}",
            "vae/diffusion_pytorch_model.safetensors": b"vae",
        },
        "lllyasviel/FramePackI2V_HY": {"config.json": b"{}", "diffusion_pytorch_model.safetensors": b"weights"},
        "lllyasviel/flux_redux_bfl": {
            "image_encoder/config.json": b"{}",
            "image_encoder/model.safetensors": b"siglip",
            "feature_extractor/preprocessor_config.json": b'{"size": 384}',
            "image_embedder/model.safetensors": b"not needed",
        },
    }
    web.repositories |= {name: {f"{number}a" * 20: own} for number, (name, own) in enumerate(files.items())}
    done = fetch(tmp_path, web.url, "framepack", "yes=true")
    assert done.returncode == 0, done.stderr
    kept = [file for own in files.values() for file in own]
    left_out = {"transformer/config.json", "image_embedder/model.safetensors"}
    assert {name.partition("/")[2] for name in web.fetched()} == set(kept) - left_out
    again = fetch(tmp_path, web.url, "framepack", "yes=true")
    assert again.returncode == 0 and "all here" in again.stdout


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


def test_14_a_download_that_broke_off_goes_on_where_it_stopped(web, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
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


# the list, and what is refused


def test_14_the_list_has_every_name_with_its_size_and_licence(empty, capsys):
    (empty / "torch" / "checkpoints").mkdir(parents=True)
    metric_item("lpips_vgg").sources[0].target.write_text("")
    said = call("fetch", capsys=capsys)
    assert said.code == 0
    rows = {words[0]: " ".join(words[1:]) for line in said.out.splitlines() if (words := line.split())}
    published = {name for name, own in group_files("model").items() if not own["hub"].startswith("embedded")}
    expected = {*published, "coco", "drawbench", "vbench", *NAMES}
    assert expected <= set(rows) and not {"tiny", "calibration", "development", "heldout", "sealed"} & set(rows)
    assert rows["flux"] == "34 GB FLUX.1 [dev] Non-Commercial License" and rows["lpips"].startswith(
        "244 MB BSD-3-Clause"
    )
    assert rows["lpips_vgg"].startswith("here")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["fluxx"], "did you mean flux?"),
        (["tiny"], "tiny ships with the project"),
        (["heldout"], "heldout ships with the project"),
        (["sealed"], "sealed ships with the project"),
        (["flux", "yes=perhaps"], "yes=perhaps is neither true nor false"),
        (["flux", "yess=true"], "did you mean yes?"),
    ],
)
def test_14_what_cannot_be_fetched_says_what_to_type(words, part, capsys):
    assert part in error_line(call("fetch", *words, capsys=capsys))
