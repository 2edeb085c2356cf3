"""What a pipeline is combined with: other solvers, compilation, other families, diffusers' own hooks."""

import dataclasses
import functools

import diffusers
import pytest
import torch
from cases import METHODS, Subject, method_of, runs_of, skipping, subject_of
from diffusers import FirstBlockCacheConfig, TaylorSeerCacheConfig
from diffusers.hooks.hooks import HookRegistry

from spectrum import SpectrumError, accelerate
from spectrum.api import Accelerated
from spectrum.config.reader import method_file
from spectrum.core.schedule import explicit
from spectrum.hooks.compiled import uses_cuda_graphs
from spectrum.hooks.layout import Denoiser
from spectrum.hooks.private_api import compiled_call

SPECTRUM = [0, 1, 2, 3, 4, 6, 8]


def fresh(name="flux"):
    """A toy of its own, for what changes the pipeline."""
    return Subject(name)


def test_case_11_a_solver_that_calls_twice_a_step_has_a_step_for_each_call():
    subject = fresh("sdxl")
    subject.pipe.scheduler = diffusers.HeunDiscreteScheduler.from_config(subject.pipe.scheduler.config)
    plain = subject.sample()
    with accelerate(subject.pipe, "spectrum", "schedule=always") as handle:
        assert torch.equal(subject.sample(), plain) and runs_of(handle) == [list(range(19))]
    with accelerate(subject.pipe, "spectrum") as handle:
        assert not torch.equal(subject.sample(), plain) and runs_of(handle) == [handle.plan(10).runs]


def test_case_12_two_experts_have_a_history_each():
    subject = subject_of("wan22_a14b")
    with Accelerated(subject.pipe, method_of("spectrum")) as handle:
        subject.sample()
        plan, report = handle.plan(10), handle.report()
        first, second = (hook.report() for hook in handle.hooks)
    for name, branch in report.items():
        assert branch["run_steps"] == first[name]["run_steps"] + second[name]["run_steps"] == plan.runs
        assert min(second[name]["run_steps"]) > max(first[name]["run_steps"])


def test_several_pictures_a_prompt_are_a_batch(_tiny):
    with accelerate(_tiny, "spectrum") as handle:
        image = _tiny(prompt=["a cat on blue", "two pears on teal"], num_images_per_prompt=3, num_inference_steps=10,
                      height=96, width=96, true_cfg_scale=4.0, negative_prompt=["", ""], max_sequence_length=16,
                      output_type="pt", generator=torch.Generator().manual_seed(0)).images  # fmt: skip
        assert len(image) == 6 and runs_of(handle) == [SPECTRUM, SPECTRUM]


def test_case_15_layerwise_casting():
    subject = fresh()
    subject.pipe.transformer.enable_layerwise_casting(storage_dtype=torch.bfloat16, compute_dtype=torch.float32)
    plain = subject.sample()
    with Accelerated(subject.pipe, method_of("spectrum", "schedule=always")):
        assert torch.equal(subject.sample(), plain)
    with Accelerated(subject.pipe, method_of("spectrum")) as handle:
        assert torch.isfinite(subject.sample()).all() and runs_of(handle) == [SPECTRUM]


def test_case_15_compiled_blocks_are_not_compiled_again_at_every_step():
    subject = fresh()
    with Accelerated(subject.pipe, method_of("spectrum")):
        expected = subject.sample()
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    subject.pipe.transformer.compile_repeated_blocks(backend="eager")
    with Accelerated(subject.pipe, method_of("spectrum")) as handle:
        subject.sample()
        frames = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        image = subject.sample()
        assert runs_of(handle) == [SPECTRUM]
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == frames > 0
    torch.testing.assert_close(image, expected, rtol=1e-3, atol=1e-3)


class GraphMemory:
    """A backend that returns what it computes in memory that its next call writes to, as CUDA graphs do."""

    def __init__(self):
        self.memory = {}

    def __call__(self, graph, inputs):
        def run(*args):
            return tuple(self.written(place, value) for place, value in enumerate(graph(*args)))

        return run

    def written(self, place, value):
        return self.memory.setdefault((place, value.shape), torch.empty_like(value)).copy_(value)


