"""The CLIP score against open_clip's own code, and the small CLIP that ships here."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from planted import Planted
from tiny import scenes, vocabulary
from toys import emoji_folder

from eval.metrics import text
from eval.metrics.metric import AbsentError
from eval.metrics.pictures import Pictures
from spectrum.core.errors import SpectrumError

open_clip = pytest.importorskip("open_clip")
ROOT = Path(__file__).resolve().parent.parent
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
    torch.manual_seed(0)
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
    assert found.provenance["checkpoint"] == "toy.pt" and len(found.provenance["sha256"]) == 64


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


def test_missing_weights_and_bad_input_are_named(checkpoint):
    pictures = Pictures(torch.rand(3, 3, 16, 16))
    with pytest.raises(AbsentError, match=r"checkpoint=FILE"):
        text.clip_score(pictures, None, PROMPTS, model="ViT-B-32")
    with pytest.raises(AbsentError, match=r"none\.pt"):
        text.clip_score(pictures, None, PROMPTS, model="ViT-B-32", checkpoint="none.pt")
    with pytest.raises(SpectrumError, match="unknown to open_clip"):
        text.clip_score(pictures, None, PROMPTS, model="ViT-Z-1", checkpoint=str(checkpoint))
    with pytest.raises(SpectrumError, match="3 pictures and 2 prompts"):
        text.clip_score(pictures, None, PROMPTS[:2])


def test_checkpoints_that_cannot_be_used_are_refused_and_run_no_code(checkpoint, tmp_path):
    torch.save({"state_dict": Planted(tmp_path / "ran")}, tmp_path / "planted.pt")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pt")
    torch.save({}, tmp_path / "empty.pt")
    (tmp_path / "torn.pt").write_bytes(checkpoint.read_bytes()[:1000])
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    pictures = Pictures(torch.rand(3, 3, 16, 16))
    for name in ("planted.pt", "other.pt", "empty.pt", "torn.pt", "torn.safetensors"):
        with pytest.raises(
            SpectrumError, match=rf"{name} is no checkpoint of open_clip's toy-clip \(.*checkpoint=FILE"
        ):
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


def test_it_tells_a_caption_from_another():
    """Grounds alone, painted here: the caption with the right colour is nearer."""
    towers = text.embedded()
    colours = list(vocabulary.COLOURS)
    grounds = [scenes.paint_ground(c, "plain", np.random.default_rng(0)) for c in colours]
    images = torch.from_numpy(np.stack(grounds)).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        likeness = towers.image(images) @ towers.text([f"a cat on {c}" for c in colours]).T
    assert (likeness.argmax(1) == torch.arange(len(colours))).double().mean() > 0.7


def test_the_recipe_runs(tmp_path):
    words = ["--emoji", emoji_folder(tmp_path / "emoji"), "--work", tmp_path / "w", "--out", tmp_path / "out"]
    words += ["--pictures", 200, "--steps", 2, "--batch", 8, "--held", 8]
    ran = subprocess.run([sys.executable, "scripts/train_clip.py", *map(str, words)], cwd=ROOT, capture_output=True,
                         text=True, check=False)  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert text.embedded(tmp_path / "out").text(["a cat on blue"]).shape == (1, 96)
