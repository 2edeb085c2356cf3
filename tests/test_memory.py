"""What a run needs of memory: worked out before anything is loaded, compared with what was measured, and refused."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch
from cases import method_of, subject_of
from command import QUICK, call, error_line
from torch import nn
from torch.nn import functional
from typed import typed

from spectrum import SpectrumError
from spectrum.api import Accelerated
from spectrum.bench.loading import check_memory_of, exact_rehearsals
from spectrum.bench.memory_check import OUTPUT, TRY, changes_of, check_fit, nearest
from spectrum.bench.rehearsal import rehearse
from spectrum.bench.resolve import resolve
from spectrum.config.compose import compose
from spectrum.config.reader import choices
from spectrum.core.method import Site
from spectrum.models.kept_rehearsals import kept_rehearsal, rehearsal_id
from spectrum.models.memory import need_of, stored_bytes
from spectrum.models.meter import metered
from spectrum.models.need import GIB, Need, Part, Task
from spectrum.models.offload import networks
from spectrum.models.plans import cache_bytes, plan_of

GPU = Path(__file__).resolve().parent.parent / "results" / "gpu"
MEASURED = {"flux": 0.01, "sd35": 0.01, "sdxl": 0.04, "wan21_14b": 0.01, "hunyuan_video": 0.01}
"""How far off the rehearsal of a call may be, of what an H100 measured."""


def sides(name):
    """Of a part's measured calls, by side: the most bytes by which one raised the peak, and those of its cache."""
    found = json.loads((GPU / f"{name}.json").read_text())
    rounds = found["rounds"] + found.get("other", {}).get("rounds", [])
    rows = sorted((side, row["grown"], row["cache_bytes"]) for entry in rounds for side, row in entry.items())
    return {side: (grown, cached) for side, grown, cached in rows}


def resolved(*words):
    config, method = resolve(compose(list(words)))
    return config, method, plan_of(config, method)


def kept(config):
    found = kept_rehearsal(config)
    assert found is not None, f"{config.model.name}: type python scripts/memory.py models={config.model.name}"
    return found


@pytest.mark.parametrize("name", MEASURED)
def test_what_a_denoiser_holds_is_what_a_gpu_measured(name):
    config = compose([f"model={name}"])
    (grown, _) = sides(name)["full"]
    held = max(task.work for task in kept(config).tasks if config.model.architecture and task.name != "vae decode")
    assert held == pytest.approx(grown, rel=MEASURED[name]) and held < grown


WORDS = {
    "spectrum 14": ["method=spectrum", "runs=14"],
    "spectrum 10": ["method=spectrum", "runs=10"],
    "fora 14": ["method=fora", "runs=14"],
    "taylorseer 14": ["method=taylorseer", "runs=14"],
}


@pytest.mark.parametrize("side", [*WORDS, *(f"{side} at the output" for side in WORDS)])
def test_the_predicted_bytes_of_a_cache_are_those_that_a_gpu_held(side):
    words = [*WORDS[side.removesuffix(" at the output")], *(["method.site=output"] if "output" in side else [])]
    config, _, plan = resolved("model=flux", *words)
    assert cache_bytes(config, plan) == sides("flux")[side][1] > 0


@pytest.mark.parametrize("side", ["spectrum 14", "spectrum 10"])
@pytest.mark.parametrize("name", ["flux", "sd35_run"])
def test_the_peak_grows_by_the_predicted_bytes_to_2_percent(name, side):
    config, _, plan = resolved(f"model={name.removesuffix('_run')}", *WORDS[side])
    measured = sides(name)
    grown = measured[side][0] - measured["full"][0]
    assert cache_bytes(config, plan) == pytest.approx(grown, rel=0.02)


def test_a_picture_of_half_the_height_has_half_an_output():
    found = [resolved("model=flux", "method.site=output", *words) for words in ([], ["model.height=512"])]
    whole, half = (cache_bytes(config, plan) for config, _, plan in found)
    assert whole == 2 * half


@pytest.mark.parametrize("name", ["tiny", "tiny_unet", "tiny_dit"])
def test_the_kept_rehearsal_is_what_a_rehearsal_gives(name):
    config = compose([f"model={name}"])
    again = rehearse(config)
    assert again == kept(config) and not again.failed


@pytest.mark.parametrize("name", choices("model"))
def test_a_rehearsal_is_kept_for_every_model(name):
    config = compose([f"model={name}"])
    found = kept(config)
    assert any(part.denoises for part in found.parts.values())
    assert found.failed or {task.part for task in found.tasks} & {n for n, part in found.parts.items() if part.denoises}
    changed = dataclasses.replace(config, batch=(config.batch or 1) + 1)
    assert rehearsal_id(changed) != rehearsal_id(config) and kept_rehearsal(changed) is None


def test_a_rehearsal_weighs_what_is_loaded(_tiny, tiny_config):
    found = kept(compose([]))
    loaded = {name: [*part.parameters(), *part.buffers()] for name, part in networks(_tiny).items()}
    for name, tensors in loaded.items():
        assert found.parts[name].weights == sum(t.numel() * t.element_size() for t in tensors) > 0
    assert {task.part for task in found.tasks} == set(loaded)


