import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from blip import Toy, reward
from digests import sha256
from PIL import Image
from planted import Planted
from torch.nn import functional as F

from eval.metrics import metric, preference
from eval.metrics.checkpoints import read_state_dict
from eval.metrics.files import HPS, hub_path
from eval.metrics.pictures import Pictures
from eval.metrics.reward_net import Sizes, bert_tokenizer, load_reward_net
from spectrum.core.errors import SpectrumError

pytest.importorskip("torchvision")
open_clip = pytest.importorskip("open_clip")
transformers = pytest.importorskip("transformers")

TOY = Sizes(
    side=32, patch=8, width=24, depth=2, heads=3, text_width=16, text_depth=2, text_heads=2, inner=40, words=12,
    positions=40, head=(12, 8, 6, 4),
)  # fmt: skip
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "red", "cube", "##s", "two"]
PROMPTS = ["Two red cubes!", "a cube", "a " * 60]
IDS = [[2, 8, 5, 6, 7, 1, 3], [2, 4, 6, 3], [2, *[4] * 33, 3]]


def padded(ids):
    rows, mask = torch.zeros(len(ids), 35, dtype=torch.long), torch.zeros(len(ids), 35, dtype=torch.long)
    for number, row in enumerate(ids):
        rows[number, : len(row)], mask[number, : len(row)] = torch.tensor(row), 1
    return rows, mask


