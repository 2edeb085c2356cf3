"""A call's arguments by name are the same the first time, which binds them, and later."""

import pytest
from torch import nn

from spectrum.hooks.arguments import NamedArguments


class Denoiser(nn.Module):
    def forward(self, hidden_states, timestep=None, *, guidance=None, **more):
        return hidden_states


@pytest.mark.parametrize(
    "args, kwargs",
    [
        ((), {"hidden_states": 1, "timestep": 2}),
        ((), {"timestep": 2, "guidance": 3, "hidden_states": 1}),
        ((1,), {"guidance": 3}),
        ((), {"hidden_states": 1, "other": 4}),
    ],
)
def test_the_order_is_that_of_the_signature_each_time(args, kwargs):
    model = Denoiser()
    named = NamedArguments(model)
    first = named(args, kwargs)
    for found in (first, named(args, {**kwargs, next(iter(kwargs)): "later"})):
        assert list(found) == list(first) and found["self"] is model
    assert list(first)[:2] == ["self", "hidden_states"]
    changed = named(args, {**kwargs, next(iter(kwargs)): "later"})
    assert changed[next(iter(kwargs))] == "later"


def test_what_a_forward_does_not_take_is_its_own_error():
    with pytest.raises(TypeError, match="missing a required argument: 'hidden_states'"):
        NamedArguments(Denoiser())((), {"timestep": 1})
