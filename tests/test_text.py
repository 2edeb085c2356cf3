"""The CLIP score against open_clip's own code, and the small CLIP that ships here."""

import hashlib
import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from planted import Planted
from safetensors.torch import load_file
from tiny import scenes, vocabulary

from eval.metrics import text
from eval.metrics.metric import AbsentError
from eval.metrics.pictures import Pictures
from spectrum.core.errors import SpectrumError

open_clip = pytest.importorskip("open_clip")
TOY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 48, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
PROMPTS = ["a cat on blue", "two keys", "a red car, seen from afar"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    (folder / "toy-clip.json").write_text(json.dumps(TOY))
    open_clip.add_model_config(folder / "toy-clip.json")
    torch.manual_seed(2)
    model = open_clip.create_model("toy-clip")
    torch.save(model.state_dict(), folder / "toy.pt")
    return folder / "toy.pt"


def pixels():
    return np.random.default_rng(0).integers(0, 256, (3, 60, 52, 3), dtype=np.uint8)


def test_the_score_is_open_clips_cosine(checkpoint):
    model, _, preprocess = open_clip.create_model_and_transforms("toy-clip", pretrained=str(checkpoint))
    model.eval()
    images = torch.stack([preprocess(Image.fromarray(picture)) for picture in pixels()])
    with torch.no_grad():
        a = model.encode_image(images, normalize=True)
        b = model.encode_text(open_clip.get_tokenizer("toy-clip")(PROMPTS), normalize=True)
    expected = 100 * (a * b).sum(-1).clamp(min=0).double().numpy()
    pictures = Pictures(torch.from_numpy(pixels()).permute(0, 3, 1, 2).float() / 255)
    found = text.clip_score(pictures, None, PROMPTS, model="toy-clip", checkpoint=str(checkpoint))
    np.testing.assert_allclose(found.values, expected, rtol=1e-6)
    assert min(found.values) == 0 < max(found.values)
    assert found.provenance == {
        "model": "toy-clip",
        "checkpoint": "toy.pt",
        "sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        "open_clip": open_clip.__version__,
    }


def test_the_score_is_100_times_the_cosine_by_hand(monkeypatch):
    """(3, 4) against (1, 0), (0, 1) and (-1, 0): cosines of .6, .8 and -.6, of which the last counts as 0."""
    directions = {"right": [1.0, 0.0], "up": [0.0, 1.0], "left": [-1.0, 0.0]}
    towers = text.Towers(
        lambda images: torch.tensor([[0.6, 0.8]]).expand(len(images), -1),
        lambda texts: torch.tensor([directions[word] for word in texts]),
        {"sha256": "0"},
    )
    monkeypatch.setattr(text, "towers_of", lambda *given: towers)
    found = text.clip_score(Pictures(torch.rand(3, 3, 8, 8)), None, list(directions))
    assert found.values == pytest.approx([60, 80, 0]) and found.provenance == {"sha256": "0"}
    assert text.cosines(towers, Pictures(torch.rand(3, 3, 8, 8)), list(directions)) == pytest.approx([0.6, 0.8, -0.6])


def test_pictures_meet_their_prompts_across_batches(monkeypatch):
    """130 pictures, of which the 64th, the 65th and the 129th alone fit their prompt: three batches, three scores."""
    towers = text.Towers(
        lambda images: torch.nn.functional.one_hot(images[:, 0, 0, 0].mul(200).round().long(), 200).float(),
        lambda texts: torch.nn.functional.one_hot(torch.tensor([int(word) for word in texts]), 200).float(),
        {},
    )
    monkeypatch.setattr(text, "towers_of", lambda *given: towers)
    pictures = Pictures((torch.arange(130.0) / 200)[:, None, None, None].expand(-1, 3, 2, 2))
    prompts = [str(number if number in (63, 64, 128) else 199) for number in range(130)]
    values = text.clip_score(pictures, None, prompts).values
    assert [number for number, value in enumerate(values) if value] == [63, 64, 128] and values[64] == 100


def test_every_picture_of_a_long_set_meets_its_own_prompt():
    """70 pictures are more than a batch; each is a plain ground of the colour that its prompt names."""
    colours = [list(vocabulary.COLOURS)[number % 9] for number in range(70)]
    grounds = [scenes.paint_ground(colour, "plain", np.random.default_rng(0)) for colour in colours]
    images = torch.from_numpy(np.stack(grounds)).permute(0, 3, 1, 2).float() / 255
    prompts = [f"a cat on {colour}" for colour in colours]
    values = text.clip_score(Pictures(images), None, prompts).values
    alone = text.clip_score(Pictures(images[64:]), None, prompts[64:]).values
    assert min(alone) > 0 and values[64:] != pytest.approx(values[:6], rel=0.01)
    assert values[64:] == pytest.approx(alone, rel=1e-4)


def test_missing_weights_and_bad_input_are_named(checkpoint, monkeypatch, tmp_path):
    pictures = Pictures(torch.rand(3, 3, 16, 16))
    how = r"type eval\.clip_score\.checkpoint=FILE$"
    with pytest.raises(AbsentError, match=rf"^clip_score with ViT-B-32 needs its weights: .* of ViT-B-32 and {how}"):
        text.clip_score(pictures, None, PROMPTS, model="ViT-B-32")
    with pytest.raises(AbsentError, match=rf"^clip_score needs the weights none\.pt, which .*: {how}"):
        text.clip_score(pictures, None, PROMPTS, model="ViT-B-32", checkpoint="none.pt")
    with pytest.raises(SpectrumError, match=r"^eval\.clip_score\.model=ViT-Z-1 is unknown to open_clip"):
        text.clip_score(pictures, None, PROMPTS, model="ViT-Z-1", checkpoint=str(checkpoint))
    with pytest.raises(SpectrumError, match=r"^clip_score needs one prompt a picture: .* 3 pictures and 2 prompts"):
        text.clip_score(pictures, None, PROMPTS[:2])
    with pytest.raises(AbsentError, match=r"^clip_score needs the weights .*model\.safetensors.*: restore the folder$"):
        text.embedded(tmp_path)
    monkeypatch.setitem(sys.modules, "open_clip", None)
    for model in ("tiny", "toy-clip"):
        with pytest.raises(AbsentError, match=r"^clip_score needs the package open_clip_torch \("):
            text.clip_score(pictures, None, PROMPTS, model=model, checkpoint=str(checkpoint))


def test_checkpoints_that_cannot_be_used_are_refused_and_run_no_code(checkpoint, tmp_path):
    torch.save({"state_dict": Planted(tmp_path / "ran")}, tmp_path / "planted.pt")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pt")
    torch.save({}, tmp_path / "empty.pt")
    (tmp_path / "torn.pt").write_bytes(checkpoint.read_bytes()[:1000])
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    pictures = Pictures(torch.rand(3, 3, 16, 16))
    for name in ("planted.pt", "other.pt", "empty.pt", "torn.pt", "torn.safetensors"):
        said = rf"{name} is no checkpoint of open_clip's toy-clip \((?!None)\w[^()]*.*\): type .*checkpoint=FILE$"
        with pytest.raises(SpectrumError, match=said):
            text.clip_score(pictures, None, PROMPTS, model="toy-clip", checkpoint=str(tmp_path / name))
    assert not (tmp_path / "ran").exists()


def test_words_end_with_the_largest_id():
    words = text.WordTokenizer(["a", "cat", "on"], 5)
    ids = words(["a cat", "A dog on a cat on a cat", ""])
    assert ids.tolist() == [[2, 3, 5, 0, 0], [2, 1, 4, 2, 5], [5, 0, 0, 0, 0]]


def test_what_ships_is_small_and_says_how_well_it_retrieves():
    files = [path for path in text.EMBEDDED.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 8e6
    facts = text.embedded().about
    assert facts["held_out_retrieval"]["top_1"] > 0.5
    assert f"{facts['held_out_retrieval']['top_1']:.0%}" in (text.EMBEDDED / "README.md").read_text()


def small_clip():
    """The small CLIP as open_clip builds it."""
    about = json.loads((text.EMBEDDED / "config.json").read_text())
    model = open_clip.model.CLIP(**about["architecture"]).eval()
    model.load_state_dict(load_file(text.EMBEDDED / "model.safetensors"))
    return model, text.WordTokenizer(about["words"], 20), about


def resized(picture, side):
    """A picture (3, height, width) resized by Pillow, which looks at every pixel, without rounding."""
    bands = [Image.fromarray(band).resize((side, side), Image.Resampling.BICUBIC) for band in picture.numpy()]
    return torch.from_numpy(np.stack([np.asarray(band) for band in bands]))


def test_the_small_clips_score_by_its_formula():
    """Pictures of its own size and of twice its size, of noise, which resizing without a filter would change."""
    model, words, about = small_clip()
    prompts = ["a cat on blue", "two keys on red", "an apple left of a dog on a green checkered ground", "moon"]
    for side in (96, 192):
        images = torch.rand(4, 3, side, side, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            seen = model.encode_image(2 * torch.stack([resized(i, 96) for i in images]) - 1)
            read = model.encode_text(words(prompts))
        cosines = torch.nn.functional.cosine_similarity(seen, read)
        found = text.clip_score(Pictures(images), None, prompts)
        np.testing.assert_allclose(found.values, (100 * cosines).clamp(min=0), rtol=1e-3, atol=1e-3)
        assert cosines.min() < -0.01 and min(found.values) == 0 and max(found.values) > 5
    digest = hashlib.sha256((text.EMBEDDED / "model.safetensors").read_bytes()).hexdigest()
    retrieval = about["held_out_retrieval"]
    assert found.provenance == {"model": "tiny (ships here)", "sha256": digest, "held_out_retrieval": retrieval}


def test_its_towers_give_unit_vectors():
    towers = text.embedded()
    with torch.no_grad():
        for rows in (towers.image(torch.rand(2, 3, 96, 96)), towers.text(["a cat", "two keys"])):
            np.testing.assert_allclose(rows.norm(dim=1), 1, rtol=1e-5)


def test_retrieval_by_hand():
    """Picture `i` likes text `j` by a table; it finds its own text at the rank given, of seven."""
    ranks = [1, 1, 2, 5, 6, 7, 1]
    likeness = torch.zeros(7, 7)
    for picture, rank in enumerate(ranks):
        others = [text for text in range(7) if text != picture]
        order = [*others[: rank - 1], picture, *others[rank - 1 :]]
        likeness[picture, order] = torch.arange(7, 0, -1).float()
    towers = text.Towers(lambda images: likeness[images[:, 0, 0, 0].long()], lambda texts: torch.eye(len(texts)), {})
    images = torch.arange(7)[:, None, None, None].expand(-1, 3, 4, 4)
    found = text.retrieval(towers, images, [str(number) for number in range(7)])
    assert found == {"top_1": pytest.approx(3 / 7), "top_5": pytest.approx(5 / 7)}


def test_it_tells_a_caption_from_another():
    """Grounds alone, painted here: the caption with the right colour is nearer."""
    towers = text.embedded()
    colours = list(vocabulary.COLOURS)
    grounds = [scenes.paint_ground(c, "plain", np.random.default_rng(0)) for c in colours]
    images = torch.from_numpy(np.stack(grounds)).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        likeness = towers.image(images) @ towers.text([f"a cat on {c}" for c in colours]).T
    assert (likeness.argmax(1) == torch.arange(len(colours))).double().mean() > 0.7
