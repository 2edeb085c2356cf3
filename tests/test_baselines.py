"""What the baselines compute, against numbers worked out by hand from their papers' formulas."""

import math
import warnings

import pytest
import torch

from baselines import easycache, first_block, freqca, seacache, teacache
from spectrum.core.errors import SpectrumError
from spectrum.core.method import DriftContext
from spectrum.hooks.forecast_errors import relative_error, relative_errors

LEVELS = ((0.6, 0.8), (0.6, 0.8))


def context(signal, previous, *at_runs, levels=LEVELS, grid=None):
    """A `DriftContext` of plain lists."""
    pairs = tuple((torch.tensor(x), torch.tensor(v)) for x, v in at_runs)
    return DriftContext(torch.tensor(signal), torch.tensor(previous), pairs, levels, grid)


def test_relative_error_is_a_ratio_of_norms():
    truth, guess = torch.tensor([3.0, 4.0]), torch.tensor([3.0, 1.0])
    assert relative_error(guess, truth) == pytest.approx(3 / 5)
    parts = {"a": torch.tensor([3.0]), "b": torch.tensor([4.0])}
    off = {"a": torch.tensor([3.0]), "b": torch.tensor([1.0])}
    assert relative_errors(off, parts) == pytest.approx(3 / 5)


def test_teacache_is_the_polynomial_of_the_relative_change():
    """The change is (1 + 1) / 2 over (2 + 2) / 2, so 0.5; `2 x^2 + x + 3` of it is 4."""
    found = teacache.drift(context([3.0, 1.0], [2.0, 2.0]), coefficients=[2.0, 1.0, 3.0])
    assert found == pytest.approx(4.0)


def test_the_first_block_is_compared_with_the_last_run_and_not_with_the_step_before():
    runs = (([9.0, 9.0], [0.0]), ([4.0, 2.0], [0.0]))
    assert first_block.change(context([4.0, 5.0], [4.0, 5.0], *runs)) == pytest.approx(1.5 / 3)


def test_easycache_by_hand():
    """kappa = mean|dv| / mean|dx| = 4 / 2; the latents moved by 1, the output's size is 4: 2 * 1 / 4."""
    runs = (([0.0, 0.0], [0.0, 0.0]), ([1.0, 3.0], [2.0, 6.0]))
    assert easycache.change(context([1.5, 1.5], [1.0, 3.0], *runs)) == pytest.approx(0.5)


def test_easycache_looks_at_changes_and_not_at_sizes():
    """kappa = 4 / 2 though the sizes are far larger; the latents moved by 3, the output's size is 12: 2 * 3 / 12."""
    runs = (([10.0, 20.0], [-8.0, 8.0]), ([12.0, 18.0], [-12.0, 12.0]))
    assert easycache.change(context([15.0, 15.0], [12.0, 18.0], *runs)) == pytest.approx(0.5)


def test_easycache_runs_until_it_knows_two_runs():
    assert easycache.change(context([1.0], [0.0], ([0.0], [1.0]))) == math.inf


def test_seacache_gains_of_a_picture():
    """With a = 0.6 and b = 0.8 along 4 tokens S = inf, 16, 4, 16; the gains are divided by their mean."""
    along = torch.tensor([1 / 0.6, 9.6 / 6.4, 2.4 / 2.08, 9.6 / 6.4])
    found = seacache.gains((1, 4), (0.6, 0.8), torch.device("cpu"))
    torch.testing.assert_close(found, (along / along.mean())[None].float())
    assert found.tolist()[0] == pytest.approx([1.14537, 1.03084, 0.79295, 1.03084], abs=1e-5)


def test_seacache_gains_of_a_video_fall_with_the_cube_of_the_frequency():
    """At two tokens a side S = 8, so each axis off zero has the gain 4.8 / 3.52, which is 0.81818 of that at zero."""
    found = seacache.gains((2, 2, 2), (0.6, 0.8), torch.device("cpu"))
    ratio = (4.8 / 3.52) * 0.6
    mean = ((1 + ratio) / 2) ** 3
    assert found[0, 0, 0].item() == pytest.approx(1 / mean, abs=1e-5)
    assert found[0, 1, 0].item() == pytest.approx(ratio / mean, abs=1e-5)
    assert found[1, 1, 1].item() == pytest.approx(ratio**3 / mean, abs=1e-5)


