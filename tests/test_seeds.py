"""Metrics that compare the seeds of a prompt: the order that people pick by, and how far the pictures are apart."""

import itertools

import numpy as np
import pytest
import torch

from eval.metrics import seeds, text
from eval.metrics.lite0 import lite0_stages, stage_distance
from eval.metrics.measure import measure
from eval.metrics.metric import AbsentError, metric_of
from eval.metrics.pictures import Pictures
from spectrum.core.errors import SpectrumError

BRIGHTNESS = text.Towers(
    lambda images: torch.stack([images[:, 0, 4, 4], torch.ones(len(images))], 1),
    lambda texts: torch.tensor([[1.0, 0.0]]).expand(len(texts), -1),
    {"model": "brightness", "sha256": "0"},
)
"""A CLIP model whose cosine with every prompt is the brightness of the picture's middle."""


@pytest.fixture
def brightness(monkeypatch):
    asked = []
    monkeypatch.setattr(seeds, "towers_of", lambda *given: asked.append(given) or BRIGHTNESS)
    return asked


def greys(*levels):
    return Pictures(torch.tensor(levels)[:, None, None, None].expand(-1, 3, 8, 8))


def test_the_rank_correlation_by_hand(brightness):
    """1 - 6 sum d^2 / (n (n^2 - 1)): for four seeds, sums of 0, 2, 20 and 6 give 1, 0.8, -1 and 0.4."""
    full = [0.1, 0.2, 0.3, 0.4]
    orders = ([0.1, 0.2, 0.3, 0.9], [0.2, 0.1, 0.3, 0.4], [0.9, 0.5, 0.4, 0.1], [0.3, 0.1, 0.2, 0.35])
    own, other = greys(*itertools.chain(*orders)), greys(*full * 4)
    found = metric_of("seed_rank", {"model": "tiny"}, seeds=4)(own, other, ["a cat"] * 16)
    squares = [sum((a - b) ** 2 for a, b in zip(np.argsort(np.argsort(o)), range(4), strict=True)) for o in orders]
    assert squares == [0, 2, 20, 6]
    assert found.values == pytest.approx([1, 0.8, -1, 0.4])
    assert found.aggregate == pytest.approx(0.3)
    assert found.provenance == {"seeds": 4, "model": "brightness", "sha256": "0"}
    assert brightness == [("seed_rank", "tiny", None)]


def test_a_prompt_whose_seeds_have_one_score_has_no_rank(brightness):
    own, other = greys(0.1, 0.1, 0.1, 0.2, 0.3, 0.1), greys(*[0.1, 0.2, 0.3] * 2)
    found = metric_of("seed_rank", {}, seeds=3)(own, other, ["a cat"] * 6)
    assert np.isnan(found.values[0]) and found.values[1] == pytest.approx(-0.5) == found.aggregate


def test_scores_below_zero_have_an_order_too():
    """The CLIP score is cut off at 0; the order of seeds is not."""
    g = torch.Generator().manual_seed(0)
    own, other = (Pictures(torch.rand(4, 3, 96, 96, generator=g)) for _ in range(2))
    prompts = ["two keys on red"] * 4
    assert max(text.clip_score(own, None, prompts).values) == 0
    assert np.isfinite(seeds.seed_rank(own, other, prompts, seeds=4).values).all()
    assert seeds.seed_rank(own, own, prompts, seeds=4).values == pytest.approx([1.0])


def test_a_videos_score_is_the_mean_of_its_frames(brightness):
    """The means of the frames are .2, .3 and .4, and of the other side .4, .3 and .2."""
    levels = [[0.1, 0.3], [0.3, 0.3], [0.7, 0.1]], [[0.8, 0.0], [0.1, 0.5], [0.2, 0.2]]
    own, other = (Pictures(torch.tensor(side)[..., None, None, None].expand(-1, -1, 3, 8, 8)) for side in levels)
    assert metric_of("seed_rank", {}, seeds=3)(own, other, ["a cat"] * 6).values == pytest.approx([-1])


