"""Items 12 and 13 of what a first user met: the model card's count, and the pictures that the README begins with."""

import re

import pytest
import torch

from eval.metrics.text import embedded
from spectrum.bench.prompts import numbered_samples
from spectrum.bench.sampling import sample_batch
from spectrum.config.compose import compose
from spectrum.config.sampling import Sampling
from spectrum.models.identity import ASSETS, EMBEDDED

HELD_OUT = (ASSETS / "prompts" / "heldout.txt").read_text().splitlines()
RELATIONS = (" left of ", " above ")


def other_order(prompt):
    """The caption of the same two objects the other way round."""
    for relation in RELATIONS:
        if relation in prompt:
            first, second, ground = re.fullmatch(rf"(.*){relation}(.*)( on .*)", prompt).groups()
            return f"{second}{relation}{first}{ground}"
    return None


def test_12_the_model_card_counts_every_prompt_with_a_relation():
    card = " ".join((EMBEDDED / "README.md").read_text().split())
    total = int(re.search(r"at the (\d+) held-out prompts with a relation", card)[1])
    parts = re.search(
        r"(\d+) came out right, in (\d+) .* swapped, in (\d+) .* twice, and in (\d+) the two melted", card
    )
    assert total == sum(any(relation in prompt for relation in RELATIONS) for prompt in HELD_OUT)
    assert sum(map(int, parts.groups())) == total


@pytest.fixture(scope="module")
def shown(_tiny):
    """(prompt, picture) of the samples that the command in scripts/sheet.py draws, uncached."""
    import sheet

    numbers = [int(number) for number in re.search(r"prompts=([\d,]+)", sheet.__doc__)[1].split(",")]
    config = compose(["batch=8"])
    wanted = [numbered_samples(HELD_OUT, [0])[number] for number in numbers]
    return [sample.prompt for sample in wanted], sample_batch(_tiny, wanted, Sampling.of(config))


def test_13_the_readmes_first_pictures_show_what_their_prompts_say(shown):
    prompts, pictures = shown
    assert len(prompts) == 8
    towers = embedded()
    captions = [*HELD_OUT, *filter(None, map(other_order, HELD_OUT))]
    with torch.no_grad():
        likeness = towers.image(pictures.float().cpu()) @ towers.text(captions).T
    rank = [
        [captions[i] for i in row.argsort(descending=True)].index(p) for p, row in zip(prompts, likeness, strict=True)
    ]
    assert max(rank) <= 1 and rank.count(0) >= 7, "the small CLIP itself takes one of ten captions for its mirror image"
