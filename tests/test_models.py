"""Every model of `configs/model` that has a toy width: its real pipeline, built and hooked."""

import dataclasses
import itertools
import json
import shutil
from collections import defaultdict

import diffusers
import pytest
import torch
import transformers
from cases import MODELS, PROMPTS, STEPS, Subject, layouts_of, subject_of
from tokenizers import Tokenizer, models, pre_tokenizers
from toys import BlockCounter

from spectrum.api import Accelerated, denoisers
from spectrum.bench.prompts import check_length
from spectrum.bench.sampling import sample_batch
from spectrum.config.compose import compose
from spectrum.config.sampling import Sampling
from spectrum.core.errors import SpectrumError
from spectrum.core.history import History
from spectrum.models.identity import model_identity
from spectrum.models.pipelines import load_pipeline
from spectrum.models.plans import cache_bytes, plan_of
from spectrum.models.solvers import with_solver
from spectrum.named_methods import load_method
from spectrum.records.sections import sections

SECTIONS = ("framepack", "wan_animate")
"""The models whose toys sample two sections in a call."""
NO_RESIDUAL = ("framepack", "kandinsky5_image", "kandinsky5_video", "ltx2")
"""The models whose blocks give back other tokens than they are given, the same in another shape, or two features."""


@pytest.fixture(scope="module", params=MODELS)
def subject(request):
    return subject_of(request.param)


def cached(subject, name, *more, **kwargs):
    with Accelerated(subject.pipe, load_method(name, more)) as handle:
        return subject.sample(**kwargs), handle.report()


def test_skipped_steps_call_no_block_and_the_true_feature_is_bit_exact(subject, monkeypatch):
    calls, features, counters = [], defaultdict(list), []
    handles, keeping, slots = [], [], itertools.cycle(range(len(layouts_of(subject.name)[0].exits)))
    for model, layout in zip(denoisers(subject.pipe), layouts_of(subject.name), strict=True):
        handles.append(model.register_forward_pre_hook(lambda *a: calls.append(None)))
        for slot, left in enumerate(layout.exits):
            keep = lambda module, args, kwargs, slot=slot: features[slot].append((*args, *kwargs.values())[0].clone())  # noqa: E731
            exit_module = model.get_submodule(left.module)
            keeping.append(exit_module.register_forward_pre_hook(keep, with_kwargs=True))
    plain = subject.sample()
    assert all(len(kept) == len(calls) for kept in features.values())
    for handle in keeping:
        handle.remove()
    calls.clear()
    pairs = zip(denoisers(subject.pipe), layouts_of(subject.name), strict=True)
    counters = [BlockCounter(model, (*layout.stacks, *layout.feeders)) for model, layout in pairs]
    monkeypatch.setattr(History, "combine", lambda self, weights: features[next(slots)][len(calls) - 1])
    image, report = cached(subject, "spectrum")
    skipped = sum(len(branch["skipped"]) for branch in report.values())
    assert torch.equal(image, plain) and skipped >= 2
    assert sum(counter.close().count(0) for counter in counters) == skipped
    for handle in handles:
        handle.remove()


def test_the_plan_is_what_is_done_and_every_step_is_told(subject):
    told = []
    with Accelerated(subject.pipe, load_method("spectrum")) as handle:
        sample_batch(subject.pipe, PROMPTS[: subject.batch], Sampling.of(subject.config), lambda: told.append(None))
        report, plan = handle.report(), handle.plan(STEPS)
    assert len(told) == len(subject.pipe.scheduler.timesteps) * len(sections(report)) and plan == plan_of(
        subject.config, handle.method
    )
    assert all(branch["run_steps"] == plan.runs for branch in report.values())
    assert "step" not in vars(subject.pipe.scheduler)


def test_the_predicted_bytes_are_what_is_held(subject):
    _, report = cached(subject, "spectrum")
    predicted = cache_bytes(subject.config, plan_of(subject.config, load_method("spectrum")), subject.batch)
    assert [sum(own["cache_bytes"] for own in part.values()) for part in sections(report)] == [predicted] * (
        2 if subject.name in SECTIONS else 1
    )