@pytest.mark.parametrize("whole", [False, True])
def test_case_15_what_cuda_graphs_overwrite_is_copied(whole):
    subject = fresh()
    with Accelerated(subject.pipe, method_of("spectrum")):
        expected = subject.sample()
    torch._dynamo.reset()
    transformer = subject.pipe.transformer
    if whole:
        subject.pipe.transformer = torch.compile(transformer, backend=GraphMemory())
    else:
        transformer.compile_repeated_blocks(backend=GraphMemory())
    calls = [compiled_call(part) for part in transformer.modules() if compiled_call(part)]
    for call in [subject.pipe.transformer] if whole else calls:
        call.get_compiler_config = lambda: {"triton.cudagraphs": True}  # as torch says of mode="reduce-overhead"
    with Accelerated(subject.pipe, method_of("spectrum")) as handle:
        image = subject.sample()
        assert runs_of(handle) == [SPECTRUM]
    torch.testing.assert_close(image, expected, rtol=1e-3, atol=1e-3)


def test_what_is_compiled_to_cuda_graphs_is_told_from_what_is_not():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    assert not uses_cuda_graphs(model)
    model[0].compile()
    assert not uses_cuda_graphs(model) and not uses_cuda_graphs(torch.compile(model, backend="eager"))
    assert uses_cuda_graphs(torch.compile(model, mode="reduce-overhead"))
    model[0].compile(mode="reduce-overhead")
    assert uses_cuda_graphs(model)
    model[0] = torch.nn.Linear(2, 2)
    assert not uses_cuda_graphs(model)
    model.forward = torch.compile(model.forward, options={"triton.cudagraphs": True})
    assert uses_cuda_graphs(model)


def compiled_whole(pipe, how):
    if how == "wrapped":
        pipe.transformer = torch.compile(pipe.transformer, backend="eager", fullgraph=True)
    else:
        pipe.transformer.compile(backend="eager", fullgraph=True)


@pytest.mark.parametrize(
    ("name", "how"),
    [(name, "wrapped") for name in ("flux", "z_image", "wan21_14b", "hunyuan_video", "qwen_image")]
    + [("flux", "in place")],
)
def test_case_15_a_denoiser_compiled_whole_has_a_graph_for_run_steps_and_one_for_skipped_ones(name, how):
    subject = fresh(name)
    with Accelerated(subject.pipe, method_of("spectrum")) as handle:
        expected, did = subject.sample(), runs_of(handle)
    torch._dynamo.reset()
    stats = torch._dynamo.utils.counters["stats"]
    model = subject.pipe.transformer
    compiled_whole(subject.pipe, how)
    assert torch.equal(subject.sample(), subject.plain)
    before = stats["unique_graphs"]
    with Accelerated(subject.pipe, method_of("spectrum")) as handle:
        assert torch.equal(subject.sample(), expected) and runs_of(handle) == did
        graphs = stats["unique_graphs"]
        assert 2 <= graphs - before <= 2 * len(did)
        assert torch.equal(subject.sample(), expected) and stats["unique_graphs"] == graphs
    assert torch.equal(subject.sample(), subject.plain)
    assert "forward" not in vars(model) and not getattr(model, "_diffusers_hook", HookRegistry(model)).hooks


@pytest.mark.parametrize("method", ["teacache", "seacache", "easycache"])
def test_case_15_what_decides_by_data_before_the_blocks_works_on_a_compiled_denoiser(method):
    subject, found = fresh(), skipping("flux", method)
    with Accelerated(subject.pipe, found) as handle:
        expected, did = subject.sample(), runs_of(handle)
    compiled_whole(subject.pipe, "wrapped")
    with Accelerated(subject.pipe, found) as handle:
        assert torch.equal(subject.sample(), expected) and runs_of(handle) == did


@pytest.mark.parametrize("method", ["first_block_cache", "taylorseer_modules"])
def test_case_15_what_works_inside_of_a_compiled_denoiser_is_refused(method):
    subject = fresh()
    compiled_whole(subject.pipe, "in place")
    with pytest.raises(SpectrumError, match="compile its blocks alone"):
        Accelerated(
            subject.pipe, method_of(method, *(["schedule.threshold=0.05"] if method != "taylorseer_modules" else []))
        )
    assert torch.equal(subject.sample(), subject.plain)


