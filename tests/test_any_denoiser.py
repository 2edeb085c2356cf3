"""Any denoiser: the layout is found from one traced forward, proved, and refused where it cannot be."""

import pytest
import torch
from small import method, put_on

from spectrum import Denoiser, SpectrumError
from spectrum.bench.probe import probe
from spectrum.config.reader import choices
from spectrum.hooks.dataflow import traced
from spectrum.hooks.derive import derived_layout
from spectrum.models.layouts import DENOISERS
from spectrum.models.toys import NO_TOY, missing_classes, toy

REFUSED = {
    "anyflow_far_prefill": "reaches the output without entering one module",
    "rfd4_proteina": "is not right",
    "rfd4_proteina_recycle": "is not right",
}
ODD = (
    "flux", "ltx2", "unet_2d_condition", "flux3", "hidream_wide", "hunyuan_dit_control", "motif_video",
    "stable_cascade_decoder", "unet_1d", "unet_2d_skip",
    "unet_motion_control", "unet_spatio_temporal", "uvit", "cosmos3_omni_sound", "kandinsky6", "ltx23_guidance",
    "latte", "bria", "bria_fibo", "bria_fibo2_edit", "kandinsky3", "ovis_image", "qwen_image21", "z_image_omni",
    "t5_film", "dit", "chroma", "consisid", "anyflow_far", "wan_animate", "wan_vace_last", "minimax_h3",
    "helios", *REFUSED,
)  # fmt: skip
"""The toys of which each has something that no other one has; the rest run with `-m whole`."""


def tier(name):
    return pytest.param(name, marks=() if name in ODD else pytest.mark.whole)


@pytest.mark.parametrize("name", [tier(name) for name in choices("denoiser")])
def test_a_class_that_nobody_registered_is_proved_or_refused(name):
    found = probe(toy(name))
    assert not found.wrong, found.outcomes
    if name in REFUSED:
        assert REFUSED[name] in found.outcomes["exit"]
    else:
        assert found.proved, found.outcomes["exit"]
        assert "output" in found.outcomes and found.layout is not None


def test_every_denoiser_class_of_diffusers_has_a_toy_or_a_reason():
    assert missing_classes({toy(name).cls for name in choices("denoiser")}) == NO_TOY


def test_registered_layouts_are_those_that_are_found():
    for name in choices("denoiser"):
        one = toy(name)
        if one.cls not in DENOISERS or ("_" in name and name not in ("ltx_video", "z_image", "qwen_image")):
            continue
        model, inputs = one.build(), one.call(0)
        with torch.no_grad():
            found = derived_layout(model, traced(model, model.forward, (), inputs), one.latents[0])
        registered = DENOISERS[one.cls].with_stacks(model)
        assert {e.module for e in found.exits} == {e.module for e in registered.exits}, name
        idle = {*registered.stacks, *registered.feeders, *registered.refiners}
        assert {*found.stacks, *found.feeders} == idle, name


def run(name, layout, steps=(0, 1), **settings):
    one = toy(name)
    model = one.build()
    hook, scheduler = put_on(model, method(**settings), layout)
    with torch.no_grad():
        return model, hook, [model(**one.call(scheduler.step_index)) for scheduler.step_index in steps]


@pytest.mark.parametrize(
    ("name", "layout", "says"),
    [
        ("ltx2", Denoiser(exit="norm_out", stacks=("transformer_blocks",)), "output 1, of shape .*: off by"),
        ("flux", Denoiser(exit="norm_out", stacks=("transformer_blocks",)), "single_transformer_blocks.0 still runs"),
        (
            "unet_2d_skip",
            Denoiser(exit="conv_norm_out", stacks=("down_blocks", "mid_block", "up_blocks"), condition=None),
            "its forward fails|off by",
        ),
        (
            "flux",
            Denoiser("single_transformer_blocks.1.norm", ("transformer_blocks", "single_transformer_blocks")),
            "did not pass through single_transformer_blocks.1.norm",
        ),
    ],
)
def test_a_layout_that_is_not_right_is_refused_at_the_first_run_step(name, layout, says):
    with pytest.raises(SpectrumError, match=rf"the layout \(stacks .*\) is not right: with the stored .*({says})"):
        run(name, layout)


def test_the_check_can_be_switched_off():
    one = toy("ltx2")
    model = one.build()
    hook, _ = put_on(model, method(), Denoiser(exit="norm_out", stacks=("transformer_blocks",)), check=False)
    with torch.no_grad():
        model(**one.call(0))
    assert hook.report()["branch 0"]["run_steps"] == [0]


def test_at_the_output_all_that_a_denoiser_returns_is_forecast():
    _, _, (first, second) = run("ltx2", None, site="output")
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    with pytest.raises(SpectrumError, match=r"returns 2 tensors, of which only the first follows from the latents"):
        run("ltx2", None, site="output", space="residual")


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("flux", {"controlnet_block_samples": [[2, 16, 32]], "controlnet_single_block_samples": [[2, 16, 32]]}),
        ("sd3", {"block_controlnet_hidden_states": [[2, 16, 32]]}),
        ("sana", {"controlnet_block_samples": [[2, 64, 32]]}),
    ],
)
def test_residuals_of_a_controlnet_are_served_because_the_proof_holds(name, inputs):
    one = toy(name)
    model, draw = one.build(), torch.Generator().manual_seed(1)
    given = {key: [torch.randn(shape, generator=draw) for shape in shapes] for key, shapes in inputs.items()}
    with torch.no_grad():
        plain = [model(**one.call(step), **given)[0] for step in range(3)]
        assert not torch.equal(plain[0], model(**one.call(0))[0])
        hook, scheduler = put_on(model, method(), DENOISERS[one.cls])
        found = [model(**one.call(scheduler.step_index), **given)[0] for scheduler.step_index in range(3)]
    assert torch.equal(found[0], plain[0]) and torch.equal(found[2], plain[2]) and not torch.equal(found[1], plain[1])
    assert hook.report()["branch 0"]["run_steps"] == [0, 2]


def test_another_way_through_the_forward_is_proved_anew():
    one = toy("sd3")
    model = one.build()
    hook, scheduler = put_on(model, method(), DENOISERS[one.cls])
    with torch.no_grad():
        for scheduler.step_index in range(2):
            for skipped in (None, [1]):
                model(**one.call(scheduler.step_index), skip_layers=skipped)
    assert len(hook._proved) == 2 and len(hook.report()) == 2