@pytest.mark.parametrize("name", ["flux", "sdxl", "qwen_image", "sd35", "ltx2"])
def test_the_predicted_bytes_follow_another_size(name):
    subject = subject_of(name)
    larger = dataclasses.replace(subject.config.model, height=96, width=128)
    config = dataclasses.replace(subject.config, model=larger)
    with Accelerated(subject.pipe, load_method("spectrum")) as handle:
        sample_batch(subject.pipe, PROMPTS[:2], Sampling.of(config))
        held = sum(branch["cache_bytes"] for branch in handle.report().values())
    assert held == cache_bytes(config, plan_of(config, load_method("spectrum")), 2)


@pytest.mark.parametrize("clock", ["timestep", "sigma"])
def test_every_clock_runs(subject, clock):
    if hasattr(subject.pipe.scheduler, "counter"):
        with pytest.raises(SpectrumError, match="reads the same at several steps of this scheduler"):
            cached(subject, "taylorseer", "method.space=residual", f"method.clock={clock}")
        return
    words = [f"method.clock={clock}"]
    if subject.name in NO_RESIDUAL:
        with pytest.raises(SpectrumError, match=r": type method\.space=feature$"):
            cached(subject, "taylorseer", "method.space=residual", *words)
    else:
        words.append("method.space=residual")
    image, report = cached(subject, "taylorseer", *words)
    assert all(branch["skipped"] for branch in report.values()) and torch.isfinite(image).all()


def test_what_was_typed_stays_at_toy_width_also_where_it_is_the_file_s_own():
    usual = compose(["model=flux", "model.weights=tiny"])
    typed = compose(["model=flux", "model.weights=tiny", "model.dtype=bfloat16", "model.height=1024", "batch=3"])
    assert (usual.model.dtype, usual.model.height, usual.batch) == ("float32", 64, 8)
    assert (typed.model.dtype, typed.model.height, typed.batch) == ("bfloat16", 1024, 3)
    assert typed.model.width == 64 and compose([]).batch == 16 and compose(["model=flux"]).batch == 1


def test_a_toy_of_another_class_has_none_of_the_arguments_of_what_it_stands_for():
    full, toy = (compose(["model=qwen_layered", f"model.weights={kind}"]).model for kind in ("random", "tiny"))
    assert full.architecture["components"]["vae"] == {"class": "AutoencoderKLQwenImage", "input_channels": 4}
    vae, text = toy.architecture["components"]["vae"], toy.architecture["components"]["text_encoder"]
    assert vae["class"] == "AutoencoderKLWan" and "input_channels" not in vae
    assert (text["class"], text["text_config"]["vocab_size"]) == ("Qwen2_5_VLForConditionalGeneration", 384)


def test_a_pipeline_with_a_list_of_sizes_has_a_toy_s_own():
    subject = subject_of("kandinsky5_image")
    assert subject.pipe.resolutions == [(64, 64)] and subject.plain.shape == (2, 3, 64, 64)
    assert "resolutions" not in compose(["model=kandinsky5_image", "model.weights=random"]).model.architecture


def test_another_solver_keeps_what_the_scheduler_is_configured_with(subject):
    own = subject.pipe.scheduler.config
    if own.get("invert_sigmas") or "snr_shift_scale" in own:
        with pytest.raises(SpectrumError, match="method=fewer_steps"):
            with_solver(subject.pipe, "UniPCMultistepScheduler")
        return
    other = with_solver(subject.pipe, "UniPCMultistepScheduler").scheduler.config
    shared = [key for key in own if key in other and key != "solver_type" and not key.startswith("_")]
    assert "num_train_timesteps" in shared and all(own[key] == other[key] for key in shared)
    if other["prediction_type"] == "flow_prediction":
        assert other["flow_shift"] == own.get("shift", own.get("flow_shift")) and other["use_flow_sigmas"]