@pytest.mark.parametrize("site", ["output", "modules"])
@pytest.mark.parametrize("name", ["flux", "sdxl", "wan21_14b", "cogview4", "ltx2"])
def test_what_is_stored_at_a_site_is_known_from_a_rehearsal(name, site):
    subject = subject_of(name)
    method = method_of("taylorseer_modules") if site == "modules" else method_of("spectrum", "method.site=output")
    config = dataclasses.replace(subject.config, method=dataclasses.replace(subject.config.method, site=Site(site)))
    predicted = stored_bytes(config, plan_of(config, method), rehearse(subject.config))
    with Accelerated(subject.pipe, method) as handle:
        subject.sample()
        assert sum(branch["cache_bytes"] for branch in handle.report().values()) == predicted


class Layers(nn.Module):
    def __init__(self):
        super().__init__()
        self.wide, self.narrow = nn.Linear(64, 512, device="meta"), nn.Linear(512, 64, device="meta")

    def forward(self, x, mask):
        if mask.sum() != 3:
            raise AssertionError("whole numbers and truths keep their values")
        x = self.narrow(functional.relu(self.wide(x)))
        return functional.scaled_dot_product_attention(*[x[:, None]] * 3)[:, 0] + torch.ones(64)


def test_a_meter_counts_what_is_alive_at_once_and_no_scores():
    model = Layers()
    made, peak = metered(model, (torch.zeros(1, 4096, 64), torch.tensor([True] * 3)), {}, [model])
    assert made.is_meta and made.shape == (1, 4096, 64)
    wide = 4096 * 512 * 4
    assert peak == 2 * wide + 4096 * 64 * 4, "the input, the wide layer and its relu"


REHEARSALS = exact_rehearsals()


def need(config):
    return need_of(config, plan_of(config, resolve(config)[1]), REHEARSALS)


WORDS_THAT_FIT = [
    (["batch=16", "method=none"], 62, "'model.vae=[slicing]'"),
    (["batch=16"], 75, "batch=8"),
    (["batch=1"], 33.5, "method.site=output"),
    (["batch=1"], 30, "offload=model"),
    (["batch=1"], 20, "offload=group"),
    (["batch=1"], 14.5, "method.site=output offload=group"),
    (["batch=1", "method=none"], 8, "offload=group model.dtype=bfloat16"),
    (["batch=4", "offload=group"], 16, "batch=2 method.site=output"),
]


@pytest.mark.parametrize(("words", "megabytes", "told"), WORDS_THAT_FIT)
def test_a_run_that_does_not_fit_is_refused_with_the_nearest_setting(words, megabytes, told):
    config, method = resolve(compose(words))
    limit = int(megabytes * 1e6)
    with pytest.raises(SpectrumError) as refused:
        check_fit(config, method, need, limit, ahead=True, cpu=False)
    assert re.search(
        rf"GiB are free: type {re.escape(told)}, which needs [\d.]+ GiB.*; or {TRY} to", str(refused.value)
    )
    assert (OUTPUT in str(refused.value)) == ("method.site=output" in told)
    kept_words = [word for word in words if word.partition("=")[0] not in told]
    chosen = compose([*kept_words, *told.replace("'", "").split()])
    assert need(chosen).peak(chosen.offload) <= limit < need(config).peak(config.offload)


def test_where_nothing_fits_the_least_is_named():
    config, method = resolve(compose(["batch=1"]))
    least = r"the least, with method.site=output.* offload=group model.dtype=bfloat16, is 0.00\d GiB \(.*\): take a"
    with pytest.raises(SpectrumError, match=least):
        check_fit(config, method, need, 1000, ahead=True, cpu=False)
    none, never = resolve(compose(["batch=1", "method=none", "model.dtype=bfloat16", "offload=group"]))
    with pytest.raises(SpectrumError, match=r"; no setting here makes it less: take a smaller height"):
        check_fit(none, never, lambda variant: need(none), 1000, ahead=True, cpu=False)
    whole = need(config)
    assert check_fit(config, method, need, whole.peak(), ahead=True, cpu=False) == whole


def test_what_can_be_changed_depends_on_the_method_and_the_machine():
    def offered(*words, cpu=False):
        return set(changes_of(resolve(compose(list(words)))[1], cpu))

    assert offered() == {"model.vae", "batch", "method.site", "offload", "model.dtype"}
    assert offered(cpu=True) == offered() - {"offload"}
    for words in (["method=none"], ["method=fora_modules"], ["method=teacache"], ["method.site=output"]):
        assert "method.site" not in offered(*words)


