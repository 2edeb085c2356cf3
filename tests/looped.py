"""Denoisers whose forward is a function, with blocks in a list and in a dictionary, and how to run them."""

import torch
from small import Block, latents, method, put_on
from torch import nn


class Looped(nn.Module):
    """A denoiser whose forward is given as a function of it and of its input."""

    def __init__(self, forward):
        super().__init__()
        self.embed = nn.Identity()
        self.blocks = nn.ModuleList([Block(), Block(), Block()])
        self.more = nn.ModuleDict({"a": Block(), "b": Block()})
        for block in self.more.values():
            block.weight = nn.Parameter(torch.zeros(9))  # so that they are no small part of the denoiser
        self.between, self.norm_out, self.other = Block(), nn.Identity(), nn.Identity()
        self._run = forward

    def forward(self, hidden_states, encoder_hidden_states=None):
        return self._run(self, hidden_states)


def sliced(model, x):
    for block in model.blocks[:2]:
        x = block(x)
    return (model.norm_out(model.blocks[2](x)) + 0.5,)


def two_stages(model, x):
    for block in model.blocks:
        x = block(x)
    x = model.between(x)
    for block in model.more.values():
        x = block(x)
    return (model.norm_out(x) + 0.5,)


def two_exits(model, x):
    for block in model.blocks:
        x = block(x)
    return model.norm_out(x) + 0.5, model.other(x * 2) + 0.25


class Scale(nn.Module):
    """A block and a head that compute, so that the trace sees what they make."""

    def forward(self, x):
        return x * 2


def served(forward, steps=4, **settings):
    model = Looped(forward)
    model.norm_out, model.other = Scale(), Scale()
    hook, scheduler = put_on(model, method(**settings), None)
    given = [latents(value + 1) for value in range(steps)]
    plain = [forward(Fresh(model), x.clone()) for x in given]
    outputs = [model(given[scheduler.step_index].clone()) for scheduler.step_index in range(steps)]
    return hook, plain, outputs


class Fresh:
    """A denoiser's modules, reached past its hooks' `forward`."""

    def __init__(self, model):
        self._model = model

    def __getattr__(self, name):
        return getattr(self._model, name)


def fed_twice(model, x):
    extra = model.embed(torch.ones(1))
    for block in model.more.values():
        extra = block(extra)
    for block in model.blocks:
        x = block(x + extra)
    return (model.norm_out(x) + model.other(extra),)
