"""Pipelines that start from something given: a picture, a mask, a first frame; and what else reaches the blocks."""

import inspect

import diffusers
import pytest
import torch
from cases import Subject, method_of, runs_of, subject_of

from spectrum import accelerate
from spectrum.models.architectures import randomise
from spectrum.models.inputs import prompt_inputs

STEPS, STRENGTH = 16, 0.75
KINDS = {"image to image": diffusers.AutoPipelineForImage2Image, "inpainting": diffusers.AutoPipelineForInpainting}


def embeds(subject):
    return prompt_inputs(subject.pipe, subject.config.model.architecture["embeds"], ["a cat", "two pears"])


def from_pictures(subject, kind):
    """A function that samples two pictures with the pipeline of `kind` on a toy's weights, and that pipeline."""
    pipe = KINDS[kind].from_pipe(subject.pipe)
    pipe.set_progress_bar_config(disable=True)
    height, width = subject.config.model.height, subject.config.model.width
    picture = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    given = {"image": picture, "strength": STRENGTH, "num_inference_steps": STEPS, **embeds(subject)}
    size = {"height": height, "width": width}
    given |= {name: value for name, value in size.items() if name in inspect.signature(type(pipe).__call__).parameters}
    if kind == "inpainting":
        mask = torch.zeros(2, 1, height, width)
        mask[..., : width // 2] = 1
        given["mask_image"] = mask
    call = {**{k: v for k, v in subject.config.model.call.items() if k != "negative_prompt"}, **given}
    return pipe, lambda: pipe(**call, output_type="pt", generator=torch.Generator().manual_seed(1)).images


@pytest.mark.parametrize(
    ("model", "kind", "method"),
    [(model, kind, "spectrum") for model in ("flux", "sdxl", "qwen_image") for kind in KINDS]
    + [("sd35", "image to image", "spectrum"), ("flux", "image to image", "taylorseer_modules")]
    + [("sdxl", "inpainting", "taylorseer_modules")],
)
def test_case_11_a_run_that_starts_in_the_middle_has_its_first_steps_there(model, kind, method):
    subject = subject_of(model)
    pipe, sample = from_pictures(subject, kind)
    plain = sample()
    with accelerate(pipe, method, "schedule=always") as handle:
        assert torch.equal(sample(), plain)
        (every,) = {tuple(branch) for branch in runs_of(handle)}
    with accelerate(pipe, method) as handle:
        image, again = sample(), sample()
        (own,) = {tuple(branch) for branch in runs_of(handle)}
    first = every[0]
    assert len(every) == STEPS * STRENGTH and every == tuple(range(first, first + len(every)))
    planned = method_of(method).schedule
    done = []
    for step in range(len(every)):
        done += [step] if planned(step, len(every), done, 0.0) else []
    assert own == tuple(first + step for step in done) and len(own) < len(every)
    assert torch.isfinite(image).all() and torch.equal(image, again) and not torch.equal(image, plain)


def image_to_video():
    """Wan's image-to-video pipeline at toy width, its first frame given beside the noise, and its call."""
    subject = Subject("wan21_14b")
    own = {key: value for key, value in subject.pipe.transformer.config.items() if key[0] != "_"}
    wide = {"in_channels": 2 * own["in_channels"] + subject.pipe.vae_scale_factor_temporal}
    parts = {name: subject.pipe.components[name] for name in ("scheduler", "vae", "text_encoder", "tokenizer")}
    transformer = randomise(diffusers.WanTransformer3DModel(**own | wide))
    pipe = diffusers.WanImageToVideoPipeline(**parts, transformer=transformer)
    pipe.set_progress_bar_config(disable=True)
    picture = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    call = {"image": picture, "height": 32, "width": 32, "num_frames": 5, "num_inference_steps": 10, **embeds(subject)}
    return pipe, lambda: pipe(**call, output_type="pt", generator=torch.Generator().manual_seed(1)).frames


@pytest.mark.parametrize("method", ["spectrum", "teacache", "taylorseer_modules"])
def test_case_11_a_video_from_a_picture(method):
    pipe, sample = image_to_video()
    plain = sample()
    words = ["method.drift.coefficients=[1.0,0.0]"] if method == "teacache" else []
    with accelerate(pipe, method, *words, "schedule=always"):
        assert torch.equal(sample(), plain)
    with accelerate(pipe, method, *words, *(["schedule.threshold=1.5"] if words else [])) as handle:
        image, again = sample(), sample()
        assert len(handle.report()) == 2 and all(2 <= len(branch) < 10 for branch in runs_of(handle))
    assert torch.isfinite(image).all() and torch.equal(image, again) and not torch.equal(image, plain)


def load_ip_adapter(model, width):
    """Give a toy denoiser an IP-Adapter with weights drawn at random; its pictures are embedded in `width` numbers."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator) * 0.3

    if isinstance(model, diffusers.UNet2DConditionModel):
        text = model.config.cross_attention_dim
        sizes = [part.to_k.out_features for name, part in model.named_modules() if name.endswith("attn2")]
        keys, bias = [2 * number + 1 for number in range(len(sizes))], False
    else:
        text = model.config.joint_attention_dim
        sizes = [model.inner_dim] * len(model.transformer_blocks)
        keys, bias = list(range(len(sizes))), True
    weights = {}
    for key, size in zip(keys, sizes, strict=True):
        for part in ("k", "v"):
            weights[f"{key}.to_{part}_ip.weight"] = draw(size, text)
            weights |= {f"{key}.to_{part}_ip.bias": draw(size)} if bias else {}
    projection = {"proj.weight": draw(4 * text, width), "proj.bias": draw(4 * text)}
    projection |= {"norm.weight": torch.ones(text), "norm.bias": torch.zeros(text)}
    model._load_ip_adapter_weights([{"image_proj": projection, "ip_adapter": weights}], low_cpu_mem_usage=False)


@pytest.mark.parametrize("name", ["flux", "sdxl"])
def test_case_14_an_ip_adapter_s_picture_reaches_the_blocks_that_run(name):
    subject = Subject(name)
    model = subject.pipe.unet if name == "sdxl" else subject.pipe.transformer
    load_ip_adapter(model, 12)
    model.to(torch.float32)
    copies = 4 if name == "sdxl" else 2
    pictures = torch.randn(2, copies, 1, 12, generator=torch.Generator().manual_seed(0))
    images = {}
    for number, given in enumerate(pictures):
        call = {**subject.config.model.call, "ip_adapter_image_embeds": [given]}
        call |= {"negative_ip_adapter_image_embeds": [0 * given]} if name == "flux" else {}
        plain = subject.sample(call=call)
        with accelerate(subject.pipe, "spectrum", "schedule=always"):
            assert torch.equal(subject.sample(call=call), plain)
        with accelerate(subject.pipe, "spectrum") as handle:
            images[number] = subject.sample(call=call)
            assert all(len(branch) < 10 for branch in runs_of(handle))
        assert not torch.equal(images[number], plain)
    assert not torch.equal(images[0], images[1])
