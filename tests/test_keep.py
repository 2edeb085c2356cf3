"""What is kept in place of the features: rounded ones, or sums from which every later forecast follows."""

import numpy as np
import pytest
import torch
from subjects import PROMPTS, subject_of

from spectrum import SpectrumError, accelerate
from spectrum.api import Accelerated
from spectrum.bench.resolve import resolve
from spectrum.bench.sampling import sample_batch
from spectrum.config.compose import compose
from spectrum.config.methods import build_method
from spectrum.config.sampling import Sampling
from spectrum.core import on_host, packed, running_sums
from spectrum.core.choices import Keep
from spectrum.core.history import History
from spectrum.core.memory import packed_bytes
from spectrum.core.method import plan_method
from spectrum.core.on_host import HostHistory
from spectrum.core.packed import PackedHistory
from spectrum.core.running_sums import RunningSums
from spectrum.core.spans import bases, tensors_needed
from spectrum.models.plans import cache_bytes, plan_of


def method(*words):
    config = compose([*words])
    return build_method(config.method, config.schedule)


def rows_of(found):
    return [skipped.weights for skipped in found.skipped]


def features(count, shape=(2, 3, 5), dtype=torch.float32):
    generator = torch.Generator().manual_seed(count)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for _ in range(count)]


@pytest.mark.parametrize(
    ("words", "most"),
    [
        (("method=spectrum", "method.forecast.degree=4"), 5),
        (("method=spectrum", "method.forecast.degree=2"), 3),
        (("method=taylorseer", "method.forecast.order=1"), 2),
        (("method=fora",), 1),
    ],
)
def test_as_many_sums_are_held_as_the_forecast_has_coefficients(words, most):
    found = plan_method(method(*words), 50)
    assert tensors_needed(len(found.runs), rows_of(found)) == most
    assert plan_method(method(*words, "method.keep=sums"), 50).features_held == most


def test_of_any_weights_a_basis_holds_what_later_rows_take_of_the_features_so_far():
    generator = np.random.default_rng(0)
    rows = [generator.normal(size=n).tolist() for n in (2, 2, 3, 5, 5, 5, 6)]
    found = bases(6, rows)
    assert [len(basis) for basis in found] == [0, 1, 2, 3, 4, 4, 1], "as many as runs so far, or as rows to come"
    for row in rows:
        for count in range(1, len(row) + 1):
            basis, part = found[count], np.array(row[:count])
            assert np.allclose(part @ basis.T @ basis, part)


