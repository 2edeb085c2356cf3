"""Frechet and kernel distances against clean-fid on the same features."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from digests import sha256
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


def test_frechet_of_two_axes_by_hand():
    """Rows vary by 3 along one axis and by 1 along another, and are shifted by 2 along the first and 5 along the third.

    On the first axis alone the distance is 2^2; on the first two the same; on all three 2^2 + 5^2.
    """
    rows = np.array([[3.0, 1, 0], [-3, 1, 0], [3, -1, 0], [-3, -1, 0], [0, 0, 0.01], [0, 0, -0.01]])
    reference, shifted, wider = Moments(), Moments(), Moments()
    for moments, given in ((reference, rows), (shifted, rows + np.array([2.0, 0, 5])), (wider, 2 * rows)):
        moments.add(given)
    np.testing.assert_allclose(np.abs(reference.principal_axes(2)), np.eye(3)[:, :2], atol=1e-9)
    for count, expected in ((1, 4), (2, 4), (3, 29)):
        found = frechet(shifted, reference, reference.principal_axes(count))
        assert found == pytest.approx(expected, abs=1e-9)
    # deviations of 2 s against s add (2 s - s)^2, and the variances are 36 / 5 and 4 / 5
    assert frechet(wider, reference, reference.principal_axes(2)) == pytest.approx(36 / 5 + 4 / 5, abs=1e-9)


def test_equal_sets_are_at_distance_zero():
    assert frechet(of(features(90, 8, 6)), of(features(90, 8, 6))) == pytest.approx(0, abs=1e-9)


def test_kid_agrees_with_clean_fid():
    a, b = features(60, 12, 7), features(60, 12, 8, 0.4)
    expected = clean.kernel_distance(a, b, num_subsets=3)
    assert kernel_distance(a, b, subsets=3)[0] == pytest.approx(expected, rel=1e-9)


def test_kid_of_two_pictures_by_hand():
    """The kernel (x y + 1)^3 of 1 and 3 with one another is 64, of 1 and 2 27, and across 8, 27, 64 and 343."""
    expected = (2 * 64 + 2 * 27) / 2 - 2 * (8 + 27 + 64 + 343) / 4
    found = kernel_distance(np.array([[1.0], [3.0]]), np.array([[1.0], [2.0]]))
    assert found == (pytest.approx(expected), pytest.approx(0, abs=1e-9))
    for count in ((1, 3), (3, 1)):
        with pytest.raises(SpectrumError, match="KID needs at least two pictures on either side"):
            kernel_distance(*(np.ones((n, 1)) for n in count))


def test_kid_draws_subsets_from_seed_0():
    a, b = features(7, 3, 9), features(9, 3, 10, 0.5)
    rng, values = np.random.default_rng(0), []

    def kernel(u, v):
        return (float(np.dot(u, v)) / 3 + 1) ** 3

    for _ in range(4):
        x, y = (rows[rng.choice(len(rows), 5, replace=False)] for rows in (a, b))
        within = sum(kernel(s[i], s[j]) for s in (x, y) for i in range(5) for j in range(5) if i != j) / 20
        values.append(within - 2 * sum(kernel(u, v) for u in x for v in y) / 25)
    assert kernel_distance(a, b, subsets=4, size=5) == pytest.approx((np.mean(values), np.std(values)), rel=1e-9)


@pytest.mark.parametrize(("counts", "size"), [((1100, 1200), 1000), ((5, 9), 5), ((9, 5), 5)])
def test_kid_draws_100_times_1000_pictures_or_as_many_as_there_are(counts, size, monkeypatch):
    asked = []

    class Draws:
        """A generator that notes what is asked of it, and draws the first two rows."""

        def choice(self, count, size, replace):
            asked.append((count, size, replace))
            return np.arange(2)

    monkeypatch.setattr(np.random, "default_rng", lambda seed: Draws())
    kernel_distance(*(np.ones((count, 1)) for count in counts))
    assert asked == [(count, size, False) for count in counts] * 100


def test_moments_are_in_float64_whatever_comes_in():
    rows = (features(300, 6, 11) + 1000).astype(np.float32)
    for given in (rows, torch.from_numpy(rows)):
        found = Moments()
        found.add(given)
        np.testing.assert_allclose(found.mean, rows.astype(np.float64).mean(0), rtol=1e-12)
        np.testing.assert_allclose(found.factor.T @ found.factor, np.cov(rows.astype(np.float64).T), rtol=1e-7)


def test_features_that_hang_together_have_a_finite_distance():
    """20 columns that are sums of 4: the covariance has eigenvalues that rounding puts below 0."""
    a, b = (features(50, 4, seed) @ features(4, 20, 12) for seed in (13, 14))
    assert np.linalg.eigvalsh(np.cov(a.T)).min() < 0
    assert np.isfinite(of(a).factor).all() and np.isfinite(frechet(of(a), of(b)))
    np.testing.assert_allclose(of(a).factor.T @ of(a).factor, np.cov(a.T), atol=1e-9)


class Extractor(torch.nn.Module):
    """Stands for Inception: the same call, a few pooled products of colours, or without them three colours."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        x = self.scale * x / 255
        if not return_features:
            return x.mean((2, 3))
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
    a, b = write(tmp_path / "a", 60, 0), write(tmp_path / "b", 50, 1)
    weights = tmp_path / "inception.pt"
    torch.jit.script(Extractor()).save(str(weights))
    net = Extractor()

    def features_of(x):
        return net(x, return_features=True)

    given = {"custom_feat_extractor": features_of, "num_workers": 0, "verbose": False, "device": "cpu"}
    own, other = Pictures.folder(a), Pictures.folder(b)
    fid = d.fid(own, other, [], weights=str(weights))
    assert fid.aggregate == pytest.approx(clean.compute_fid(str(a), str(b), **given), rel=1e-6)
    facts = {"backbone": "inception.pt", "sha256": sha256(weights)}
    assert fid.warning == "from 60 samples; below 2048 a Frechet distance is biased upwards"
    assert fid.provenance == {"samples": 60, "reference": 50, **facts}
    rows = [
        clean.get_folder_features(str(f), model=features_of, num_workers=0, device="cpu", verbose=False) for f in (a, b)
    ]
    mine = [
        np.concatenate(list(d.feature_batches(p, d.inception_features("kid", str(weights))[0]))) for p in (own, other)
    ]
    for ours, theirs in zip(mine, rows, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    kid = d.kid(own, other, [], weights=str(weights))
    mean, spread = kernel_distance(*mine)
    assert kid.aggregate == 1000 * mean and spread > 1e-6
    assert kid.provenance == {"samples": 60, "spread": pytest.approx(1000 * spread, rel=1e-9), **facts}
    assert kid.values is None and fid.values is None


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


def test_a_missing_backbone_is_absent_and_named(tmp_path, monkeypatch):
    pictures = Pictures(torch.rand(2, 3, 8, 8))
    with pytest.raises(AbsentError, match=r"inception\.pt.*eval\.fid\.weights"):
        d.fid(pictures, pictures, [], weights=str(tmp_path / "inception.pt"))
    (tmp_path / "torn.pt").write_bytes(b"PK torn")
    with pytest.raises(AbsentError, match=r"torn\.pt is no TorchScript"):
        d.fid(pictures, pictures, [], weights=str(tmp_path / "torn.pt"))
    for name, function in (("fid", d.fid), ("kid", d.kid)):
        how = rf"type python scripts/fetch\.py fid, or eval\.{name}\.weights=FILE$"
        with pytest.raises(AbsentError, match=rf"^{name} needs the weights .*: {how}"):
            function(pictures, pictures, [], weights=str(tmp_path / "none.pt"))
    monkeypatch.setitem(sys.modules, "cleanfid", None)
    for name, function in (("fid", d.fid), ("kid", d.kid)):
        with pytest.raises(AbsentError, match=rf"^{name} needs the package clean-fid \("):
            function(pictures, pictures, [])


def test_inception_is_looked_for_in_torch_hubs_cache_and_then_where_clean_fid_keeps_it(tmp_path, monkeypatch):
    assert Path("/tmp") == d.CLEAN_FID
    monkeypatch.setattr(d, "CLEAN_FID", tmp_path / "tmp")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    name = "inception-2015-12-05.pt"
    with pytest.raises(AbsentError, match=rf"^kid needs the weights .*/hub/checkpoints/{name}"):
        d.inception_features("kid", None)
    for folder, scale in (("tmp", 2.0), ("hub/checkpoints", 3.0)):
        (tmp_path / folder).mkdir(parents=True)
        torch.jit.script(Extractor(scale)).save(str(tmp_path / folder / name))
        features, facts = d.inception_features("fid", None)
        assert facts == {"backbone": name, "sha256": sha256(tmp_path / folder / name)}
        # the last three features are the mean squares of the colours, here of 51 of 255
        assert features(torch.full((1, 3, 8, 8), 0.2))[0, -3:].tolist() == pytest.approx([(0.2 * scale) ** 2] * 3)


def test_pictures_are_rounded_to_8_bits_for_inception(tmp_path):
    torch.jit.script(Extractor()).save(str(tmp_path / "net.pt"))
    features, _ = d.inception_features("fid", str(tmp_path / "net.pt"))
    grey = torch.tensor([100.4, 100.6, 101.4])[None, :, None, None].expand(1, 3, 8, 8) / 255
    assert (features(grey)[0, -3:].sqrt() * 255).tolist() == pytest.approx([100, 101, 101], abs=1e-3)


def test_few_samples_carry_a_warning(tmp_path, monkeypatch):
    assert d.ENOUGH == 2048
    monkeypatch.setattr(d, "ENOUGH", 3)
    torch.jit.script(Extractor()).save(str(tmp_path / "net.pt"))
    two, three = (Pictures(torch.rand(count, 3, 8, 8)) for count in (2, 3))
    for own, other, warning in (
        (two, three, "from 2 samples; below 3 a Frechet distance is biased upwards"),
        (three, two, ""),
    ):
        found = d.fid(own, other, [], weights=str(tmp_path / "net.pt"))
        assert found.warning == warning
        assert (found.provenance["samples"], found.provenance["reference"]) == (len(own), len(other))
    for name, function in (("fid", d.fid), ("kid", d.kid)):
        with pytest.raises(SpectrumError, match=rf"^{name} compares with the uncached run"):
            function(two, None, [], weights=str(tmp_path / "net.pt"))


def test_features_are_made_of_64_pictures_at_a_time():
    pictures = Pictures(torch.arange(130.0)[:, None, None, None].expand(-1, 3, 2, 2) / 130)
    batches = list(d.feature_batches(pictures, lambda images: images[:, 0, 0]))
    assert [len(rows) for rows in batches] == [64, 64, 2]
    assert np.concatenate(batches)[:, 0] == pytest.approx(np.arange(130) / 130)
    assert {rows.dtype for rows in batches} == {np.dtype(np.float64)}


def test_bad_sets_are_refused(tmp_path):
    with pytest.raises(SpectrumError, match="two pictures"):
        frechet(of(features(7, 3, 0)[:1].repeat(1, 0)), of(features(7, 3, 0)))
    moments = Moments()
    with pytest.raises(SpectrumError, match="NaN"):
        moments.add(np.array([[np.nan, 1.0]]))
    with pytest.raises(SpectrumError, match="no reference"):
        d.frechet_lite0(Pictures(torch.rand(2, 3, 8, 8)), None, [])
