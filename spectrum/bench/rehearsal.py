"""Rehearses a pipeline's call on the meta device: what its networks hold while they work, before one is loaded."""

import dataclasses
import math
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from torch import Tensor, nn

from spectrum.bench.prompts import Sample
from spectrum.bench.sampling import sample_batch
from spectrum.config.sampling import Sampling
from spectrum.config.schema import RunConfig
from spectrum.core.errors import SpectrumError
from spectrum.hooks.discovery import block_stacks, site_modules
from spectrum.hooks.replaced import replaced
from spectrum.hooks.tensors import further_outputs, sample_of, tensors_in
from spectrum.models.attached import named_denoisers
from spectrum.models.layouts import registered_layout
from spectrum.models.meter import metered, shapes, zeros
from spectrum.models.need import Rehearsed, Task
from spectrum.models.offload import networks, part_of
from spectrum.models.pieces import in_pieces
from spectrum.models.shadow import config_folder, shadow

STEPS = 2
PROMPT = "0"
"""A prompt for every model, of classes too."""


class _Here(ModelHook):
    """Tells a pipeline that it computes on the CPU, where its latents and embeddings are."""

    execution_device = torch.device("cpu")


class _EndError(Exception):
    """Ends a rehearsal: the latents have been decoded, or a network cannot be called without numbers."""


def rehearse(config: RunConfig) -> Rehearsed:
    """Make one call of a pipeline whose networks hold no numbers, with real schedulers and tokenizers between them.

    Args:
        config: the config; its method is not put on.

    Returns:
        What the networks weigh, and what their calls hold.

    Raises:
        SpectrumError: if neither the config nor this machine has the model's architecture.
    """
    return _Rehearsal(config).found()


class _Rehearsal:
    def __init__(self, config: RunConfig) -> None:
        pipe = in_pieces(shadow(config.model), config.model)
        found = networks(pipe)
        self._parts = {name: part_of(module) for name, module in found.items()}
        self._tasks: dict[str, Task] = {}
        self._outputs: list[list[int]] = []
        self._failed: list[str] = []
        self._networks, self._denoisers = found, set(named_denoisers(pipe))
        self._made: dict[Any, Any] = {}
        self._tiling = "tiling" in config.model.vae
        self._inside = self._modules = 0
        for name in self._denoisers:
            self._watch_modules(found[name])
        with torch.no_grad(), ExitStack() as stack:
            for name, module in found.items():
                if name not in self._denoisers:
                    _with_buffers(module)
                add_hook_to_module(module, _Here())
                for method in ("forward", "encode", "decode"):
                    if hasattr(module, method):
                        task = name if method == "forward" else f"{name} {method}"
                        stack.enter_context(replaced(module, method, self._around(task, name)))
            with suppress(_EndError):
                self._call(pipe, config)

    def found(self) -> Rehearsed:
        tasks = {task.name: task for task in self._tasks.values()}
        return Rehearsed(self._parts, tuple(tasks.values()), self._outputs, self._modules, tuple(self._failed))

    def _watch_modules(self, denoiser: nn.Module) -> None:
        """Count what the modules return that `method.site=modules` stores."""

        def count(module: nn.Module, args: Any, output: Any) -> None:
            for _, tensor in tensors_in(output):
                self._inside += tensor.numel() * tensor.element_size()

        with suppress(SpectrumError):
            layout = registered_layout(denoiser)
            stacks = layout.stacks if layout is not None and layout.stacks else block_stacks(denoiser)
            stored, _ = site_modules(denoiser, stacks)
            for module in stored.values():
                module.register_forward_hook(count)

    def _call(self, pipe: Any, config: RunConfig) -> None:
        drawn = config if config_folder(config.model) else _with_model(config, weights="random")
        sampling = dataclasses.replace(Sampling.of(drawn), steps=STEPS)
        try:
            sample_batch(pipe, [Sample(number, PROMPT, 0) for number in range(config.batch or 1)], sampling)
        except (RuntimeError, ValueError, TypeError, AttributeError, IndexError) as error:
            if isinstance(error, SpectrumError):
                raise
            self._failed.append(type(pipe).__name__)

    def _around(self, name: str, part: str) -> Callable[..., Any]:
        def call(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            key = name, shapes((args, kwargs))
            if key not in self._made:
                self._made[key] = self._metered(original, args, kwargs, Task(name, part, 0))
            if name == f"{part} decode":
                raise _EndError
            return zeros(self._made[key])

        return call

    def _metered(self, original: Callable[..., Any], args: Any, kwargs: Any, task: Task) -> Any:
        self._inside = 0
        coders = [getattr(self._networks[task.part], name, None) for name in ("encoder", "decoder")]
        tiled = [coder for coder in coders if isinstance(coder, nn.Module)] if self._tiling else []
        try:
            made, work = metered(original, args, kwargs, self._networks.values(), tiled)
        except Exception:
            self._failed.append(task.name)
            raise _EndError from None
        before = self._tasks.get(task.name, task)
        self._tasks[task.name] = dataclasses.replace(task, work=max(before.work, work))
        if task.part in self._denoisers and not self._outputs:
            sample = sample_of(made)
            self._outputs = [_tokens(tensor) for tensor in (sample, *further_outputs(made).values())]
            self._modules = self._inside // sample.shape[0]
        return made


def _with_model(config: RunConfig, **changes: Any) -> RunConfig:
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **changes))


def _with_buffers(module: nn.Module) -> None:
    """Give a network zeros in the place of its buffers: pipelines read some of a VAE's."""
    for part in module.modules():
        for name, buffer in list(part.named_buffers(recurse=False)):
            if buffer.is_floating_point():
                setattr(part, name, torch.zeros(buffer.shape, dtype=buffer.dtype))


def _tokens(tensor: Tensor) -> list[int]:
    """The shape of one sample's tensor, as tokens and width: pictures and videos have their channels first."""
    shape = list(tensor.shape[1:])
    return shape if len(shape) == 2 else [math.prod(shape[1:]), shape[0]]
