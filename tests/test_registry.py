"""How the hook is put on a denoiser and taken off: through diffusers' registry, also around a compiled call."""

import pytest
import torch
from diffusers.hooks import HookRegistry
from small import Small, method, numbers, put_on, walk
from torch import nn

from spectrum import Denoiser, SpectrumError
from spectrum.hooks.registry import attach, detach


def test_what_cannot_be_put_on_leaves_the_denoiser_as_it_was():
    model = Small()
    before = set(vars(model))
    for settings in ({"front_blocks": 2}, {"site": "modules", "space": "residual"}):
        with pytest.raises(SpectrumError):
            put_on(model, method(**settings))
        assert set(vars(model)) == before
    hook, _ = put_on(model, method())
    with pytest.raises(SpectrumError, match=r"^a caching method is on this pipeline already: call restore"):
        put_on(model, method())
    hook.remove()
    with pytest.raises(SpectrumError, match="Small has no module nowhere"):
        put_on(model, method(), Denoiser(exit="nowhere", stacks=("blocks",)))
    assert set(vars(model)) == before


@pytest.mark.parametrize("in_place", [False, True])
def test_a_denoiser_compiled_whole_is_served_at_the_exit_and_refused_inside(in_place):
    model = Small()
    compiled = model if in_place else torch.compile(model, backend="eager")
    if in_place:
        model.compile(backend="eager")
    for settings in ({"front_blocks": 1}, {"site": "modules"}):
        with pytest.raises(SpectrumError, match=r"^mine works inside the denoiser, which is compiled whole: "):
            put_on(compiled, method(**settings))
    hook, scheduler = put_on(compiled, method())
    assert walk(compiled, scheduler, [1, 2, 3]) == [1210.5, 1210.5, 3010.5]
    scheduler.step_index = 3
    assert numbers(compiled(hidden_states=torch.ones(1, 1, 2, 2))[0]) == 3010.5
    hook.remove()
    assert walk(compiled, scheduler, [1, 2]) == [1210.5, 2110.5]


def test_a_function_is_put_around_a_module_and_taken_off_without_its_neighbours():
    outer = nn.Sequential(nn.Identity(), nn.Identity())
    before, calls = set(vars(outer)), []

    def around(forward, name, args, kwargs):
        calls.append(name)
        return 10 * forward(*args, **kwargs)

    one = torch.ones(1)
    plain = attach(outer, around, lambda: calls.append("reset"))
    attach(outer[0], around, lambda: None)
    assert outer(one).item() == 100 and plain(one).item() == plain(input=one).item() == 10 and calls == [None] * 4
    outer._diffusers_hook.reset_stateful_hooks(recurse=False)
    assert calls[4:] == ["reset"]
    detach(outer)
    assert outer(one).item() == 10 and set(vars(outer)) == before
    detach(outer)
    HookRegistry.check_if_exists_or_initialize(outer[1])
    detach(outer[1])
    attach(outer[1], around, lambda: None)
    assert outer(one).item() == 100