def test_seacache_gains_are_worked_out_in_double_precision():
    """With a = 0.6 and b = 0.8 the gain along an axis is 0.6 / (0.36 + 0.64 f^2), as 1 / S = f^2."""
    down, across = (0.6 / (0.36 + 0.64 * torch.fft.fftfreq(side, dtype=torch.float64) ** 2) for side in (5, 7))
    expected = down[:, None] * across
    assert torch.equal(seacache.gains((5, 7), (0.6, 0.8), torch.device("cpu")), (expected / expected.mean()).float())


def test_seacache_gains_in_pure_noise():
    """a = 1e-6 and b = 1, with S = 1e16 at zero and 16 or 4 elsewhere: all but the mean is as good as gone."""
    at_zero = 1e-6 * 1e16 / (1e4 + 1)
    found = seacache.gains((1, 4), (0.0, 1.0), torch.device("cpu"))[0]
    expected = torch.tensor([4.0, 6.4e-5 / at_zero, 1.6e-5 / at_zero, 6.4e-5 / at_zero])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


def test_seacache_clamps_both_scales():
    within = seacache.gains((3, 4), (1.0, 1.0), torch.device("cpu"))
    for level in ((2.0, 1.0), (1.0, 2.0), (3.0, 4.0)):
        torch.testing.assert_close(seacache.gains((3, 4), level, torch.device("cpu")), within)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_seacache_scales_each_wave_by_its_gain(dtype):
    """Waves down, across and along both axes, each sample and channel with waves of its own."""
    grid, level = (4, 8), (0.6, 0.8)
    down, across = torch.arange(4.0)[:, None].expand(grid), torch.arange(8.0).expand(grid)
    gains = seacache.gains(grid, level, torch.device("cpu"))
    places = [(0, 0), (1, 0), (0, 2), (1, 3)]
    waves = [torch.cos(2 * math.pi * (u * down / 4 + v * across / 8)).reshape(32) for u, v in places]
    scaled = [wave * gains[place] for wave, place in zip(waves, places, strict=True)]
    signal, expected = (torch.stack([torch.stack(w[:2], 1), torch.stack(w[2:], 1)]) for w in (waves, scaled))
    found = seacache.filtered(signal.to(dtype), level, grid)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), expected, atol=1e-5 if dtype == torch.float32 else 0.02, rtol=0)


def test_seacache_filters_each_step_at_its_own_noise_level():
    """Constant tokens are scaled by the gain at frequency zero, which is 1 at a = 1, b = 0 and not at other levels."""
    same, grid = [[[2.0]] * 4], (1, 4)
    clean, noisy = (1.0, 0.0), (0.6, 0.8)
    assert seacache.change(context(same, same, levels=(clean, clean), grid=grid)) == pytest.approx(0.0, abs=1e-6)
    drift = seacache.change(context(same, same, levels=(noisy, clean), grid=grid))
    assert drift == pytest.approx(1.14537 - 1, abs=1e-4)


def test_freqca_keeps_the_low_band_of_the_newest_feature_and_the_high_band_of_the_forecast():
    """Two tokens have the bands mean and difference: 2 from the newest, -2 and +2 from the forecast."""
    forecast, newest = torch.tensor([[[1.0], [5.0]]]), torch.tensor([[[2.0], [2.0]]])
    found = freqca.low_band(forecast, newest, (1, 2), cutoff=0.1)
    torch.testing.assert_close(found, torch.tensor([[[0.0], [4.0]]]))


def dct_wave(frequency, side):
    """A wave of the DCT-II along one side."""
    return torch.cos(math.pi / side * (torch.arange(side, dtype=torch.float64) + 0.5) * frequency).float()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_freqca_takes_a_frequency_for_low_up_to_its_share_of_the_farthest(dtype):
    """In a row of 5 the farthest is 4, and 0.75 of that is 3, which is low; 4 is not."""
    for frequency in range(5):
        newest = dct_wave(frequency, 5).reshape(1, 5, 1).to(dtype)
        found = freqca.low_band(torch.zeros_like(newest), newest, (1, 5), cutoff=0.75)
        assert found.dtype == dtype
        expected = newest if frequency <= 3 else torch.zeros_like(newest)
        torch.testing.assert_close(found, expected, atol=1e-5 if dtype == torch.float32 else 0.02, rtol=0)


