"""What an estimate of memory has to scale, count or guess, where no rehearsal of the very config tells."""

import dataclasses
import json
import os
import re
import shutil

import pytest
import torch
from command import ROOT, call, error_line
from typed import typed

from spectrum.bench import memory_check
from spectrum.bench.loading import check_memory_of
from spectrum.bench.rehearsal import rehearse
from spectrum.bench.resolve import resolve
from spectrum.config.compose import compose
from spectrum.core.choices import Keep
from spectrum.core.errors import SpectrumError
from spectrum.models.identity import ASSETS
from spectrum.models.kept_rehearsals import entry_of, kept_rehearsal
from spectrum.models.memory import need_of, stored_bytes
from spectrum.models.meter import metered
from spectrum.models.need import GIB, Need, Part, Task
from spectrum.models.plans import cache_bytes, plan_of

WAN = "model=wan21_1_3b"


def kept(config):
    found = kept_rehearsal(config)
    assert found is not None
    return found


def of_frames(frames, *words):
    """What a method stores on Wan2.1 with another number of frames, whose outputs are scaled by hand."""
    config, method = resolve(compose([WAN, f"model.frames={frames}", *words]))
    found = kept(compose([WAN]))
    own, latents = found.outputs[0], (frames - 1) // 4 + 1
    scaled = dataclasses.replace(found, outputs=[[own[0] * latents // 21, own[1]]])
    return stored_bytes(config, plan_of(config, method), scaled)


@pytest.mark.parametrize("site", ["exit", "output"])
@pytest.mark.parametrize("keep", Keep)
def test_fewer_frames_take_a_smaller_cache_at_every_site(site, keep):
    words = ["method=spectrum", "runs=14", f"method.site={site}", f"method.keep={keep}"]
    config, method = resolve(compose([WAN, *words]))
    whole = cache_bytes(config, plan_of(config, method))
    assert whole is not None
    assert of_frames(49, *words) == pytest.approx(whole * 13 / 21, rel=1e-3)
    assert of_frames(81, *words) == whole


def test_what_is_kept_inside_the_blocks_counts():
    words = [WAN, "method=taylorseer_modules"]
    config, method = resolve(compose(words))
    plan, found = plan_of(config, method), kept(config)
    sizes = {}
    for keep in (Keep.features, Keep.float8):
        chosen = dataclasses.replace(config, method=dataclasses.replace(config.method, keep=keep))
        sizes[keep] = stored_bytes(chosen, plan, found)
    assert sizes[Keep.float8] == pytest.approx(sizes[Keep.features] / 2, rel=1e-3)


def test_where_no_output_is_known_nothing_is_counted():
    config, method = resolve(compose([WAN, "model.frames=49"]))
    found = dataclasses.replace(kept(compose([WAN])), outputs=[])
    assert stored_bytes(config, plan_of(config, method), found) is None


ONE = ["prompts.limit=1", "batch=16", "model.steps=7", "timing=0", "probe=0"]


def test_the_samples_of_a_call_count_and_not_the_batch_that_was_asked_for(tmp_path, capsys):
    words = ["method=spectrum", *ONE, f"out={tmp_path}", "memory_limit_gb=0.05"]
    said = call("run", *words, capsys=capsys)
    assert said.code == 0 and "memory: about 0.03" in said.out
    assert "needs about" in error_line(call("run", *words, "prompts.limit=16", capsys=capsys))


def test_a_run_that_may_not_be_checked_is_not_refused_for_what_its_features_take(tmp_path, capsys, monkeypatch):
    words = [*ONE, f"out={tmp_path}"]
    monkeypatch.setattr("spectrum.bench.run.features_bytes", lambda job: 10**15)
    assert "samples of 96x96 pixels take about" in error_line(call("run", *words, capsys=capsys))
    assert call("run", *words, "check_memory=false", capsys=capsys).code == 0


@pytest.fixture
def damaged(tmp_path):
    """A folder of weights of the embedded model whose index is cut short; no digest lies beside it."""
    folder = tmp_path / "weights"
    shutil.copytree(ASSETS / "tiny", folder)
    (folder / "digest.json").unlink(missing_ok=True)
    index = folder / "model_index.json"
    index.write_bytes(index.read_bytes()[:40])
    return folder


def test_an_estimate_that_fails_is_said_and_stops_no_plan(damaged, capsys):
    words = [f"model.weights={damaged}"]
    said = call("plan", *words, capsys=capsys)
    assert said.code == 0 and "memory: cannot be worked out (JSONDecodeError: " in said.out
    assert "Traceback" not in said.err and "step  sum w" in said.out
    found = json.loads(call("plan", *words, "format=json", capsys=capsys).out)
    assert found["memory_bytes"] is None and found["memory_unknown"].startswith("JSONDecodeError")
    found = json.loads(call("plan", "model=mochi", "format=json", capsys=capsys).out)
    assert "what transformer holds" in found["memory_guessed"] and found["memory_unknown"] is None


@pytest.mark.parametrize("lacking", ["model_index.json", "scheduler"])
def test_an_estimate_that_fails_stops_no_run(lacking, damaged):
    if lacking == "scheduler":
        shutil.copy(ASSETS / "tiny" / "model_index.json", damaged)
        shutil.rmtree(damaged / "scheduler")
    words = ["method=spectrum", f"model.weights={damaged}", "memory_limit_gb=1"]
    config, method = resolve(compose(words))
    lines: list[str] = []
    check_memory_of(config, method, torch.device("cpu"), lines.append)
    assert len(lines) == 1 and lines[0].startswith("memory: cannot be worked out (")


def test_a_refusal_inside_an_estimate_is_printed(capsys):
    said = call("plan", "model=hunyuan_dit", "model.pipeline=NoPipeline", capsys=capsys)
    assert "memory: cannot be worked out (" in said.out


def guessed_of(name):
    config, method = resolve(compose([f"model={name}"]))
    found = need_of(config, plan_of(config, method), kept)
    return found.parts.get("text encoders", Part(0, 0, 0, False)).weights / 1e9, found.guessed


def test_text_encoders_are_guessed_beside_an_image_encoder_and_beside_toys():
    by_size = "text encoders, by the size of the download"
    for name, gigabytes in (("wan_animate", 17.8), ("longcat", 16.2), ("qwen_layered", 16.7)):
        size, guessed = guessed_of(name)
        assert size == pytest.approx(gigabytes, abs=0.1) and by_size in guessed
    assert "text encoders, which are not counted" in guessed_of("framepack")[1]
    for name in ("svd", "dit_xl2", "tiny"):
        size, guessed = guessed_of(name)
        assert size == 0 and not any("text" in guess for guess in guessed)


def test_what_stays_on_the_device_beside_the_network_at_work_is_counted():
    parts = {"net": Part(100, 10, 20, True), "vae": Part(8, 0, 2, False), "odd": Part(30, 30, 0, False)}
    plain = Need(parts, (Task("net", "net", 9), Task("vae decode", "vae", 1)), features=5)
    assert plain.at_peak("group", ahead=False) == (30 + 30, 5, 9), "diffusers puts `odd` there for good"
    assert plain.at_peak("model") == (100, 5, 9)
    encodes = dataclasses.replace(plain, tasks=(Task("vae encode", "vae", 2), *plain.tasks))
    assert encodes.at_peak("model") == (108, 5, 9), "the VAE that encoded before the loop is still there"
    assert encodes.at_peak("group", ahead=False) == plain.at_peak("group", ahead=False)


@pytest.mark.parametrize("scale", [2**20, 2**30 // 7, 2**30])
def test_the_numbers_of_the_line_add_up_to_the_peak(scale):
    parts = {"net": Part(int(31.74 * scale), 0, 0, True), "vae": Part(0, 0, 0, False)}
    for tasks in ((Task("net", "net", int(1.44 * scale)),), (Task("vae decode", "vae", int(1.44 * scale)),)):
        need = Need(parts, tasks, features=int(0.34 * scale))
        total, *terms = map(float, re.findall(r"(?<= )\d+\.\d+", need.text()))
        assert total == pytest.approx(sum(terms), abs=1e-6) and total == pytest.approx(need.peak() / GIB, abs=0.051)
        assert ("features" in need.text()) == (tasks[0].part == "net")


def test_the_docs_quote_the_line_as_it_is_printed(capsys):
    said = call("plan", "model=flux", "method=spectrum", "runs=14", capsys=capsys)
    (line,) = [line for line in said.out.splitlines() if line.startswith("memory: ")]
    assert f"`{line}`" in (ROOT / "docs" / "configuration.md").read_text()


def test_what_another_version_of_diffusers_rehearsed_is_not_used(monkeypatch):
    config = compose([])
    assert kept_rehearsal(config) is not None
    monkeypatch.setattr("spectrum.models.kept_rehearsals._diffusers", lambda: "0.0.1")
    assert kept_rehearsal(config) is None
    assert entry_of(config, rehearse(config))["diffusers"] == "0.0.1"


@pytest.mark.parametrize("content", ["{", "[]", '{"tiny": 1}'])
def test_a_damaged_file_of_rehearsals_is_refused(content, tmp_path):
    path = tmp_path / "memory.json"
    path.write_text(content)
    said = typed("scripts/memory.py", "models=tiny", f"to={path}")
    assert f"error: to={path} " in error_line(said) and path.read_text() == content


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf"])
def test_a_limit_that_is_none_is_refused(value, capsys):
    assert "memory_limit_gb=" in error_line(call("run", f"memory_limit_gb={value}", capsys=capsys))


class Tiles(torch.nn.Module):
    """Doubles three tiles one by one, the last of them narrower, in a layer eight times as wide, and joins them."""

    def __init__(self, keeps=None):
        super().__init__()
        self.decoder = torch.nn.Linear(1, 1)
        self.decoder.forward = self.tile
        self.keeps, self.made = keeps, 0

    def tile(self, x, wider=8, notes=None):
        self.made += 1
        if self.keeps:
            self.decoder.before = self.keeps(x)
        return (2 * x.repeat(wider, 1))[: len(x)].clone()

    def forward(self, x, widths=(8, 8, 8), **given):
        tiles = zip((x[:4096], x[4096:8192], x[8192:]), widths, strict=True)
        return torch.cat([self.decoder(tile, wider, **given) for tile, wider in tiles])


@pytest.mark.parametrize(
    "given, keeps, calls",
    [
        ({}, None, 2),
        ({"widths": (1, 8, 8)}, None, 3),
        ({"notes": []}, None, 3),
        ({}, lambda x: x, 3),
        ({}, lambda x: {"frames": [x]}, 3),
    ],
)
def test_tiles_of_one_shape_are_decoded_once_and_count_as_often_as_they_come(given, keeps, calls):
    whole, once, x = Tiles(keeps), Tiles(keeps), torch.zeros(9000, 64)
    made, peak = metered(once, (x,), given, [], [once.decoder])
    assert (made.shape, peak) == (x.shape, metered(whole, (x,), given, [])[1])
    assert (once.made, whole.made) == (calls, 3)
    assert peak == 4 * 64 * (9000 + 4096 + 2 * 8 * 4096), "at the second tile, beside the first one's result"


def test_features_on_the_host_are_not_on_the_device():
    config, method = resolve(compose(["model=flux", "method=spectrum", "runs=14", "method.keep=host"]))
    assert need_of(config, plan_of(config, method), kept).features == 0
    assert cache_bytes(config, plan_of(config, method)) == 14 * 4096 * 3072 * 2


def test_on_a_cpu_the_host_is_the_device(monkeypatch):
    monkeypatch.setattr("spectrum.bench.loading.exact_rehearsals", lambda: kept)
    monkeypatch.setattr("spectrum.bench.loading.free_memory", lambda device: 200 * GIB)
    found = []
    for keep in ("features", "host"):
        words = ["model=cogvideox_5b", "model.weights=random", "method=spectrum", "runs=14", f"method.keep={keep}"]
        config, method = resolve(compose([*words, "memory_limit_gb=200"]))
        check_memory_of(config, method, torch.device("cpu"), found.append)
    assert found[0] == found[1] and "features" in found[0]


def test_features_that_do_not_fit_into_the_host_s_memory_are_refused(monkeypatch):
    monkeypatch.setattr("spectrum.bench.loading.exact_rehearsals", lambda: kept)
    monkeypatch.setattr("spectrum.bench.loading.free_memory", lambda on: GIB if on.type == "cpu" else 200 * GIB)
    words = ["model=cogvideox_5b", "model.weights=random", "method=spectrum", "runs=14"]
    check_memory_of(*resolve(compose(words)), torch.device("cuda"), lambda line: None)
    config, method = resolve(compose([*words, "method.keep=host"]))
    with pytest.raises(SpectrumError, match=r"keeps 2\.8 GiB of features in the host's memory, which has 1\.0 GiB"):
        check_memory_of(config, method, torch.device("cuda"), lambda line: None)


@pytest.mark.parametrize("said, free", [("max", None), ("4096", 4096), (None, None)])
def test_a_container_s_limit_is_that_of_its_cpu(said, free, tmp_path, monkeypatch):
    path = tmp_path / "memory.max"
    if said is not None:
        path.write_text(f"{said}\n")
    monkeypatch.setattr(memory_check, "LIMITS", (path, tmp_path / "absent"))
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert memory_check.free_memory(torch.device("cpu")) == (free or machine)
