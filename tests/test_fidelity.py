from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from eval.metrics import fidelity, pictures
from eval.metrics.metric import AbsentError
from eval.metrics.pictures import Pictures
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
    """But for the edges, which scikit-image leaves out."""
    samples, reference = pair
    expected = [
        structural_similarity(
            r.permute(1, 2, 0).double().numpy(), s.permute(1, 2, 0).double().numpy(), data_range=1.0, channel_axis=2,
            gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        )
        for s, r in zip(samples, reference, strict=True)
    ]  # fmt: skip
    np.testing.assert_allclose(fidelity.ssim_of(samples, reference), expected, atol=2e-3)


def structure(a, b):
    """Means over a picture of SSIM, its edges mirrored, and of the part without brightness, 5 pixels cut off."""
    c1, c2 = 0.01**2, 0.03**2
    mean = partial(gaussian_filter, sigma=(0, 1.5, 1.5), truncate=3.5, mode="mirror")
    ma, mb = mean(a), mean(b)
    spread = (2 * (mean(a * b) - ma * mb) + c2) / (mean(a * a) - ma**2 + mean(b * b) - mb**2 + c2)
    ssim = spread * (2 * ma * mb + c1) / (ma**2 + mb**2 + c1)
    return ssim.mean(), spread[:, 5:-5, 5:-5].mean()


def pale(pictures):
    """Pictures of low contrast: SSIM's constants come from the range of all pictures, not from that of these."""
    return [0.4 + 0.2 * picture for picture in pictures]


def test_ssim_by_its_formula(pair):
    for own, other in (pair, pale(pair)):
        expected = [structure(a, b)[0] for a, b in zip(own.double().numpy(), other.double().numpy(), strict=True)]
        np.testing.assert_allclose(fidelity.ssim_of(own, other), expected, rtol=1e-4)


def test_ms_ssim_by_its_formula():
    """Four halvings; the exponents are those of Wang et al. 2003."""
    g = torch.Generator().manual_seed(1)
    reference = torch.rand(2, 3, 11, 12, generator=g).repeat_interleave(16, 2).repeat_interleave(16, 3)
    samples = (
        reference + torch.tensor([0.1, 0.3])[:, None, None, None] * torch.randn(reference.shape, generator=g)
    ).clamp(0, 1)
    for own, other in ((samples, reference), pale((samples, reference))):
        expected = []
        for a, b in zip(own.double().numpy(), other.double().numpy(), strict=True):
            value = 1.0
            for scale, exponent in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
                value *= structure(a, b)[0 if scale == 4 else 1] ** exponent
                a, b = (x.reshape(3, x.shape[1] // 2, 2, -1, 2).mean((2, 4)) if scale < 4 else x for x in (a, b))
            expected.append(value)
        np.testing.assert_allclose(fidelity.ms_ssim_of(own, other), expected, rtol=1e-3)
        assert expected[0] - expected[1] > 0.01


def test_ms_ssim_starts_at_176_pixels():
    for size, said in (((175, 176), "176x175"), ((176, 175), "175x176")):
        pictures = Pictures(torch.rand(1, 3, *size))
        with pytest.raises(
            AbsentError, match=f"^ms_ssim needs sides of 176 pixels or more, and these pictures have {said}$"
        ):
            fidelity.ms_ssim(pictures, pictures, [])
    pictures = Pictures(torch.rand(2, 3, 176, 176, generator=torch.Generator().manual_seed(0)))
    assert fidelity.ms_ssim(pictures, pictures, []).values == pytest.approx([1, 1])


def test_metrics_of_pairs_name_themselves():
    pictures = Pictures(torch.rand(1, 3, 176, 176))
    for name in ("psnr", "ssim", "ms_ssim"):
        with pytest.raises(SpectrumError, match=rf"^{name} compares with the uncached run, and there is no reference"):
            getattr(fidelity, name)(pictures, None, [])
        with pytest.raises(SpectrumError, match=rf"^{name} compares in pairs"):
            getattr(fidelity, name)(pictures, Pictures(torch.rand(2, 3, 176, 176)), [])


def test_case_18_images_are_compared_in_float(tmp_path):
    """8-bit differences wrap: two images 200 apart would look 56 apart."""
    for name, value in (("a", 20), ("b", 220)):
        Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(tmp_path / f"{name}.png")
    a, b = pictures.load_images(tmp_path, ["a.png"]), pictures.load_images(tmp_path, ["b.png"])
    assert fidelity.psnr_of(a, b)[0] == pytest.approx(-20 * np.log10(200 / 255), abs=1e-4)
    with pytest.raises(SpectrumError, match="float"):
        fidelity.psnr_of((a * 255).byte(), (b * 255).byte())
    for mixed in ((a, (b * 255).byte()), ((a * 255).byte(), b)):
        with pytest.raises(SpectrumError, match="float"):
            fidelity.psnr_of(*mixed)


def test_damaged_and_missing_pictures_are_named(tmp_path):
    Image.fromarray(np.zeros((64, 64, 3), np.uint8) + 7).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    with pytest.raises(SpectrumError, match=r"a\.png"):
        pictures.load_images(tmp_path, ["a.png"])
    with pytest.raises(SpectrumError, match=r"b\.png is missing"):
        pictures.load_images(tmp_path, ["b.png"])
