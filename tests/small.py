"""A denoiser to work out by hand, and how to drive it: a block makes `30 x + 10` of `x`, the head adds a half."""

import functools
from types import SimpleNamespace

import torch
from torch import nn

from spectrum import Denoiser, Method
from spectrum.core import forecast
from spectrum.core.schedule import explicit
from spectrum.hooks.hook import CacheHook
from spectrum.hooks.step import DenoiserCall

EVERY_SECOND = functools.partial(explicit, run_steps=[0, 2])
LAYOUT = Denoiser(exit="norm_out", stacks=("blocks",))


class Attention(nn.Module):
    def forward(self, x):
        return x + 1, 2 * x


class Multiply(nn.Module):
    def forward(self, x):
        return 10 * x


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn, self.ff = Attention(), Multiply()

    def forward(self, x):
        return sum(self.ff(part) for part in self.attn(x))


class Merged(nn.Module):
    """Attention and MLP in one projection, as FLUX's single-stream blocks have them."""

    def __init__(self):
        super().__init__()
        self.attn, self.proj_mlp, self.proj_out = Attention(), Multiply(), Multiply()

    def forward(self, x):
        return self.proj_out(torch.cat([*self.attn(x), self.proj_mlp(x)], -1)).sum(-1, keepdim=True)


class Small(nn.Module):
    def __init__(self, *blocks, output=tuple):
        super().__init__()
        self.blocks, self.norm_out = nn.ModuleList(blocks or (Block(), Block())), nn.Identity()
        self.output = output

    def forward(self, hidden_states, timestep=None, encoder_hidden_states=None):
        x = hidden_states
        for block in self.blocks:
            x = block(x)
        x = self.norm_out(x) + 0.5
        return (x, "rest") if self.output is tuple else self.output(sample=x)


def called_with(model, value):
    x = torch.full((1, 2, 1), float(value))
    return DenoiserCall(model.forward, model.forward, (x,), {}, {"self": model, "hidden_states": x})


def numbers(tensor):
    assert tensor.unique().numel() == 1
    return tensor.flatten()[0].item()


def method(**settings):
    return Method(**{"name": "mine", "forecast": forecast.reuse, "schedule": EVERY_SECOND, **settings})


def steps(count=4):
    """A flow scheduler of `count` steps; its `step_index` is set by hand."""
    sigmas = torch.linspace(1, 1 / count, count)
    config = SimpleNamespace(num_train_timesteps=1000)
    return SimpleNamespace(timesteps=1000 * sigmas, sigmas=sigmas, step_index=0, begin_index=None, config=config)


def put_on(model, made_method, layout=LAYOUT, scheduler=None, **settings):
    scheduler = scheduler or steps()
    return CacheHook(model, layout, lambda: scheduler, made_method, **settings), scheduler


def latents(value):
    return torch.full((1, 1, 2, 2), float(value))


def walk(model, scheduler, values, **kwargs):
    found = []
    for scheduler.step_index, value in enumerate(values):
        found.append(numbers(model(latents(value), **kwargs)[0]))
    return found