def test_single_changes_are_tried_from_the_least_to_the_most_costly():
    config = compose(["batch=8"])
    changes = changes_of(resolve(config)[1], cpu=False)
    sizes = {"batch=2": 5, "offload=model": 3, "offload=group": 2}

    def peak(variant):
        words = {f"batch={variant.batch}", f"offload={variant.offload}"}
        return min((sizes[word] for word in words & sizes.keys()), default=9)

    assert [nearest(config, peak, limit, changes).words for limit in (5, 3, 2, 1)] == [
        ("batch=2",), ("offload=model",), ("offload=group",), ("offload=group",)
    ]  # fmt: skip
    assert [nearest(config, peak, limit, changes).fits for limit in (2, 1)] == [True, False]


def test_what_turns_out_not_to_be_needed_is_left_out():
    config = compose(["batch=8"])

    def peak(variant):
        size = {"none": 9, "model": 9, "group": 5}[variant.offload] - (variant.batch < 8)
        return size / 2 if variant.model.dtype == "bfloat16" else size

    found = nearest(config, peak, 3, changes_of(resolve(config)[1], cpu=False))
    assert found.words == ("offload=group", "model.dtype=bfloat16") and found.peak == 2.5 and found.fits


def test_the_peak_is_that_of_the_largest_call():
    parts = {"text": Part(40, 4, 6, False), "net": Part(100, 10, 20, True), "vae": Part(8, 0, 2, False)}
    calls = Task("text", "text", 1), Task("net", "net", 9), Task("vae decode", "vae", 70)
    need = Need(parts, calls, features=5)
    assert need.at_peak() == (148, 0, 70) and need.at_peak("model") == (100, 5, 9)
    assert need.at_peak("group", ahead=False) == (2, 0, 70) and need.at_peak("group") == (4, 0, 70)
    less = dataclasses.replace(need, tasks=calls[:2])
    assert less.at_peak() == (148, 5, 9) and less.at_peak("group") == (50, 5, 9)
    assert less.at_peak("group", ahead=False) == (30, 5, 9)


def test_text_encoders_that_are_not_here_are_guessed_by_the_size_of_the_download():
    found = need(compose(["model=flux"]))
    assert found.parts["text encoders"].weights == pytest.approx(9.77e9, rel=0.05), "T5 and CLIP of FLUX.1"
    assert need(compose(["model=wan21_14b"])).parts["text encoders"].weights == pytest.approx(11.4e9, rel=0.05)
    assert "text encoders" not in need(compose(["model=flux", "model.weights=random"])).parts


def test_what_cannot_be_rehearsed_is_said_to_be_a_guess(capsys):
    said = call("plan", "model=mochi", capsys=capsys)
    assert "guessed: what transformer holds, what vae decode holds, text encoders" in said.out


def test_a_plan_says_what_a_model_needs(capsys):
    for words, number in ((["model=flux"], "33.2"), (["model=flux", "offload=model"], "23.0")):
        said = call("plan", *words, capsys=capsys)
        assert f"memory: about {number} GiB on the device (weights " in said.out
        peak = json.loads(call("plan", *words, "format=json", capsys=capsys).out)["memory_bytes"]
        assert f"{peak / GIB:.1f}" == number
    assert "memory" not in call("plan", "model=flux", "memory=false", capsys=capsys).out


def test_a_run_is_refused_before_loading_and_what_the_message_says_works(tmp_path, capsys):
    words = [*QUICK, f"out={tmp_path}", "batch=4", "prompts.limit=4", "memory_limit_gb=0.04"]
    line = error_line(call("run", *words, capsys=capsys))
    assert (
        line.startswith("error: model=tiny needs about 0.0")
        and "and memory_limit_gb=0.04 allows 0.040 GiB: type " in line
    )
    assert "type 'model.vae=[slicing]', which needs 0.0" in line and not list(tmp_path.rglob("*.png"))
    said = call("run", *words, "model.vae=[slicing]", capsys=capsys)
    assert said.code == 0 and "memory: about 0.0" in said.out
    assert call("run", *words, "check_memory=false", capsys=capsys).code == 0


def test_a_limit_is_typed_and_refused_in_a_process_of_its_own(tmp_path):
    said = typed("run.py", *QUICK, "batch=1", f"out={tmp_path}", "memory_limit_gb=0.001")
    assert said.code == 2 and "the least, with" in said.err and "check_memory=false" in said.err
    assert not list(tmp_path.rglob("*.png"))


def test_a_small_model_on_a_cpu_is_not_rehearsed():
    lines: list[str] = []
    config, method, _ = resolved()
    check_memory_of(config, method, torch.device("cpu"), lines.append)
    assert lines == []
    check_memory_of(dataclasses.replace(config, memory_limit_gb=1.0), method, torch.device("cpu"), lines.append)
    assert len(lines) == 1


def test_a_model_with_drawn_weights_is_refused_too(capsys, tmp_path):
    words = ["model=flux", "model.weights=tiny", f"out={tmp_path}", "timing=0", "memory_limit_gb=0.0001"]
    line = error_line(call("run", *words, "prompts.limit=1", capsys=capsys))
    assert (
        line.startswith("error: model=flux needs about 0.0")
        and "and memory_limit_gb=0.0001 allows 0.000 GiB; the least" in line
    )