def test_case_15_compiling_after_the_method_is_put_on_is_refused():
    subject = fresh()
    with Accelerated(subject.pipe, method_of("spectrum")):
        subject.pipe.transformer.compile(backend="eager")
        with pytest.raises(SpectrumError, match=r"restore\(pipe\), compile, and put it on again"):
            subject.sample()
    assert torch.equal(subject.sample(), subject.plain)


def test_a_family_that_is_not_registered_comes_in_one_call_and_a_layout_can_be_given(monkeypatch):
    from spectrum.models import layouts as denoisers

    subject = subject_of("flux")
    with Accelerated(subject.pipe, method_of("spectrum")):
        expected = subject.sample()
    monkeypatch.setattr(denoisers, "DENOISERS", {})
    for layout in (None, Denoiser(exit="norm_out")):
        with accelerate(subject.pipe, "spectrum", denoiser=layout):
            assert torch.equal(subject.sample(), expected)


@pytest.mark.parametrize(
    "schedule", ["fixed_interval", [0, 1, 2, 5], functools.partial(explicit, run_steps=[0, 1, 2, 5])]
)
def test_a_schedule_by_name_as_a_list_and_as_a_function(schedule):
    subject = subject_of("flux")
    with accelerate(subject.pipe, "taylorseer", schedule=schedule) as handle:
        subject.sample()
        assert runs_of(handle) == [[0, 1, 2, 6] if schedule == "fixed_interval" else [0, 1, 2, 5]]


def test_what_is_fitted_for_the_weights_is_found(_tiny):
    with accelerate(_tiny, "teacache") as handle:
        assert handle.method.drift.keywords["coefficients"]
    with pytest.raises(SpectrumError, match="no coefficients"):
        accelerate(subject_of("flux").pipe, "teacache")


def test_taylorseer_agrees_with_diffusers_own_hook_where_they_coincide():
    """Both at attention alone, order 1, on diffusers' schedule: diffusers forecasts no MLP, so ours does not here."""
    steps = [0, 1, 2, 4, 9]
    subject = fresh()
    model = subject.pipe.transformer
    model.enable_cache(TaylorSeerCacheConfig(cache_interval=5, disable_cache_before_step=3, max_order=1,
                                             taylor_factors_dtype=torch.float32))  # fmt: skip
    theirs = subject.sample()
    model.disable_cache()
    assert torch.equal(subject.sample(), subject.plain) and not torch.equal(theirs, subject.plain)

    own = fresh()
    method = dataclasses.replace(method_of("taylorseer_modules"), schedule=functools.partial(explicit, run_steps=steps))
    with Accelerated(own.pipe, method) as handle:
        (hook,) = handle.hooks
        attention_alone(hook._site, own.pipe.transformer)
        ours = own.sample()
        assert runs_of(handle) == [steps]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    with Accelerated(own.pipe, method):
        assert (own.sample() - theirs).abs().max() > 1e-3, "with MLPs the two are different methods"


def attention_alone(site, model):
    """Leave of a modules' site the attentions, which is what diffusers' hook stores."""
    from spectrum.hooks.registry import attach

    site.remove()
    stored = {name: part for name, part in model.named_modules() if name.endswith(".attn")}
    site._modules = list(stored.values())
    for name, part in stored.items():
        attach(part, site._around_stored(name), lambda: None)


def test_first_block_cache_agrees_with_diffusers_own_hook():
    subject = fresh()
    method = dataclasses.replace(skipping("flux", "first_block_cache"), batch_decision=True)
    threshold = method.schedule.keywords["threshold"]
    subject.pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=threshold))
    theirs = subject.sample()
    subject.pipe.transformer.disable_cache()
    own = fresh()
    with Accelerated(own.pipe, method) as handle:
        ours = own.sample()
        assert 1 < len(runs_of(handle)[0]) < 10
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_the_plan_says_what_is_done(method):
    if method_file(method)[0]["drift"]:
        pytest.skip("decided by the data")
    subject = subject_of("flux")
    with Accelerated(subject.pipe, method_of(method)) as handle:
        subject.sample()
        assert runs_of(handle) == [handle.plan(10).runs]
