"""The weighted sum over stored features, and what is kept of them."""

import pytest
import torch

from spectrum.core.history import History


def history(*values, most=None, dtype=torch.float32, device="cpu"):
    """A history with one feature of two equal numbers for each value."""
    found = History(max_features=most)
    for time, value in enumerate(values):
        found.add(float(time), torch.full((1, 2), float(value), dtype=dtype, device=device))
    return found


@pytest.mark.parametrize(
    ("weights", "total"),
    [
        ([2.0, 0.0, -1.0], -1.0),
        ([1.0, 1.0, 0.0], 8.0),
        ([1.0, -1.0, 0.5], 1.5),
        ([0.0, 0.5, 0.0], 2.5),
        ([0.0, 0.0, 2.0], 14.0),
        ([0.0, 0.0, 0.0], 0.0),
    ],
)
def test_the_forecast_is_the_weighted_sum(weights, total):
    assert history(3, 5, 7).combine(weights).tolist() == [[total, total]]


def test_one_stored_feature_can_be_scaled():
    assert history(3).combine([2.0]).tolist() == [[6.0, 6.0]]


def test_a_weight_of_one_alone_gives_the_stored_tensor_itself():
    stored = history(3, 5, 7)
    assert stored.combine([0.0, 1.0, 0.0]) is stored.features[1]
    assert stored.combine([0.0, 1.0, 1.0]) is not stored.features[1]


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0, 0.0, 0.0]])
def test_as_many_weights_as_features(weights):
    with pytest.raises(ValueError, match=f"^{len(weights)} weights for 3 features$"):
        history(3, 5, 7).combine(weights)


def test_half_precision_is_summed_in_float32():
    """256 + 1 is 256 in bfloat16, so a sum there would lose every one of the small terms."""
    found = history(256, 1, 1, 1, 1, dtype=torch.bfloat16).combine([1.0] * 5)
    assert found.dtype == torch.bfloat16 and found.tolist() == [[260.0, 260.0]]


def test_double_precision_is_summed_in_double_precision():
    found = history(1, 2.0**-40, dtype=torch.float64).combine([1.0, 1.0])
    assert found.dtype == torch.float64 and found.tolist() == [[1 + 2.0**-40] * 2]


def test_the_sum_is_made_where_the_features_lie():
    assert history(1, 2, device="meta").combine([2.0, 1.0]).device.type == "meta"


def test_the_oldest_features_are_dropped():
    stored = history(3, 5, 7, 9, most=3)
    assert stored.times == [1.0, 2.0, 3.0] and stored.combine([1.0, 0.0, 1.0]).tolist() == [[14.0, 14.0]]
    assert len(history(3, 5, 7, 9).times) == 4


def test_bytes_of_what_is_stored():
    assert history(3, 5, 7).nbytes == 3 * 2 * 4
    assert history(3, 5, dtype=torch.float64).nbytes == 2 * 2 * 8
    assert History().nbytes == 0


def test_a_view_is_copied_and_a_whole_tensor_is_not():
    whole = torch.arange(6.0).reshape(1, 6)
    stored, part = History(), History()
    stored.add(0.0, whole)
    part.add(0.0, whole[:, 3:])
    assert stored.features[0] is whole
    assert part.features[0].untyped_storage().nbytes() == 3 * 4 and part.features[0].is_contiguous()
    assert part.features[0].tolist() == [[3.0, 4.0, 5.0]]


def test_a_view_with_its_axes_turned_is_stored_in_order():
    view = torch.arange(12.0).reshape(1, 3, 4)[:, :, 1:3].transpose(1, 2)
    stored = History()
    stored.add(0.0, view)
    assert stored.features[0].is_contiguous() and torch.equal(stored.features[0], view)
