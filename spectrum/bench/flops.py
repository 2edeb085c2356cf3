"""Counts the floating-point operations of one denoising step, without weights and without computing anything."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from accelerate.utils import recursively_apply, send_to_device
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from spectrum.api import denoisers
from spectrum.bench.marks import stacks_of
from spectrum.bench.prompts import Sample
from spectrum.bench.sampling import call_arguments
from spectrum.bench.watch import StoppedError
from spectrum.config.sampling import Sampling
from spectrum.config.schema import ModelConfig
from spectrum.core.errors import SpectrumError
from spectrum.hooks.block_stand_ins import blocks_named
from spectrum.hooks.replaced import replaced
from spectrum.models.architectures import build
from spectrum.models.identity import weights_folder
from spectrum.models.pipelines import load_pipeline

META = torch.device("meta")


@dataclass(frozen=True)
class StepFlops:
    """The operations of one step, each multiplication and each addition counted.

    Attributes:
        total: of all calls of the denoiser in the step.
        outside: of those that lie outside of its lists of blocks, which a skipped step makes too; None where it has no
            such lists.
        calls: how often the denoiser is called.
    """

    total: int
    outside: int | None
    calls: int


class _OnMeta(ModelHook):
    """Lets a module of the meta device be called by a pipeline that works on the CPU."""

    execution_device = torch.device("cpu")

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        return send_to_device(args, META), send_to_device(kwargs, META)

    def post_forward(self, module: nn.Module, output: Any) -> Any:
        return recursively_apply(_zeros, output)


def _zeros(like: Tensor) -> Tensor:
    return torch.zeros(like.shape, dtype=like.dtype)


def without_weights(model: ModelConfig) -> Any:
    """A model's pipeline at full size whose modules have shapes and no numbers.

    Args:
        model: the model's config.

    Returns:
        The pipeline, for `step_flops` alone. It takes hardly any memory, but for models whose weights ship here or lie
        in a folder: those are loaded first.
    """
    folder = weights_folder(model)
    described = folder is None and (model.architecture or {}).get("components")
    pipe = build(model, META) if described else load_pipeline(model, torch.device("cpu"))
    for part in vars(pipe).values():
        if isinstance(part, nn.Module) and (part in denoisers(pipe) or described):
            add_hook_to_module(part.to(META), _OnMeta())
    return pipe


def step_flops(pipe: Any, sampling: Sampling) -> StepFlops:
    """Count the operations of a pipeline's first step.

    Attention is counted as two products of matrices, whichever kernel would make it.

    Args:
        pipe: the pipeline, with weights or without.
        sampling: how it is called; for one sample.

    Raises:
        SpectrumError: if the pipeline or its denoiser looks at numbers, which the meta device does not have.
    """
    models = denoisers(pipe)
    calls: list[nn.Module] = []
    handles = [model.register_forward_pre_hook(lambda module, args: calls.append(module)) for model in models]
    call = call_arguments(pipe, [Sample(0, "1", 0)], sampling)
    noise = torch.Generator("cpu").manual_seed(0)
    try:
        with ExitStack() as stack:
            stack.enter_context(replaced(pipe.scheduler, "step", _stop))
            if getattr(pipe, "vae", None) is not None and next(pipe.vae.parameters()).is_meta:
                stack.enter_context(replaced(pipe.vae, "encode", _encoded))
            counter = stack.enter_context(FlopCounterMode(display=False))
            stack.enter_context(torch.no_grad())
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            with suppress(StoppedError):
                pipe(num_inference_steps=sampling.steps, generator=noise, output_type="latent", **call)
    except Exception as error:
        if isinstance(error, SpectrumError):
            raise
        line = (str(error).splitlines() or [""])[0].partition(". ")[0]
        raise SpectrumError(
            f"its operations cannot be counted without weights ({type(error).__name__}: {line})"
        ) from None
    finally:
        for handle in handles:
            handle.remove()
    by_module = {name: sum(ops.values()) for name, ops in counter.get_flop_counts().items()}
    names = {type(model).__name__ for model in calls}
    total = sum(by_module.get(name, 0) for name in names)
    blocks = _of_blocks(calls, by_module)
    return StepFlops(total, None if blocks is None else total - blocks, len(calls))


def _of_blocks(calls: list[nn.Module], by_module: Mapping[str, int]) -> int | None:
    """The operations inside of the blocks, also of lists that only feed others, such as Wan VACE's."""
    found: dict[str, int] = {}
    for model in dict.fromkeys(calls):
        lists = [name for name, child in model.named_children() if isinstance(child, nn.ModuleList)]
        names = [
            f"{type(model).__name__}.{name}"
            for name in blocks_named(model, [*dict.fromkeys((*stacks_of(model), *lists))])
        ]
        found |= {name: by_module.get(name, 0) for name in names}
    return sum(found.values()) or None


def _stop(step: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    raise StoppedError


def _encoded(encode: Callable[..., Any], picture: Tensor, *args: Any, **kwargs: Any) -> Any:
    """What a VAE on the meta device encodes a picture to, with zeros on the CPU."""
    found = encode(picture.to(META), *args, **kwargs)
    for name, value in vars(found).items() if not isinstance(found, dict) else [*found.items()]:
        parameters = getattr(value, "parameters", None)
        setattr(found, name, type(value)(_zeros(parameters)) if isinstance(parameters, Tensor) else _zeros(value))
    return found
