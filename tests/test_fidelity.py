from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

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
    """The window of the authors: a Gaussian of sigma 1.5 over 11x11 pixels, which does not reach over the edges."""
    for samples, reference in (pair, pale(pair), plain(pair)):
        expected = [
            structural_similarity(
                r.permute(1, 2, 0).double().numpy(), s.permute(1, 2, 0).double().numpy(), data_range=1.0,
                channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
            )
            for s, r in zip(samples, reference, strict=True)
        ]  # fmt: skip
        np.testing.assert_allclose(fidelity.ssim_of(samples, reference), expected, atol=1e-9)


def structure(a, b):
    """Means over a picture of SSIM and of its part without brightness, 5 pixels cut off at each edge."""
    c1, c2 = 0.01**2, 0.03**2
    mean = partial(gaussian_filter, sigma=(0, 1.5, 1.5), truncate=3.5, mode="mirror")
    ma, mb = mean(a), mean(b)
    spread = (2 * (mean(a * b) - ma * mb) + c2) / (mean(a * a) - ma**2 + mean(b * b) - mb**2 + c2)
    ssim = spread * (2 * ma * mb + c1) / (ma**2 + mb**2 + c1)
    return ssim[:, 5:-5, 5:-5].mean(), spread[:, 5:-5, 5:-5].mean()


def pale(pictures):
    """Pictures of low contrast: SSIM's constants come from the range of all pictures, not from that of these."""
    return [0.4 + 0.2 * picture for picture in pictures]


def plain(pictures):
    """Plain grounds with a little noise, where a variance is the difference of nearly equal numbers."""
    return [0.8 + 0.01 * picture for picture in pictures]


def test_ssim_by_its_formula(pair):
    for own, other in (pair, pale(pair), plain(pair)):
        expected = [structure(a, b)[0] for a, b in zip(own.double().numpy(), other.double().numpy(), strict=True)]
        np.testing.assert_allclose(fidelity.ssim_of(own, other), expected, atol=1e-9)


def test_ssim_of_plain_pictures_by_hand():
    """Without variance only brightness counts: (2 * .5 * .25 + .0001) / (.5^2 + .25^2 + .0001) = .2501 / .3126."""
    half, quarter = torch.full((1, 3, 11, 12), 0.5), torch.full((1, 3, 11, 12), 0.25)
    assert fidelity.ssim_of(half, quarter) == pytest.approx([0.2501 / 0.3126], abs=1e-9)


def test_ssim_of_one_point_by_hand():
    """A picture that is 1 in the middle and 0 elsewhere, and its negative share one place of the window.

    There the weighted means are w and 1 - w, with w the middle weight; both variances are w - w^2, and the covariance
    is their negative. The weights of a Gaussian of sigma 1.5 at distances 0 to 5 are exp(-n^2 / 4.5).
    """
    point = torch.zeros(1, 1, 11, 11)
    point[..., 5, 5] = 1
    w = (1 / (1 + 2 * sum(np.exp(-(n**2) / 4.5) for n in range(1, 6)))) ** 2
    assert w == pytest.approx(0.0708, abs=1e-4)
    variance, c1, c2 = w - w * w, 0.0001, 0.0009
    structured = (c2 - 2 * variance) / (2 * variance + c2)
    expected = structured * (2 * w * (1 - w) + c1) / (w * w + (1 - w) ** 2 + c1)
    assert fidelity.ssim_of(point, 1 - point) == pytest.approx([expected], rel=1e-6) and expected < -0.1


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
        np.testing.assert_allclose(fidelity.ms_ssim_of(own, other), expected, rtol=1e-9)
        assert expected[0] - expected[1] > 0.01


def test_ms_ssim_is_near_torchmetrics_which_pads_the_last_scale():
    g = torch.Generator().manual_seed(1)
    reference = torch.rand(2, 3, 40, 44, generator=g).repeat_interleave(8, 2).repeat_interleave(8, 3)
    samples = (reference + 0.2 * torch.randn(reference.shape, generator=g)).clamp(0, 1)
    padded = multiscale_structural_similarity_index_measure(samples, reference, data_range=1.0, reduction="none")
    np.testing.assert_allclose(fidelity.ms_ssim_of(samples, reference), padded, atol=2e-3)


def test_a_negative_ms_ssim_is_zero():
    picture = torch.rand(1, 3, 176, 176, generator=torch.Generator().manual_seed(0))
    assert fidelity.ms_ssim_of(picture, 1 - picture) == [0.0]


def test_ssim_starts_at_11_pixels_and_ms_ssim_at_176():
    for name, least in (("ssim", 11), ("ms_ssim", 176)):
        for size in ((least - 1, least), (least, least - 1)):
            pictures = Pictures(torch.rand(1, 3, *size))
            said = f"^{name} needs sides of {least} pixels or more, and these pictures have {size[1]}x{size[0]}$"
            with pytest.raises(AbsentError, match=said):
                getattr(fidelity, name)(pictures, pictures, [])
        pictures = Pictures(torch.rand(2, 3, least, least, generator=torch.Generator().manual_seed(0)))
        assert getattr(fidelity, name)(pictures, pictures, []).values == pytest.approx([1, 1])


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