@pytest.mark.parametrize(("bin", "low"), [((1, 2, 0), True), ((0, 0, 2), True), ((1, 2, 1), False), ((0, 1, 3), False)])
def test_freqca_on_a_video(bin, low):
    """Farthest is sqrt(1 + 4 + 9); at the cutoff sqrt(5 / 14) the bins within sqrt(5) of the origin are low."""
    grid = (2, 3, 4)
    rows = [dct_wave(frequency, side) for frequency, side in zip(bin, grid, strict=True)]
    newest = torch.einsum("f,h,w->fhw", *rows).reshape(1, 24, 1)
    found = freqca.low_band(torch.zeros_like(newest), newest, grid, cutoff=math.sqrt(5 / 14))
    torch.testing.assert_close(found, newest if low else torch.zeros_like(newest), atol=1e-5, rtol=0)


def test_freqca_in_a_long_row_is_as_exact_as_float32():
    newest = torch.randn(1, 512, 1, generator=torch.Generator().manual_seed(0))
    found = freqca.low_band(torch.zeros_like(newest), newest, (1, 512), cutoff=1.0)
    assert (found - newest).abs().max() < 1e-5


def test_the_methods_of_frequencies_work_where_the_features_lie():
    """The meta device has no data, so what was computed there could not come out right."""
    tokens = torch.zeros(1, 12, 5, device="meta")
    assert freqca.low_band(tokens, tokens, (3, 4)).device.type == "meta"
    assert seacache.filtered(tokens, (0.6, 0.8), (3, 4)).device.type == "meta"
    assert seacache.gains((3, 4), (0.6, 0.8), torch.device("meta")).device.type == "meta"


def test_the_methods_of_frequencies_do_not_use_the_default_device():
    g = torch.Generator().manual_seed(0)
    forecast, newest = torch.randn(1, 12, 5, generator=g), torch.randn(1, 12, 5, generator=g)
    calls = [
        lambda: freqca.low_band(forecast, newest, (3, 4), cutoff=0.4),
        lambda: seacache.filtered(newest, (0.6, 0.8), (3, 4)),
        lambda: seacache.gains((3, 4), (0.6, 0.8), torch.device("cpu")),
    ]
    with torch.device("meta"):
        found = [call() for call in calls]
    torch.testing.assert_close(found, [call() for call in calls], rtol=0, atol=0)


def test_freqca_warns_of_nothing():
    always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            freqca.low_band(torch.zeros(1, 12, 5), torch.zeros(1, 12, 5), (3, 4))
    finally:
        torch.set_warn_always(always)


def test_freqca_with_the_whole_range_low_reuses_and_with_nothing_low_but_the_mean_shifts():
    g = torch.Generator().manual_seed(0)
    forecast, newest = torch.randn(2, 12, 5, generator=g), torch.randn(2, 12, 5, generator=g)
    torch.testing.assert_close(freqca.low_band(forecast, newest, (3, 4), cutoff=1.0), newest)
    shifted = forecast - forecast.mean(1, keepdim=True) + newest.mean(1, keepdim=True)
    torch.testing.assert_close(freqca.low_band(forecast, newest, (3, 4), cutoff=0.0), shifted)
    spatial = [x.reshape(2, 3, 4, 5).permute(0, 3, 1, 2) for x in (forecast, newest)]
    found = freqca.low_band(*spatial, None, cutoff=0.4).permute(0, 2, 3, 1).reshape(2, 12, 5)
    torch.testing.assert_close(found, freqca.low_band(forecast, newest, (3, 4), cutoff=0.4))


def test_methods_of_frequencies_need_the_grid():
    with pytest.raises(SpectrumError, match="method=freqca has to know the layout"):
        freqca.low_band(torch.zeros(1, 4, 2), torch.zeros(1, 4, 2), None)
    with pytest.raises(SpectrumError, match="method=seacache works on frequencies"):
        seacache.filtered(torch.zeros(1, 5, 2), (1.0, 0.0), (2, 2))
