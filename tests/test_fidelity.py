import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from eval import statistics
from eval.metrics import fidelity, pictures
from spectrum.core.errors import SpectrumError


@pytest.fixture
def pair():
    g = torch.Generator().manual_seed(0)
    reference = torch.rand(3, 3, 128, 128, generator=g)
    return (reference + 0.1 * torch.randn(reference.shape, generator=g)).clamp(0, 1), reference


def test_psnr_agrees_with_scikit_image(pair):
    samples, reference = pair
    expected = [
        peak_signal_noise_ratio(r.double().numpy(), s.double().numpy(), data_range=1.0)
        for s, r in zip(samples, reference, strict=True)
    ]
    np.testing.assert_allclose(fidelity.psnr_of(samples, reference), expected, rtol=1e-9)
    assert fidelity.psnr_of(reference, reference) == [float("inf")] * 3


def test_ssim_agrees_with_scikit_image(pair):
    samples, reference = pair
    expected = [
        structural_similarity(
            r.permute(1, 2, 0).double().numpy(), s.permute(1, 2, 0).double().numpy(), data_range=1.0, channel_axis=2,
            gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        )
        for s, r in zip(samples, reference, strict=True)
    ]  # fmt: skip
    np.testing.assert_allclose(fidelity.ssim_of(samples, reference), expected, atol=2e-3)


def test_18_images_are_compared_in_float(tmp_path):
    """8-bit differences wrap: two images 200 apart would look 56 apart."""
    for name, value in (("a", 20), ("b", 220)):
        Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(tmp_path / f"{name}.png")
    a, b = pictures.load_images(tmp_path, ["a.png"]), pictures.load_images(tmp_path, ["b.png"])
    assert fidelity.psnr_of(a, b)[0] == pytest.approx(-20 * np.log10(200 / 255), abs=1e-4)
    with pytest.raises(SpectrumError, match="float"):
        fidelity.psnr_of((a * 255).byte(), (b * 255).byte())


def test_damaged_and_missing_pictures_are_named(tmp_path):
    Image.fromarray(np.zeros((64, 64, 3), np.uint8) + 7).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    with pytest.raises(SpectrumError, match=r"a\.png"):
        pictures.load_images(tmp_path, ["a.png"])
    with pytest.raises(SpectrumError, match=r"b\.png is missing"):
        pictures.load_images(tmp_path, ["b.png"])


def test_intervals():
    values = np.random.default_rng(0).normal(20, 2, 400)
    mean, half = statistics.interval(values.tolist())
    assert mean == pytest.approx(values.mean())
    assert half == pytest.approx(1.96 * values.std() / 20, rel=0.1)
    assert np.isnan(statistics.interval([float("inf")])[0])
    assert statistics.worst([5, 1, 2, *[9] * 37]) == 1.5
    assert statistics.worst([5, 1, 2, *[0] * 37], higher_is_better=False) == 3.5
    assert statistics.worst([5.0, 1.0]) == 1.0
    assert np.isnan(statistics.paired([], [])).all()
