"""The weighted sum of features: every way of making it gives the same, also where memory is laid out otherwise."""

import subprocess
import sys
import textwrap

import pytest
import torch

from spectrum.config.reader import RESULTS
from spectrum.core import sums
from spectrum.core.errors import SpectrumError
from spectrum.core.history import History

DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]


def drawn(count, shape, dtype):
    generator = torch.Generator().manual_seed(count)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for _ in range(count)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, sums.CHUNK, sums.CHUNK + 1, 2 * sums.CHUNK + 77])
def test_chunks_give_every_bit_of_whole_additions(size, dtype):
    features, weights = drawn(5, (size,), dtype), [0.3, -1.7, 2.2, 0.0, 0.01]
    made = sums.in_chunks(weights, features)
    assert torch.equal(made, sums.by_additions(weights, features))
    total = torch.zeros(size, dtype=torch.promote_types(dtype, torch.float32))
    for weight, feature in zip(weights, features, strict=True):
        total.add_(feature, alpha=weight)
    assert torch.equal(made, total.to(dtype)), "what the committed records were made with"
    assert made.dtype == dtype and made.untyped_storage().data_ptr() != features[0].untyped_storage().data_ptr()


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_sum_is_rounded_once_to_the_features_dtype(dtype):
    features, weights = drawn(14, (50, 70), dtype), [(-1.0) ** k * (1 + k) / 4 for k in range(14)]
    terms = [w * f.double() for w, f in zip(weights, features, strict=True)]
    exact, size = sum(terms), sum(term.abs() for term in terms)
    off = (sums.weighted_sum(weights, features).double() - exact).abs()
    half_a_unit = torch.exp2(exact.abs().log2().floor()) * torch.finfo(dtype).eps / 2
    in_between = torch.finfo(torch.promote_types(dtype, torch.float32)).eps
    assert (off <= half_a_unit + len(terms) * in_between * size).all()


def test_features_with_gaps_or_of_another_layout_are_summed_right():
    wide = torch.randn(2, 3, 700, 300)
    features = [wide[..., ::2], wide.transpose(2, 3)[..., :150, :].transpose(2, 3)]
    made = sums.weighted_sum([2.0, -0.5], features)
    assert made.numel() > sums.CHUNK
    assert torch.equal(made, (2.0 * features[0]).add(features[1], alpha=-0.5))


def test_a_history_whose_weights_are_all_zero_forecasts_zeros():
    history = History()
    history.add(0.0, torch.full((3,), float("inf")))
    assert history.combine([0.0]).tolist() == [0.0, 0.0, 0.0]


def test_the_kernel_gives_the_same_in_triton_s_interpreter():
    pytest.importorskip("triton")
    code = """
        import contextlib, torch
        from spectrum.core import sums, triton_sums as kernel
        torch.cuda.device = lambda device: contextlib.nullcontext()
        for dtype in (torch.bfloat16, torch.float16, torch.float32):
            for count in (1, 2, 3, 8, 14):
                torch.manual_seed(count)
                features = [torch.randn(3, 5, 90).to(dtype) for _ in range(count)]
                weights = torch.randn(count).tolist()
                assert kernel.serves(features)
                off = kernel.weighted_sum(weights, features).float() - sums.by_additions(weights, features).float()
                scale = sum(abs(w) * f.float().abs() for w, f in zip(weights, features))
                assert (off.abs() <= count * torch.finfo(dtype).eps * scale).all(), (dtype, count)
        last = [torch.randn(2, 4, 6, 8).to(memory_format=torch.channels_last) for _ in range(2)]
        assert kernel.serves(last)
        assert torch.allclose(kernel.weighted_sum([2.0, 3.0], last), 2 * last[0] + 3 * last[1])
        wide = torch.randn(4, 8)
        assert not kernel.serves([wide[:, ::2]]) and not kernel.serves([wide, wide.T.contiguous().T])
        assert not kernel.serves([torch.ones(1, 8), torch.ones(2, 8)]) and not kernel.serves([torch.ones(0, 8)])
        assert not kernel.serves([wide.clone().requires_grad_()])
        assert not kernel.serves([wide.double()]) and not kernel.serves([wide] * (kernel.MOST + 1))
    """
    environment = {"TRITON_INTERPRET": "1", "PATH": "", "OMP_NUM_THREADS": "1", "HOME": "/tmp"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=RESULTS.parent,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_what_changes_in_mid_run_is_refused_by_its_shapes():
    history = History()
    history.add(0.0, torch.zeros(2, 8))
    with pytest.raises(SpectrumError, match="changed from 2x8 float32 on cpu to 1x8 float32 on cpu in the middle"):
        history.add(1.0, torch.zeros(1, 8))
    with pytest.raises(SpectrumError, match="to 2x8 float16 on cpu"):
        history.add(1.0, torch.zeros(2, 8, dtype=torch.float16))
    newest = History(max_features=1)
    newest.add(0.0, torch.zeros(2, 8))
    newest.add(1.0, torch.ones(1, 8))
    assert newest.combine([2.0]).tolist() == [[2.0] * 8], "what is never summed with another may change"


def test_a_sum_has_its_gradient_and_can_be_compiled():
    feature = torch.ones(3, requires_grad=True)
    sums.weighted_sum([2.0, 3.0], [feature, torch.ones(3)]).sum().backward()
    assert feature.grad is not None and feature.grad.tolist() == [2.0] * 3
    compiled = torch.compile(lambda a, b: sums.weighted_sum([2.0, 3.0], [a, b]), fullgraph=True, backend="eager")
    assert compiled(torch.ones(3), torch.ones(3)).tolist() == [5.0] * 3
    assert sums.weighted_sum([2.0, 3.0], [torch.zeros(0, 4)] * 2).shape == (0, 4)


def test_a_machine_without_triton_goes_on(monkeypatch):
    """Without the package, and with one that cannot compile: which is said once."""
    monkeypatch.setitem(sys.modules, "spectrum.core.triton_sums", None)
    sums._kernel.cache_clear()
    try:
        assert sums._kernel() is None
        sums.prepare(torch.device("cuda"))
    finally:
        sums._kernel.cache_clear()
    monkeypatch.undo()
    kernel = pytest.importorskip("spectrum.core.triton_sums")
    kernel.works.cache_clear()
    with pytest.warns(UserWarning, match="Triton cannot be used on cpu .*: forecasts are summed slower"):
        assert not kernel.works(torch.device("cpu"))
    kernel.works.cache_clear()