@pytest.mark.parametrize("chunk", [7, 1 << 18])
@pytest.mark.parametrize(("dtype", "off"), [(torch.float64, 1e-12), (torch.float32, 2e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("name", ["spectrum", "spectrum_blend", "taylorseer", "fora", "lagrange"])
def test_forecasts_from_the_sums_are_those_from_the_features(name, dtype, off, chunk, monkeypatch):
    monkeypatch.setattr(running_sums, "CHUNK", chunk)
    own = method(f"method={name}", "schedule=growing_window")
    found = plan_method(own, 50)
    sums = RunningSums(bases(len(found.runs), rows_of(found)), own.max_features)
    plain = History(own.max_features)
    stored, compared = iter(features(len(found.runs), dtype=dtype)), 0
    for step in range(50):
        if step in found.runs:
            feature = next(stored)
            plain.add(float(step), feature)
            sums.add(float(step), feature)
            continue
        weights = next(s.weights for s in found.skipped if s.step == step)[-len(plain.times) :]
        exact, got = plain.combine(weights), sums.combine(weights)
        assert sums.times == plain.times and (got.dtype, got.shape) == (exact.dtype, exact.shape)
        assert float((got - exact).abs().max()) <= off * max(1.0, float(exact.abs().max()))
        compared += 1
    assert compared > 30
    each = 8 if dtype is torch.float64 else 4
    assert sums.nbytes == plan_method(method(f"method={name}", "schedule=growing_window", "method.keep=sums"), 50
                                      ).features_held * 30 * each  # fmt: skip


def test_weights_and_runs_that_were_not_planned_are_refused():
    sums = RunningSums(bases(3, [[0.0, -1.0, 2.0]]))
    for step in range(3):
        sums.add(float(step), torch.full((2,), float(step)))
    with pytest.raises(SpectrumError, match=r"other weights than were planned: type method\.keep=features"):
        sums.combine([1.0, -1.0, 2.0])
    with pytest.raises(ValueError, match="2 weights for 3 features"):
        sums.combine([1.0, 0.0])
    with pytest.raises(SpectrumError, match="more steps ran than the 3 that were planned"):
        sums.add(3.0, torch.zeros(2))


@pytest.mark.parametrize(
    "history", [lambda: RunningSums(bases(2, [[0.5, 0.5]])), lambda: PackedHistory(Keep.bfloat16), HostHistory]
)
def test_a_feature_of_another_shape_is_refused(history):
    kept = history()
    kept.add(0.0, torch.zeros(2, 3))
    with pytest.raises(SpectrumError, match="changed from 2x3 float32 on cpu to 2x4 float32 on cpu"):
        kept.add(1.0, torch.zeros(2, 4))


@pytest.mark.parametrize("chunk", [4, 1 << 18])
def test_rounded_features_are_summed_in_float32_and_come_out_in_their_own_dtype(chunk, monkeypatch):
    monkeypatch.setattr(packed, "CHUNK", chunk)
    kept, plain = PackedHistory(Keep.bfloat16, max_features=2), History(max_features=2)
    for step, feature in enumerate(features(3)):
        kept.add(float(step), feature)
        plain.add(float(step), feature.bfloat16().float())
    assert torch.equal(kept.combine([-1.0, 2.0]), plain.combine([-1.0, 2.0]))
    assert kept.nbytes == 2 * 30 * 2 and kept.times == [1.0, 2.0]


@pytest.mark.parametrize("chunk", [4, 1 << 18])
def test_eight_bits_have_a_scale_for_each_channel_of_each_sample(chunk, monkeypatch):
    monkeypatch.setattr(packed, "CHUNK", chunk)
    wide = torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1e-3, 1.0, 1e4])
    wide[..., 1] = 0.0
    wide[1] *= 1e-3
    kept = PackedHistory(Keep.float8)
    kept.add(0.0, wide)
    off = (kept.combine([1.0]) - wide).abs()
    normal = wide.abs() > wide.abs().amax(1, keepdim=True) * 2.0**-14
    assert float((off / wide.abs())[normal].max()) <= 2.0**-4, "three bits behind the leading one"
    assert kept.combine([1.0])[..., 1].tolist() == [[0.0] * 6] * 4
    assert kept.nbytes == 4 * packed_bytes(Keep.float8, wide.shape[1:], 4) == 4 * (6 * 3 + 4 * 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_features_that_are_copied_to_the_host_are_summed_one_by_one(dtype, monkeypatch):
    """As those of an accelerator are; of a CPU's own features no copy is made."""
    own = features(4, dtype=dtype)
    there, plain, copied = HostHistory(max_features=3), History(max_features=3), HostHistory(max_features=3)
    for step, feature in enumerate(own):
        plain.add(float(step), feature)
        there.add(float(step), feature)
    monkeypatch.setattr(on_host, "_is_of_host", lambda device: False)
    for step, feature in enumerate(own):
        copied.add(float(step), feature)
    assert [f.data_ptr() for f in there.features] == [f.data_ptr() for f in own[1:]]
    assert all(torch.equal(f, kept) for f, kept in zip(own[1:], copied.features, strict=True))
    assert copied.times == [1.0, 2.0, 3.0] and copied.nbytes == plain.nbytes
    for weights in ([0.5, -1.0, 3.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]):
        got, exact = copied.combine(weights), plain.combine(weights)
        assert (got.dtype, got.shape) == (dtype, exact.shape)
        torch.testing.assert_close(got, exact, rtol=1e-6 if dtype is not torch.bfloat16 else 1e-2, atol=1e-6)
    with pytest.raises(ValueError, match="2 weights for 3 features"):
        copied.combine([1.0, 2.0])
    own[-1].fill_(7.0)
    assert not torch.equal(copied.features[-1], own[-1])


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3, 2, 4, 5)])
def test_of_pictures_and_videos_the_second_axis_is_the_channels(shape, monkeypatch):
    monkeypatch.setattr(packed, "CHUNK", 7)
    wide = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    wide *= torch.tensor([1e-3, 1.0, 1e4]).view(3, *[1] * (len(shape) - 2))
    kept = PackedHistory(Keep.float8)
    kept.add(0.0, wide)
    kept.add(1.0, 2 * wide)
    got = kept.combine([2.0, -0.5])
    assert got.shape == wide.shape and got.is_contiguous()
    largest = wide.abs().amax(tuple(range(2, len(shape))), keepdim=True)
    assert float(((got - wide).abs() / largest).max()) <= 3 * 2.0**-4
    tokens = wide[0, 0].numel()
    assert kept.nbytes == 2 * 2 * packed_bytes(Keep.float8, (tokens, 3), 4)
    assert torch.equal(kept.combine([0.0, 0.0]), torch.zeros(shape))


