"""A denoiser small enough to work out by hand: a block makes `30 x + 10` of `x`, the head adds a half."""

import torch
from torch import nn

from spectrum import Method
from spectrum.core import forecast
from spectrum.hooks.layout import Denoiser
from spectrum.hooks.step import DenoiserCall

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


def method(**settings):
    return Method("mine", forecast.reuse, **settings)


def numbers(tensor):
    assert tensor.unique().numel() == 1
    return tensor.flatten()[0].item()
