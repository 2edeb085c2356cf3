"""The metric interface, sets of pictures, and what is measured when."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchmetrics.functional.image import peak_signal_noise_ratio

from eval.metrics import fidelity, measure, metric
from eval.metrics.columns import METRICS
from eval.metrics.pictures import Pictures
from spectrum.core.errors import SpectrumError


def pair(count=5, side=24):
    g = torch.Generator().manual_seed(1)
    reference = torch.rand(count, 3, side, side, generator=g)
    return Pictures((reference + 0.1 * torch.randn(reference.shape, generator=g)).clamp(0, 1)), Pictures(reference)


def test_psnr_streams_and_agrees_with_torchmetrics():
    own, other = pair(150)
    found = fidelity.psnr(own, other, [])
    a, b = torch.cat(list(own.batches(7))), torch.cat(list(other.batches(7)))
    expected = peak_signal_noise_ratio(a, b, data_range=1.0, dim=(1, 2, 3), reduction="none")
    np.testing.assert_allclose(found.values, expected, rtol=1e-5)
    assert found.aggregate == pytest.approx(float(np.mean(found.values)))
    entry = found.record_entry()
    assert entry["worst_5_percent"] < entry["mean"] and entry["interval"] > 0


def test_the_worst_are_the_highest_where_lower_is_better():
    found = metric.Result.per_sample([1.0, 2.0, 9.0])
    assert found.record_entry(higher_is_better=False)["worst_5_percent"] == 9.0
    assert found.record_entry()["worst_5_percent"] == 1.0


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_there_and_refuses_an_unknown_parameter(name):
    metric.metric_of(name, {})
    with pytest.raises(SpectrumError, match=rf"eval\.{name}\.nonsense is no parameter"):
        metric.metric_of(name, {"nonsense": 1})


def test_an_unknown_metric_lists_the_known():
    with pytest.raises(SpectrumError, match=r"no metric pnsr; there are psnr, ssim"):
        metric.metric_of("pnsr", {})


def test_absent_metrics_are_left_out_with_their_message_and_never_zero(tmp_path):
    own, other = pair()
    wanted = {"psnr": {}, "ms_ssim": {}, "fid": {"weights": str(tmp_path / "none.pt")}}
    said = []
    found, left_out = measure.measure(wanted, own, other, ["x"] * 5, ("a", "b"), said.append)
    assert set(found) == {"psnr"} and set(left_out) == {"ms_ssim", "fid"}
    assert said == [f"{name} is left out: {left_out[name]}" for name in ("ms_ssim", "fid")]
    assert "176 pixels or more" in left_out["ms_ssim"] and "none.pt" in left_out["fid"]


def test_one_value_a_video_is_the_mean_of_its_frames_that_have_one():
    found = metric.Result.per_sample([1.0, float("inf"), 5.0, 7.0], backbone="none")
    assert found.aggregate == pytest.approx(13 / 3)
    by_video = found.mean_over_frames(2)
    assert (by_video.values, by_video.aggregate, by_video.provenance) == ([1.0, 6.0], 3.5, {"backbone": "none"})
    assert found.mean_over_frames(1) is found
    whole = metric.Result(3.0)
    assert whole.mean_over_frames(2) is whole and whole.mean_over_frames(1) is whole


def test_a_warning_reaches_the_record():
    entry = metric.Result(3.0, None, {"samples": 4}, "from 4 samples").record_entry()
    assert entry == {"mean": 3.0, "provenance": {"samples": 4}, "warning": "from 4 samples"}


def test_paths_in_records_do_not_name_the_machines_folders(tmp_path, monkeypatch):
    for folder in ("home/me/work", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home" / "me")
    monkeypatch.chdir(tmp_path / "home" / "me" / "work")
    assert metric.portable_path(tmp_path / "home" / "me" / "work" / "a" / "b.pt") == "a/b.pt"
    assert metric.portable_path(Path("a/b.pt")) == "a/b.pt"
    assert metric.portable_path(tmp_path / "home" / "me" / "b.pt") == "~/b.pt"
    assert metric.portable_path(tmp_path / "elsewhere" / "b.pt") == str(tmp_path / "elsewhere" / "b.pt")


def test_a_package_that_cannot_be_imported_gives_its_reason_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "broken_here.py").write_text("raise ImportError('no library here\\nadvice')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(metric.AbsentError) as error:
        metric.import_package("broken_here", "broken-here", "psnr")
    how = "type pip install -r requirements-eval.lock"
    assert str(error.value) == f"psnr needs the package broken-here (no library here): {how}"


def test_only_what_is_missing_is_measured_again():
    own, other = pair()
    have, _ = measure.measure({"psnr": {}}, own, other, [], ("a", "b"), print)
    assert measure.missing_metrics({"psnr": {}, "ssim": {}}, have, "a", "b") == {"ssim": {}}
    for names in (("a", "c"), ("c", "b")):
        assert "psnr" in measure.missing_metrics({"psnr": {}}, have, *names)
    assert "psnr" in measure.missing_metrics({"psnr": {"scale": 2}}, have, "a", "b")


def test_the_worst_values_of_a_record_are_those_of_the_metrics_own_direction():
    pytest.importorskip("stlpips_pytorch")
    g = torch.Generator().manual_seed(0)
    reference = torch.rand(3, 3, 64, 64, generator=g)
    noise = torch.tensor([0.05, 0.1, 0.3])[:, None, None, None] * torch.randn(reference.shape, generator=g)
    pair = Pictures((reference + noise).clamp(0, 1)), Pictures(reference)
    found, _ = measure.measure({"psnr": {}, "st_lpips": {}}, *pair, ["x"] * 3, ("a", "b"), print)
    assert found["psnr"].worst_5_percent == min(found["psnr"].values) == found["psnr"].values[2]
    assert found["st_lpips"].worst_5_percent == max(found["st_lpips"].values) == found["st_lpips"].values[2]


def test_pairs_of_another_size_are_refused_before_they_are_compared():
    small, large = (Pictures(torch.rand(2, 3, 16, side)) for side in (16, 20))
    with pytest.raises(SpectrumError, match=r"has pictures of \(16, 16\), the pictures of \(20, 16\) pixels"):
        fidelity.psnr(small, large, [])


def test_ms_ssim_where_the_size_allows():
    own, other = pair(2, 176)
    values = fidelity.ms_ssim(own, other, []).values
    assert values and all(0 < v < 1 for v in values)


def test_st_lpips_sees_noise_and_forgives_a_shift():
    pytest.importorskip("stlpips_pytorch")
    g = torch.Generator().manual_seed(0)
    picture = torch.rand(2, 3, 17, 17, generator=g).repeat_interleave(6, 2).repeat_interleave(6, 3)
    reference = picture[..., :96, :96]
    noisy = (reference + 0.2 * torch.randn(reference.shape, generator=g)).clamp(0, 1)
    shifted = picture[..., 1:97, 1:97]
    found = {}
    for name, samples in (("same", reference), ("shifted", shifted), ("noisy", noisy)):
        found[name] = fidelity.st_lpips(Pictures(samples), Pictures(reference), []).aggregate
    assert found["same"] == pytest.approx(0, abs=1e-6) and found["shifted"] < 0.5 * found["noisy"]


def save(folder, name, size=(20, 16)):
    folder.mkdir(exist_ok=True)
    Image.fromarray(np.zeros((size[1], size[0], 3), np.uint8)).save(folder / name)


def test_bad_sets_of_pictures_are_named(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    for name in ("0.png", "1.png"):
        save(a, name)
    save(b, "0.png")
    with pytest.raises(SpectrumError, match=r"b has 1 pictures instead of 2"):
        Pictures.folder(b, count=2)
    with pytest.raises(SpectrumError, match=r"a has 2 pictures, .*b has 1"):
        fidelity.psnr(Pictures.folder(a), Pictures.folder(b), [])
    save(b, "1.png", (24, 16))
    with pytest.raises(SpectrumError, match=r"1\.png has 24x16 pixels and 0\.png has 20x16"):
        fidelity.psnr(Pictures.folder(a), Pictures.folder(b), [])
    (a / "1.png").write_bytes((a / "1.png").read_bytes()[:50])
    with pytest.raises(SpectrumError, match=r"1\.png is not a whole picture"):
        fidelity.psnr(Pictures.folder(a), Pictures.folder(a), [])
    with pytest.raises(SpectrumError, match="NaN"):
        Pictures(torch.full((1, 3, 4, 4), float("nan")))
    with pytest.raises(SpectrumError, match="255"):
        Pictures(torch.zeros(1, 3, 4, 4, dtype=torch.uint8))
    with pytest.raises(SpectrumError, match="no pictures"):
        Pictures(torch.zeros(0, 3, 4, 4))
    with pytest.raises(SpectrumError, match="no reference"):
        fidelity.ssim(Pictures(torch.rand(1, 3, 16, 16)), None, [])