def normalised(pixels):
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    return (pixels - mean) / torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A toy checkpoint with its vocabulary beside it, and toy sizes in place of the published ones."""
    monkeypatch.setattr(preference, "PUBLISHED", TOY)
    monkeypatch.setattr(preference, "hub_path", lambda source: tmp_path / "cache" / source.allow[0])
    state = Toy(TOY)
    torch.save(dict(state), tmp_path / "ImageReward.pt")
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return tmp_path, state


@pytest.fixture
def images():
    return torch.randint(0, 256, (3, 3, 32, 32), generator=torch.Generator().manual_seed(1)) / 255


def test_image_reward_is_that_of_the_published_parametrisation(files, images):
    folder, state = files
    found = metric.metric_of("image_reward", {"checkpoint": str(folder / "ImageReward.pt")})
    result = found(Pictures(images), None, PROMPTS)
    expected = reward(state, TOY, normalised(images), *padded(IDS))
    np.testing.assert_allclose(result.values, expected, rtol=1e-4, atol=1e-5)
    assert result.provenance == {
        "model": "ImageReward",
        "checkpoint": "ImageReward.pt",
        "sha256": sha256(folder / "ImageReward.pt"),
        "vocabulary_sha256": sha256(folder / "vocab.txt"),
        "transformers": transformers.__version__,
    }


def test_every_weight_of_the_published_parametrisation_counts(files, images):
    """In double precision, where even the epsilons of the norms show; each of the weights moves the reward."""
    folder, state = files
    ids, mask = padded(IDS)
    net, pixels = load_reward_net(folder / "ImageReward.pt", TOY).double(), normalised(images.double())
    double = {name: value.double() for name, value in state.items()}
    with torch.no_grad():
        expected = reward(double, TOY, pixels, ids, mask)
        torch.testing.assert_close(net(pixels, ids, mask), expected, rtol=1e-8, atol=1e-8)
        assert expected.std() > 0.1
        still = [
            name
            for name, value in double.items()
            if torch.equal(reward({**double, name: 1.5 * value + 0.1}, TOY, pixels, ids, mask), expected)
        ]
    projections = [f"blip.{kind}_proj.{part}" for kind in ("vision", "text") for part in ("weight", "bias")]
    assert sorted(still) == sorted([*projections, "blip.text_encoder.embeddings.position_ids"])


def test_image_reward_resizes_the_shorter_side_and_crops(files):
    folder, state = files
    tall = torch.randint(0, 256, (1, 3, 80, 64), generator=torch.Generator().manual_seed(2)) / 255
    result = preference.image_reward(Pictures(tall), None, PROMPTS[:1], checkpoint=str(folder / "ImageReward.pt"))
    picture = Image.fromarray((tall[0].permute(1, 2, 0) * 255).round().byte().numpy())
    sized = np.asarray(picture.resize((32, 40), Image.Resampling.BICUBIC).crop((0, 4, 32, 36)))
    pixels = torch.from_numpy(sized.copy()).permute(2, 0, 1)[None] / 255
    expected = reward(state, TOY, normalised(pixels), *padded(IDS[:1]))
    np.testing.assert_allclose(result.values, expected, rtol=1e-4, atol=1e-5)


def test_tokens_are_cut_and_padded_to_35(files):
    folder, _ = files
    ids, mask = bert_tokenizer(folder / "vocab.txt", TOY.words)(PROMPTS)
    for found, expected in zip((ids, mask), padded(IDS), strict=True):
        torch.testing.assert_close(found, expected)
    ids, mask = bert_tokenizer(folder / "vocab.txt", TOY.words)(PROMPTS[:2])
    assert ids.shape == mask.shape == (2, 35)
    (folder / "vocab.txt").write_text("a\nb\n")
    with pytest.raises(SpectrumError, match=r"eval\.image_reward\.vocabulary=FILE"):
        bert_tokenizer(folder / "vocab.txt", TOY.words)


def test_a_tokens_id_is_the_number_of_its_line(tmp_path):
    """Whatever lines there are before it: a blank one, one of a space that does not break, the padding."""
    words = ["", "a", "\u00a0", "[UNK]", "[CLS]", "[SEP]", "[PAD]", "cube"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    ids, mask = bert_tokenizer(tmp_path / "vocab.txt", len(words))(["A cube of"])
    assert ids.tolist() == [[4, 1, 7, 3, 5, *[6] * 30]] and mask.tolist() == [[*[1] * 5, *[0] * 30]]
    with pytest.raises(SpectrumError, match=r"is not the vocab\.txt"):
        bert_tokenizer(tmp_path / "vocab.txt", len(words) - 1)
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n")
    assert bert_tokenizer(tmp_path / "vocab.txt", 4)(["a"])[0][0, :4].tolist() == [2, 1, 3, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("blip.visual_encoder.blocks.1.attn.qkv.bias"), "lacks vision.encoder.layers.1.self_attn.qkv"),
        (lambda s: s.pop("mlp.layers.7.weight"), "lacks mlp.7.weight"),
        (lambda s: s.update({"blip.text_decoder.cls": torch.zeros(1)}), "has the unknown blip.text_decoder.cls"),
        (
            lambda s: s.update({"mlp.layers.6.bias": torch.zeros(9)}),
            r"mlp.6.bias has the shape \(9,\) instead of \(4,\)",
        ),
    ],
)
def test_a_checkpoint_with_other_keys_is_refused(files, change, message):
    folder, state = files
    change(state)
    torch.save(dict(state), folder / "other.pt")
    with pytest.raises(SpectrumError, match=rf"other\.pt is no checkpoint of ImageReward: .*{message}"):
        load_reward_net(folder / "other.pt", TOY)


def test_checkpoints_of_other_sizes_and_files_that_are_none_are_refused(files):
    folder, _ = files
    with pytest.raises(SpectrumError, match=r"lacks vision\.encoder\.layers\.2"):
        load_reward_net(folder / "ImageReward.pt", replace(TOY, depth=3))
    (folder / "text.pt").write_text("version https://git-lfs.github.com/spec/v1")
    torch.save({"epoch": 3}, folder / "none.pt")
    torch.save({"weight": Planted(folder / "ran")}, folder / "planted.pt")
    for name, message in (("text.pt", "torch can read"), ("none.pt", "no state dict"), ("planted.pt", "can read")):
        with pytest.raises(SpectrumError, match=message):
            read_state_dict(folder / name)
    assert not (folder / "ran").exists()


def test_missing_files_are_named_with_the_way_to_get_them(files, images):
    folder, _ = files
    pictures, given = Pictures(images), {"checkpoint": str(folder / "ImageReward.pt")}
    weights = r"^image_reward needs the weights .*ImageReward\.pt.*scripts/fetch\.py image_reward.*\.checkpoint=FILE$"
    with pytest.raises(metric.AbsentError, match=weights):
        preference.image_reward(pictures, None, PROMPTS)
    beside = preference.image_reward(pictures, None, PROMPTS, **given)
    (folder / "vocab.txt").rename(folder / "words")
    vocabulary = r"^image_reward needs the weights .*vocab\.txt.*scripts/fetch\.py image_reward.*\.vocabulary=FILE$"
    with pytest.raises(metric.AbsentError, match=vocabulary):
        preference.image_reward(pictures, None, PROMPTS, **given)
    named = preference.image_reward(pictures, None, PROMPTS, **given, vocabulary=str(folder / "words"))
    (folder / "cache").mkdir()
    (folder / "words").rename(folder / "cache" / "vocab.txt")
    cached = preference.image_reward(pictures, None, PROMPTS, **given)
    assert beside == named == cached
    with pytest.raises(
        metric.AbsentError, match=r"^hpsv2 needs the weights .*scripts/fetch\.py hpsv2.*eval\.hpsv2\.checkpoint=FILE"
    ):
        preference.hpsv2(pictures, None, PROMPTS)


@pytest.mark.parametrize(
    ("name", "module", "install"),
    [
        ("image_reward", "transformers", "transformers"),
        ("image_reward", "torchvision.transforms", "torchvision"),
        ("hpsv2", "open_clip", "open_clip_torch"),
    ],
)
def test_missing_packages_and_prompts_are_named(name, module, install, images, monkeypatch):
    score = metric.metric_of(name, {})
    with pytest.raises(SpectrumError, match=rf"^{name} needs one prompt a picture: there are 3 pictures and 2 prompts"):
        score(Pictures(images), None, PROMPTS[:2])
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(metric.AbsentError, match=rf"^{name} needs the package {install} \("):
        score(Pictures(images), None, PROMPTS)


def test_the_hugging_face_cache_is_looked_in(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert not hub_path(HPS).is_file()
    folder = tmp_path / "models--xswu--HPSv2"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    (folder / "snapshots" / "abc").mkdir(parents=True)
    (folder / "snapshots" / "abc" / "HPS_v2_compressed.pt").write_bytes(b"0")
    assert hub_path(HPS) == folder / "snapshots" / "abc" / "HPS_v2_compressed.pt"
    pinned = folder / "snapshots" / str(HPS.revision) / "HPS_v2_compressed.pt"
    pinned.parent.mkdir()
    pinned.write_bytes(b"1")
    assert hub_path(HPS) == pinned


@pytest.fixture
def small(tmp_path):
    """A small architecture that open_clip knows for one test, with random weights in a file."""
    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "toy-hps.json").write_text(json.dumps({"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(folder)
    torch.manual_seed(0)
    net, _, preprocess = open_clip.create_model_and_transforms("toy-hps")
    torch.save({"epoch": 1, "state_dict": net.state_dict()}, tmp_path / "hps.pt")
    torch.save(net.state_dict(), tmp_path / "bare.pt")
    yield tmp_path, net.eval(), preprocess
    open_clip.factory._MODEL_CONFIG_PATHS.remove(folder)
    open_clip.factory._MODEL_CONFIGS.pop("toy-hps")


def test_hpsv2_is_the_cosine_that_open_clip_gives(small, images):
    folder, net, preprocess = small
    pixels = [Image.fromarray((i.permute(1, 2, 0) * 255).round().byte().numpy()) for i in images]
    with torch.no_grad():
        seen = net.encode_image(torch.stack([preprocess(p) for p in pixels]))
        read = net.encode_text(open_clip.get_tokenizer("toy-hps")(PROMPTS))
    expected = F.cosine_similarity(seen, read)
    for name in ("hps.pt", "bare.pt"):
        found = metric.metric_of("hpsv2", {"model": "toy-hps", "checkpoint": str(folder / name)})
        result = found(Pictures(images), None, PROMPTS)
        np.testing.assert_allclose(result.values, expected, atol=1e-6)
        digest, version = sha256(folder / name), open_clip.__version__
        facts = {"model": "toy-hps", "checkpoint": name, "sha256": digest, "open_clip": version}
        assert result.provenance == facts


def test_hpsv2_pads_to_a_square_with_black(small, images):
    folder, _, _ = small
    wide = images[:1, :, :16]
    square = torch.zeros(1, 3, 32, 32)
    square[:, :, 8:24] = wide
    values = [
        preference.hpsv2(Pictures(p), None, PROMPTS[:1], checkpoint=str(folder / "hps.pt"), model="toy-hps").values
        for p in (wide, square, images[:1])
    ]
    assert values[0] == pytest.approx(values[1], abs=1e-6)
    assert values[0] != pytest.approx(values[2], abs=1e-3)


def test_hpsv2_refuses_other_architectures_and_weights(small, images):
    folder, net, _ = small
    with pytest.raises(SpectrumError, match=r"eval\.hpsv2\.model=ViT-Z-1 is unknown"):
        preference.hpsv2(Pictures(images), None, PROMPTS, model="ViT-Z-1")
    state = net.state_dict()
    state.pop("visual.class_embedding")
    torch.save(state, folder / "other.pt")
    with pytest.raises(
        SpectrumError, match=r"other\.pt is no checkpoint of open_clip's toy-hps: it lacks visual\.class_emb"
    ):
        preference.hpsv2(Pictures(images), None, PROMPTS, checkpoint=str(folder / "other.pt"), model="toy-hps")
