"""The check of outputs: what is finite passes whatever it sums up to, and the first bad step is named."""

import pytest
import torch

from spectrum import SpectrumError
from spectrum.hooks.finite import FiniteCheck


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_values_whose_sum_overflows_are_finite(dtype):
    FiniteCheck().check(0, True, torch.full((64,), torch.finfo(dtype).max, dtype=dtype), last=True)


@pytest.mark.parametrize("values", [[float("nan"), 1.0], [float("inf"), 1.0], [float("inf"), float("-inf")]])
def test_what_is_not_finite_is_refused(values):
    with pytest.raises(SpectrumError, match=r"^with the forecast feature the denoiser gave NaN or infinite .* step 3:"):
        FiniteCheck().check(3, False, torch.tensor(values), last=False)


class Elsewhere(torch.Tensor):
    """A tensor that says it lies on an accelerator."""

    device = torch.device("cuda")


def test_outputs_with_a_graph_are_checked():
    FiniteCheck().check(0, True, torch.ones(2, requires_grad=True) * 2, last=False)


def test_on_an_accelerator_the_first_bad_step_is_named_at_the_end():
    check = FiniteCheck()
    for step, value in enumerate([1.0, float("inf"), float("nan")]):
        check.check(step, step == 0, torch.full((2,), value).as_subclass(Elsewhere), last=False)
    with pytest.raises(SpectrumError, match=r"^with the forecast feature .* at step 1:"):
        check.check(3, True, torch.ones(2).as_subclass(Elsewhere), last=True)
    check.check(4, True, torch.ones(2).as_subclass(Elsewhere), last=True)
