"""The embedded model: what ships, that diffusers loads it alone, and that the held-out pairs were held out."""

import numpy as np
import pytest
from embedded import check_diffusers_loads_it, check_whole_and_small
from PIL import Image
from tiny import scenes, vocabulary
from toys import emoji_folder
from typed import typed

from spectrum.models.identity import ASSETS, EMBEDDED

UNSEEN = ("development", "heldout", "sealed")
"""The prompt lists of pairs of object and ground colour that training never showed."""


def test_diffusers_loads_it_with_nothing_of_ours(tmp_path):
    call = '"a cat on blue", negative_prompt="", true_cfg_scale=4.0, height=96, width=96, max_sequence_length=16'
    check_diffusers_loads_it(EMBEDDED, "FluxPipeline", call, tmp_path)


def test_it_is_whole_and_small():
    check_whole_and_small(EMBEDDED)


@pytest.fixture(scope="module")
def drawn():
    """Captions of 4000 training scenes, with the names and colour each was really painted with."""
    blank = {name: Image.new("RGBA", (8, 8)) for name in vocabulary.FILES}
    seen = []

    class Spy(dict):
        def __getitem__(self, name):
            seen[-1][0].add(name)
            return super().__getitem__(name)

    painted = scenes.paint_ground

    def ground(colour, pattern, rng):
        seen.append((set(), colour))
        return painted(colour, pattern, rng)

    scenes.paint_ground = ground
    try:
        captions = [scenes.draw(Spy(blank), np.random.default_rng([2, i])).caption for i in range(4000)]
    finally:
        scenes.paint_ground = painted
    return captions, seen


def test_training_never_shows_a_held_out_pair(drawn):
    captions, seen = drawn
    assert all(colour != vocabulary.unseen_colour(name) for names, colour in seen for name in names)
    assert len({colour for _, colour in seen}) == len(vocabulary.COLOURS)
    assert len(set().union(*(names for names, _ in seen))) == len(vocabulary.FILES)
    for name in UNSEEN:
        assert not set((ASSETS / "prompts" / f"{name}.txt").read_text().splitlines()) & set(captions), name


@pytest.mark.parametrize(("name", "held"), [("calibration", False), *((name, True) for name in UNSEEN)])
def test_prompt_lists(name, held):
    lines = (ASSETS / "prompts" / f"{name}.txt").read_text().splitlines()
    assert len(lines) == len(set(lines)) >= 64
    for line in lines:
        colour = line.split()[-1]
        words = f" {line} "
        names = [n for n in vocabulary.FILES if f" {n} " in words]
        assert names and all((vocabulary.unseen_colour(n) == colour) is held for n in names), line


def test_every_caption_word_is_one_token(_tiny, drawn):
    for caption in drawn[0][:500]:
        assert len(_tiny.tokenizer_2(caption).input_ids) == len(caption.split()) + 1 <= 16
        assert len(_tiny.tokenizer(caption).input_ids) == len(caption.split()) + 2 <= 24


def test_the_recipe_runs(tmp_path):
    """Both trainings for two steps each, from painted pictures to a folder that loads."""
    words = ["--emoji", emoji_folder(tmp_path / "emoji"), "--work", tmp_path / "work", "--out", tmp_path / "out"]
    words += ["--vae-steps", 2, "--scenes", 40, "--steps", 2, "--batch", 4, "--measured", 1]
    words += ["--no-compile", "--prompts", tmp_path]
    ran = typed("scripts/train_tiny.py", *words)
    assert ran.code == 0, ran.err
    assert (tmp_path / "out" / "model_index.json").exists()
    for name in ("calibration", *UNSEEN):
        assert (tmp_path / f"{name}.txt").read_text() == (ASSETS / "prompts" / f"{name}.txt").read_text()
