"""How curved the model's trajectories are, measured on what was written, for its card."""

from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from eval.metrics.fidelity import psnr_of

from .scenes import SIZE

GUIDANCE = 4.0


def _sample(pipe: DiffusionPipeline, prompts: list[str], first: int, steps: int, path: list[Tensor]) -> Tensor:
    def note(pipe: DiffusionPipeline, step: int, timestep: Tensor, state: dict[str, Tensor]) -> dict[str, Tensor]:
        path.append(state["latents"])
        return state

    return pipe(  # pyright: ignore[reportCallIssue]
        prompt=prompts,
        negative_prompt=[""] * len(prompts),
        true_cfg_scale=GUIDANCE,
        height=SIZE,
        width=SIZE,
        max_sequence_length=16,
        num_inference_steps=steps,
        generator=[torch.Generator().manual_seed(first + n) for n in range(len(prompts))],
        output_type="pt",
        callback_on_step_end=note,
    ).images.float()


def deviation(path: list[Tensor], sigmas: list[float]) -> float:
    """`sum_s |dsigma_s| ||v_s - d||^2 / ||d||^2`: 0 for a straight line walked at constant speed.

    `path` are latents (batch, tokens, channels) at `sigmas`; `v_s` is the mean velocity of a step and `d` that of the
    whole path.
    """
    whole = (path[-1] - path[0]) / (sigmas[-1] - sigmas[0])
    total = 0.0
    for before, after, high, low in zip(path, path[1:], sigmas, sigmas[1:], strict=False):
        velocity = (after - before) / (low - high)
        total += (high - low) * ((velocity - whole).square().mean() / whole.square().mean()).item()
    return total / (sigmas[0] - sigmas[-1])


def measure(folder: Path, prompts: list[str], batch: int = 16) -> dict[str, float]:
    """PSNR of plain Euler at 14 and at 10 of 50 steps to all 50, in dB, and the mean `deviation`, over `prompts`."""
    pipe = DiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    decibels: dict[int, list[float]] = {14: [], 10: []}
    bent = []
    for first in range(0, len(prompts), batch):
        some, path = prompts[first : first + batch], []
        reference = _sample(pipe, some, first, 50, path)
        sigmas = pipe.scheduler.sigmas.tolist()  # pyright: ignore[reportAttributeAccessIssue]
        bent += [deviation(path, sigmas[1:])] * len(some)
        for steps, values in decibels.items():
            values += psnr_of(_sample(pipe, some, first, steps, []), reference)
    means = {f"euler_{steps}": round(sum(values) / len(values), 1) for steps, values in decibels.items()}
    return {**means, "deviation": round(sum(bent) / len(bent), 2)}