def test_diversity_is_the_mean_over_the_pairs_of_a_prompts_seeds():
    pytest.importorskip("timm")
    images = torch.rand(6, 3, 40, 36, generator=torch.Generator().manual_seed(0))
    images[5] = images[4]
    stages, digest = lite0_stages("diversity")

    def gap(a, b):
        return stage_distance(stages(images[a : a + 1]), stages(images[b : b + 1])).item()

    found = metric_of("diversity", {}, seeds=3)(Pictures(images), None, [])
    expected = [(gap(0, 1) + gap(0, 2) + gap(1, 2)) / 3, (2 * gap(3, 4)) / 3]
    assert found.values == pytest.approx(expected, rel=1e-4) and expected[0] > expected[1] > 0.1
    assert found.provenance == {"seeds": 3, "backbone": "efficientnet_lite0", "sha256": digest}
    alike = metric_of("diversity", {}, seeds=2)(Pictures(images[4:]), None, [])
    assert alike.values == pytest.approx([0], abs=1e-6)


def test_too_few_seeds_say_what_to_type(brightness):
    pictures = Pictures(torch.rand(2, 3, 40, 40))
    for name, least, count in (("seed_rank", 3, 2), ("diversity", 2, 1)):
        said = rf"^{name} needs {least} seeds or more a prompt, and there are {count}: type seeds=\[0,1,2\]$"
        with pytest.raises(AbsentError, match=said):
            metric_of(name, {}, seeds=count)(pictures, pictures, ["a cat"] * 2)


def test_what_cannot_be_compared_is_named(brightness, monkeypatch):
    three, four = (Pictures(torch.rand(count, 3, 40, 40)) for count in (3, 4))
    with pytest.raises(SpectrumError, match=r"^seed_rank compares with the uncached run, and there is no reference"):
        seeds.seed_rank(three, None, ["a"] * 3, seeds=3)
    for pair in ((three, four), (four, three)):
        with pytest.raises(SpectrumError, match=r"^seed_rank needs one prompt a picture: there are 4 pictures and 3"):
            seeds.seed_rank(*pair, ["a"] * 3, seeds=3)
    with pytest.raises(SpectrumError, match=r"^diversity needs 3 pictures a prompt, and there are 4: sample"):
        seeds.diversity(four, None, [], seeds=3)
    with pytest.raises(AbsentError, match=r"^diversity compares pictures, and these samples are videos$"):
        seeds.diversity(Pictures(torch.rand(3, 2, 3, 40, 40)), None, [], seeds=3)
    with pytest.raises(AbsentError, match=r"^diversity needs sides of 32 pixels or more, and .* have 40x31$"):
        seeds.diversity(Pictures(torch.rand(3, 3, 31, 40)), None, [], seeds=3)


def test_the_clip_model_is_named_for_the_metric_that_asks():
    pytest.importorskip("open_clip")
    three = Pictures(torch.rand(3, 3, 40, 40))
    with pytest.raises(AbsentError, match=r"^seed_rank with ViT-B-32 needs its weights: .*eval\.seed_rank\.check"):
        seeds.seed_rank(three, three, ["a"] * 3, model="ViT-B-32", seeds=3)
    with pytest.raises(SpectrumError, match=r"^eval\.seed_rank\.model=ViT-Z-1 is unknown to open_clip"):
        metric_of("seed_rank", {"model": "ViT-Z-1"}, seeds=3)


def test_the_number_of_seeds_is_not_typed():
    for name in ("seed_rank", "diversity"):
        with pytest.raises(SpectrumError, match=rf"^eval\.{name}\.seeds is no parameter of {name}"):
            metric_of(name, {"seeds": 3})


def test_a_record_has_one_value_a_prompt_and_intervals_by_prompt():
    """Two prompts with three seeds each: PSNR has six values, diversity two, and PSNR's interval knows two prompts."""
    pytest.importorskip("timm")
    g = torch.Generator().manual_seed(0)
    reference = torch.rand(6, 3, 40, 40, generator=g)
    amount = torch.tensor([0.1, 0.11, 0.12, 0.3, 0.31, 0.32])[:, None, None, None]
    noisy = reference + amount * torch.randn(reference.shape, generator=g)
    pair = Pictures(noisy.clamp(0, 1)), Pictures(reference)
    prompts = [prompt for prompt in ("a cat", "two keys") for _ in range(3)]
    wanted = {"psnr": {}, "diversity": {}, "seed_rank": {}}
    found, left_out = measure(wanted, *pair, prompts, ("a", "b"), print, seeds=3)
    assert not left_out and [len(found[name].values) for name in wanted] == [6, 2, 2]
    alone, _ = measure({"psnr": {}}, *pair, prompts, ("a", "b"), print)
    assert found["psnr"].interval > 2 * alone["psnr"].interval > 0
    one_each, left_out = measure(wanted, *pair, prompts, ("a", "b"), print)
    assert one_each.keys() == {"psnr"} and left_out.keys() == {"diversity", "seed_rank"}
