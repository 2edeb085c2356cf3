"""PickScore against CLIP's parts put together by hand, on toy networks of the real class."""

import json
import sys

import numpy as np
import pytest
import torch
from digests import sha256
from PIL import Image
from planted import Planted
from safetensors.torch import load_file, save_file

from eval.metrics import preference
from eval.metrics.metric import AbsentError, metric_of
from eval.metrics.pictures import Pictures
from spectrum.core.errors import SpectrumError

transformers = pytest.importorskip("transformers")
open_clip = pytest.importorskip("open_clip")
pytest.importorskip("torchvision")
PROMPTS = ["a red cube", "two keys", "a cat " * 60]
TOWER = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3}


@pytest.fixture
def toy(tmp_path):
    """A folder as the published one is laid out, with a small CLIP of random weights whose scale is 37."""
    vision = {**TOWER, "image_size": 32, "patch_size": 8}
    torch.manual_seed(3)
    net = transformers.CLIPModel(transformers.CLIPConfig(text_config=TOWER, vision_config=vision, projection_dim=12))
    net.logit_scale.data = torch.tensor(37.0).log()
    net.save_pretrained(tmp_path / "pick")
    return tmp_path / "pick", net.eval()


@pytest.fixture
def images():
    return torch.randint(0, 256, (3, 3, 40, 32), generator=torch.Generator().manual_seed(1)) / 255


def by_hand(net, images, prompts):
    """The scale times the cosine of the projected first patch and the projected last token."""
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    deviation = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    pixels = [Image.fromarray((i.permute(1, 2, 0) * 255).round().byte().numpy()) for i in images]
    middles = [np.asarray(picture.crop((0, 4, 32, 36))).copy() for picture in pixels]
    sized = torch.from_numpy(np.stack(middles)).permute(0, 3, 1, 2) / 255
    ids = open_clip.get_tokenizer("ViT-H-14")(prompts)
    with torch.no_grad():
        patches = net.vision_model.encoder(
            inputs_embeds=net.vision_model.pre_layrnorm(net.vision_model.embeddings((sized - mean) / deviation))
        ).last_hidden_state
        seen = net.visual_projection(net.vision_model.post_layernorm(patches[:, 0]))
        words = net.text_model(input_ids=ids).last_hidden_state
        read = net.text_projection(words[torch.arange(len(ids)), ids.argmax(1)])
    cosines = (seen * read).sum(1) / (seen.square().sum(1) * read.square().sum(1)).sqrt()
    return 37 * cosines


def test_pick_score_is_the_scale_times_the_cosine(toy, images):
    folder, net = toy
    found = metric_of("pick_score", {"checkpoint": str(folder)})(Pictures(images), None, PROMPTS)
    expected = by_hand(net, images, PROMPTS)
    np.testing.assert_allclose(found.values, expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.5
    assert found.provenance == {
        "model": "PickScore",
        "checkpoint": "model.safetensors",
        "sha256": sha256(folder / "model.safetensors"),
        "transformers": transformers.__version__,
    }
    alone = preference.pick_score(Pictures(images[2:]), None, PROMPTS[2:], checkpoint=str(folder))
    assert alone.values == pytest.approx(found.values[2:], rel=1e-4)


def test_older_checkpoints_are_read_too(toy, images):
    """A file of torch, with the positions that transformers once stored."""
    folder, net = toy
    state = {**net.state_dict(), "text_model.embeddings.position_ids": torch.arange(77)[None]}
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    found = preference.pick_score(Pictures(images), None, PROMPTS, checkpoint=str(folder))
    np.testing.assert_allclose(found.values, by_hand(net, images, PROMPTS), rtol=1e-4, atol=1e-4)
    assert found.provenance["checkpoint"] == "pytorch_model.bin"
    torch.save({"weight": Planted(folder / "ran")}, folder / "pytorch_model.bin")
    with pytest.raises(SpectrumError, match=r"is no CLIP model that transformers can read \(.*\): type eval"):
        preference.pick_score(Pictures(images), None, PROMPTS, checkpoint=str(folder))
    assert not (folder / "ran").exists()


def test_another_network_is_refused(toy, images):
    folder, _ = toy
    state = load_file(folder / "model.safetensors")
    lacking = {name: value for name, value in state.items() if name != "visual_projection.weight"}
    more = {**state, "head.bias": torch.zeros(1)}
    for changed, fault in ((lacking, "lacks visual_projection"), (more, "has the unknown head")):
        save_file(changed, folder / "model.safetensors", {"format": "pt"})
        with pytest.raises(SpectrumError, match=rf"model\.safetensors is no checkpoint of CLIP: it {fault}.*1 such"):
            preference.pick_score(Pictures(images), None, PROMPTS, checkpoint=str(folder))
    save_file({**state, "visual_projection.weight": torch.zeros(3, 3)}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(SpectrumError, match=r"pick is no CLIP model that transformers can read \("):
        preference.pick_score(Pictures(images), None, PROMPTS, checkpoint=str(folder))
    (folder / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(SpectrumError, match=r"pick is no CLIP model that transformers can read \("):
        preference.pick_score(Pictures(images), None, PROMPTS, checkpoint=str(folder))


def test_what_is_missing_is_named(toy, images, tmp_path, monkeypatch):
    folder, net = toy
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    how = r"type hf download yuvalkirstain/PickScore_v1, or eval\.pick_score\.checkpoint=FOLDER$"
    for given in ({}, {"checkpoint": str(tmp_path / "nowhere")}):
        with pytest.raises(AbsentError, match=rf"^pick_score needs the weights .*model\.safetensors, .*: {how}"):
            preference.pick_score(Pictures(images), None, PROMPTS, **given)
    with pytest.raises(SpectrumError, match=r"^pick_score needs one prompt a picture: there are 3 pictures and 2"):
        preference.pick_score(Pictures(images), None, PROMPTS[:2])
    snapshot = tmp_path / "cache/models--yuvalkirstain--PickScore_v1/snapshots/abc"
    snapshot.parent.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs/main").write_text("abc")
    folder.rename(snapshot)
    found = preference.pick_score(Pictures(images), None, PROMPTS)
    np.testing.assert_allclose(found.values, by_hand(net, images, PROMPTS), rtol=1e-4, atol=1e-4)
    assert json.loads((snapshot / "config.json").read_text())["model_type"] == "clip"


@pytest.mark.parametrize(
    ("module", "install"),
    [("transformers", "transformers"), ("torchvision.transforms", "torchvision"), ("open_clip", "open_clip_torch")],
)
def test_missing_packages_are_named(module, install, images, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(AbsentError, match=rf"^pick_score needs the package {install} \("):
        preference.pick_score(Pictures(images), None, PROMPTS)