@pytest.mark.parametrize("keep", [Keep.bfloat16, Keep.float8])
def test_a_forecast_of_the_newest_feature_alone_follows_a_change_of_shape(keep):
    kept = PackedHistory(keep, max_features=1)
    kept.add(0.0, torch.zeros(1, 2, 3))
    kept.add(1.0, torch.full((1, 4, 3), 2.0))
    assert torch.equal(kept.combine([1.0]), torch.full((1, 4, 3), 2.0))


def test_features_in_bfloat16_are_kept_as_they_are():
    feature = torch.full((1, 4, 3), 2.0, dtype=torch.bfloat16)
    kept = PackedHistory(Keep.bfloat16)
    kept.add(0.0, feature)
    assert kept.features[0] is feature and torch.equal(kept.combine([0.5]), feature / 2)


def test_numbers_that_are_no_floats_are_not_rounded():
    with pytest.raises(SpectrumError, match=r"rounds floating-point features, and these are torch\.int64"):
        PackedHistory(Keep.float8).add(0.0, torch.zeros(2, dtype=torch.int64))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("method=freqca", "method.keep=bfloat16"), "looks at the features themselves"),
        (("method=dmd", "method.keep=sums"), "looks at the features themselves"),
        (("method=easycache", "method.keep=float8"), r"type method\.batch_decision=true"),
        (("method=freqca", "method.keep=host"), "looks at the features themselves"),
        (("method=none", "method.keep=sums"), "needs weights that are known before the run"),
    ],
)
def test_methods_that_need_the_features_refuse_to_keep_less(words, message):
    with pytest.raises(SpectrumError, match=message):
        method(*words)


@pytest.mark.parametrize("family", ["flux", "wan22_a14b"])
def test_on_a_pipeline_the_samples_are_those_of_the_features_in_fewer_bytes(family, monkeypatch):
    subject = subject_of(family)
    words = ("schedule=fixed_interval", "schedule.warmup=2", "schedule.interval=2", "method.forecast.degree=1")
    words = (*words, "method.clock=sigma")  # on which a second expert's basis is not that of the first
    found = {}
    for keep in Keep:
        with Accelerated(subject.pipe, method("method=spectrum", *words, f"method.keep={keep}")) as handle:
            found[keep] = subject.sample(), handle.report()
    full = found[Keep.features][0]
    bytes_of = {keep: max(own["cache_bytes"] for own in report.values()) for keep, (_, report) in found.items()}
    assert float((found[Keep.sums][0] - full).abs().max()) < 1e-5
    assert bytes_of[Keep.sums] < bytes_of[Keep.features]
    assert bytes_of[Keep.bfloat16] * 2 == bytes_of[Keep.features] and bytes_of[Keep.float8] < bytes_of[Keep.bfloat16]
    for keep in (Keep.bfloat16, Keep.float8):
        assert 0 < float((found[keep][0] - full).abs().mean()) < 0.02
    runs = [{name: own["run_steps"] for name, own in report.items()} for _, report in found.values()]
    assert runs == runs[:1] * len(Keep)
    assert torch.equal(found[Keep.host][0], full) and bytes_of[Keep.host] == bytes_of[Keep.features]
    monkeypatch.setattr(on_host, "_is_of_host", lambda device: False)  # as where an accelerator gives them
    with Accelerated(subject.pipe, method("method=spectrum", *words, "method.keep=host")):
        assert float((subject.sample() - full).abs().max()) < 1e-5


def test_accelerate_takes_it_as_a_setting():
    subject = subject_of("flux")
    with accelerate(subject.pipe, "taylorseer", "method.keep=sums", "schedule.interval=3") as handle:
        subject.sample()
        assert handle.report()
    with pytest.raises(SpectrumError, match=r"method\.keep"):
        accelerate(subject.pipe, "taylorseer", "method.keep=nothing")


@pytest.mark.parametrize("site", ["exit", "output"])
def test_the_bytes_are_known_before_the_run(_tiny, site):
    for keep in Keep:
        words = ("method=spectrum", f"method.site={site}", f"method.keep={keep}", "runs=6")
        config, own = resolve(compose(["model.steps=8", "batch=2", *words]))
        with Accelerated(_tiny, own) as handle:
            sample_batch(_tiny, PROMPTS[:2], Sampling.of(config))
            held = sum(branch["cache_bytes"] for branch in handle.report().values())
        assert cache_bytes(config, plan_of(config, own), batch=2) == held > 0
