"""Items 12 and 13 of what a first user met: the model card's count, and the pictures that the README begins with."""

import csv
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import sheet
import torch
from command import error_line, script
from PIL import Image

from eval.figures.sheets import draw_sheet
from eval.metrics.text import embedded
from spectrum.api import Accelerated
from spectrum.bench.prompts import numbered_samples
from spectrum.bench.resolve import resolve
from spectrum.bench.sampling import sample_batch
from spectrum.config.compose import compose
from spectrum.config.sampling import Sampling
from spectrum.models.identity import ASSETS, EMBEDDED

ROOT = Path(__file__).resolve().parent.parent
DEVELOPMENT = (ASSETS / "prompts" / "development.txt").read_text().splitlines()
RELATIONS = (" left of ", " above ")
VERDICTS = list(csv.DictReader((ROOT / "tests" / "data" / "relations.csv").read_text().splitlines()))
"""What a person saw in the sample of each prompt with a relation."""
NUMBERS = [int(number) for number in re.search(r"prompts=([\d,]+)", sheet.__doc__)[1].split(",")]
"""The prompts of the README's first picture."""


def other_order(prompt):
    """The caption of the same two objects the other way round."""
    for relation in RELATIONS:
        if relation in prompt:
            first, second, ground = re.fullmatch(rf"(.*){relation}(.*)( on .*)", prompt).groups()
            return f"{second}{relation}{first}{ground}"
    return None


def test_12_the_model_cards_count_is_that_of_the_verdicts():
    prompts = [prompt for prompt in DEVELOPMENT if any(relation in prompt for relation in RELATIONS)]
    assert [verdict["prompt"] for verdict in VERDICTS] == prompts
    card = " ".join((EMBEDDED / "README.md").read_text().split())
    kinds = {
        "right": r"(\d+) came out right, in",
        "swapped": r"in (\d+) the two objects were swapped",
        "lost": r"in (\d+) one object was lost and the other painted twice",
        "melted": r"in (\d+) the two melted into each other",
        "repeated": r"in (\d+) both stood as asked, with half of one of them painted again",
    }
    counted = Counter(verdict["outcome"] for verdict in VERDICTS)
    assert {kind: int(re.search(said, card)[1]) for kind, said in kinds.items()} == counted
    assert int(re.search(r"at the (\d+) development prompts with a relation", card)[1]) == counted.total()


def test_12_an_outcome_says_what_the_picture_shows():
    for verdict in VERDICTS:
        scene = verdict["prompt"].rpartition(" on ")[0]
        swapped = other_order(verdict["prompt"]).rpartition(" on ")[0]
        assert (verdict["shown"] == scene) == (verdict["outcome"] == "right")
        assert (verdict["shown"] == swapped) == (verdict["outcome"] == "swapped")


@pytest.mark.parametrize("relation", RELATIONS)
def test_13_the_readmes_first_picture_has_the_first_two_of_a_relation_that_came_out_right(relation):
    right = [v["prompt"] for v in VERDICTS if relation in v["prompt"] and v["outcome"] == "right"]
    assert [DEVELOPMENT[number] for number in NUMBERS if relation in DEVELOPMENT[number]] == right[:2]


@pytest.fixture(scope="module")
def shown(_tiny):
    """Prompts and pictures of the README's first picture, sampled anew: all steps, and Spectrum."""
    config, method = resolve(compose(["batch=8"]))
    wanted = [numbered_samples(DEVELOPMENT, [0])[number] for number in NUMBERS]
    whole = sample_batch(_tiny, wanted, Sampling.of(config))
    with Accelerated(_tiny, method):
        skipped = sample_batch(_tiny, wanted, Sampling.of(config))
    return [sample.prompt for sample in wanted], whole.float().cpu(), skipped.float().cpu()


def test_13_the_readmes_first_picture_is_of_these_samples(shown, tmp_path):
    prompts, whole, skipped = shown
    draw_sheet(tmp_path / "sheet.png", prompts, {"all 50 steps": whole, "spectrum, 14 runs": skipped})
    anew, committed = (
        np.asarray(Image.open(path).convert("RGB"), float)
        for path in (tmp_path / "sheet.png", ROOT / "results" / "figures" / "tiny_sheet.png")
    )
    assert anew.shape == committed.shape
    rows, columns = (side // 50 for side in anew.shape[:2])
    parts = np.abs(anew - committed)[: 50 * rows, : 50 * columns].reshape(rows, 50, columns, 50, 3).mean((1, 3, 4))
    assert parts.max() < 6, "grey levels in a square of 50 pixels: samples differ a little from CPU to CPU"


def test_13_the_readmes_first_pictures_show_what_their_prompts_name(shown):
    """The small CLIP knows which objects there are. It does not know which of two stands where: the verdicts do."""
    prompts, pictures, _ = shown
    assert len(prompts) == 8
    towers = embedded()
    captions = [*DEVELOPMENT, *filter(None, map(other_order, DEVELOPMENT))]
    with torch.no_grad():
        likeness = towers.image(pictures) @ towers.text(captions).T
    for prompt, row in zip(prompts, likeness, strict=True):
        assert captions[row.argmax()] in (prompt, other_order(prompt))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["run=no_such", "prompts=0"], "there is no record no_such/record.json (No such file or directory): type the"),
        (["run=", "prompts=0"], "which run and which prompts? type python scripts/sheet.py run=FOLDER"),
        (["run=no_such", "prompts="], "which run and which prompts? type python scripts/sheet.py run=FOLDER"),
        (["run=no_such", "prompts=0", "to=a.foo"], "to=a.foo: type a file that ends in .png or .svg"),
        (["run=no_such", "prompts=0", "to=/proc/x/a.png"], "to=/proc/x cannot be written to"),
    ],
)
def test_13_what_sheet_cannot_draw_gets_one_line(words, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = error_line(script(sheet, *words, capsys=capsys, monkeypatch=monkeypatch))
    assert line.startswith(f"error: {says}")
