"""What the baselines compute, against numbers worked out by hand from their papers' formulas."""

import math

import pytest
import torch

from baselines import easycache, first_block, freqca, seacache, teacache
from spectrum.core.errors import SpectrumError
from spectrum.core.method import DriftContext
from spectrum.hooks.hook import relative_error, relative_errors

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