def test_parts_that_the_repository_leaves_out_come_from_another(tmp_path):
    repository, llama = tmp_path / "hidream", tmp_path / "llama"
    Subject("hidream").pipe.save_pretrained(repository)
    index = json.loads((repository / "model_index.json").read_text())
    left_out = [name for name in index if name.startswith(("text_encoder", "tokenizer"))]
    (repository / "model_index.json").write_text(json.dumps({k: v for k, v in index.items() if v != [None, None]}))
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2}
    transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=8, **shape)).save_pretrained(llama)
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "</s>": 1, "cat": 2}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>").save_pretrained(llama)

    classes = ["AutoTokenizer" if name.startswith("tokenizer") else "LlamaForCausalLM" for name in left_out]
    given = [f"++model.parts.{n}={{class: {c}, hub: {llama}}}" for n, c in zip(left_out, classes, strict=True)]
    model = compose(["model=hidream", f"model.weights={repository}", "model.dtype=float32", *given]).model
    pipe = load_pipeline(model, torch.device("cpu"))
    assert pipe._get_llama3_prompt_embeds(["cat"], 6, "cpu", torch.float32).shape == (4, 1, 6, 16)
    assert model_identity(model).endswith(f"+{llama}@main")
    check_length(pipe, ["cat cat"], 2)
    with pytest.raises(SpectrumError, match="3 tokens"):
        check_length(pipe, ["cat cat cat"], 2)


def test_parts_may_lie_in_folders_of_another_repository(tmp_path):
    """As FramePack's image encoder and the processor of its pictures, in the dtype that the config says."""
    repository, other = tmp_path / "svd", tmp_path / "encoder"
    pipe, classes = subject_of("svd").pipe, {}
    pipe.save_pretrained(repository)
    index = json.loads((repository / "model_index.json").read_text())
    for name in ("image_encoder", "feature_extractor"):
        classes[name] = index.pop(name)[1]
        shutil.move(repository / name, other / name)
    (repository / "model_index.json").write_text(json.dumps(index))
    given = [f"++model.parts.{n}={{class: {c}, hub: {other}, subfolder: {n}}}" for n, c in classes.items()]
    words = ["model.dtype=float32", "++model.architecture.components.image_encoder.dtype=float16"]
    model = compose(["model=svd", f"model.weights={repository}", *words, *given]).model
    loaded = load_pipeline(model, torch.device("cpu"))
    assert loaded.image_encoder.dtype == torch.float16 and loaded.unet.dtype == torch.float32
    assert loaded.feature_extractor.size == pipe.feature_extractor.size
    assert model_identity(model).endswith(f"+{other}@main")


@pytest.mark.parametrize("saved", ["fp16", None])
def test_weights_that_are_marked_are_loaded_and_so_is_a_folder_of_ones_own_without_the_mark(saved, tmp_path):
    pipe = subject_of("svd").pipe
    pipe.save_pretrained(tmp_path, variant=saved)
    words = ["model=svd", f"model.weights={tmp_path}", "model.dtype=float32"]
    loaded = load_pipeline(compose([*words, "model.variant=fp16"]).model, torch.device("cpu"))
    assert torch.equal(loaded.unet.conv_in.weight, pipe.unet.conv_in.weight)
    if saved:
        with pytest.raises(SpectrumError, match="cannot be loaded"):
            load_pipeline(compose(words).model, torch.device("cpu"))


@pytest.mark.parametrize("weights", ["pretrained", "random", "tiny"])
def test_a_pipeline_that_needs_another_package_names_it(weights, monkeypatch):
    from diffusers.utils import dummy_torch_and_transformers_and_sentencepiece_objects as without_it

    monkeypatch.setattr(diffusers, "KolorsPipeline", without_it.KolorsPipeline)
    monkeypatch.setattr(diffusers.utils.import_utils, "_sentencepiece_available", False)
    with pytest.raises(SpectrumError, match=r"model=kolors: KolorsPipeline requires the sentencepiece library.*pip"):
        load_pipeline(compose(["model=kolors", f"model.weights={weights}"]).model, torch.device("cpu"))
