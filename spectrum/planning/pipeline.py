"""Fits a plan on a user's own pipeline, with the arguments that it is called with."""

import dataclasses
import functools
import importlib.metadata
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

import spectrum
from spectrum.core.clock import Clock
from spectrum.core.errors import check_number, refuse
from spectrum.core.method import Site
from spectrum.hooks.layout import Denoiser
from spectrum.hooks.scheduler import readings
from spectrum.models.pipeline_plans import setting_of_pipeline
from spectrum.models.returned import samples_in
from spectrum.planning.evaluate import Evaluate
from spectrum.planning.gap import Settings
from spectrum.planning.make import as_file, make
from spectrum.planning.planners import check_budget, check_steps, traced
from spectrum.planning.player import Player
from spectrum.planning.rollout import Rollouts
from spectrum.records.plan_file import PlanFile, Setting


def fit_pipeline(
    pipe: Any,
    prompts: Sequence[str],
    runs: int,
    steps: int = 50,
    site: Site = Site.output,
    tries: int = 0,
    batch: int = 1,
    seed: int = 0,
    denoiser: Denoiser | None = None,
    **call: Any,
) -> PlanFile:
    """Fit a plan on a pipeline that has no method on it.

    Args:
        pipe: a diffusers pipeline.
        prompts: what to fit on; none that results are judged on.
        runs: number of run steps.
        steps: number of denoising steps.
        site: where features are stored, the output or the exit.
        tries: moves of hill-climbing after the shortest path, each sampled.
        batch: samples per call of the pipeline.
        seed: of the search; prompt i is sampled from the noise seed i.
        denoiser: the layout of a family that is not registered.
        **call: the arguments that the pipeline is called with, such as `guidance_scale`, `height` and `width`.

    Returns:
        The plan; `spectrum.records.plan_file.write_plan` keeps it.

    Raises:
        SpectrumError: for a budget that no schedule has, prompts that are missing, and pictures that are not numbers.
    """
    check_budget(steps, runs)
    check_number("batch", batch, low=1, integer=True)
    if isinstance(prompts, str) or not prompts or not all(isinstance(text, str) and text.strip() for text in prompts):
        refuse("prompts= is a list of texts to fit on: give some, for example those of spectrum/assets/prompts")
    with Player(pipe, Site(site), denoiser=denoiser) as player:
        rollouts = [
            Rollouts(player, functools.partial(_sampled, pipe, prompts[first : first + batch], first, steps, call))
            for first in range(0, len(prompts), batch)
        ]
        check_steps(rollouts[0].steps, steps)
        evaluate = Evaluate(rollouts, Settings())
        made = make(evaluate, lambda own: traced(own, steps, runs, seed, tries=tries))
        setting = _setting(pipe, steps, call)
    versions = {name: importlib.metadata.version(name) for name in ("torch", "diffusers")}
    planner = {"_target_": "spectrum.planning.planners.traced", "tries": tries, "seed": seed}
    made_with = {"spectrum": spectrum.__version__, "packages": versions}
    return as_file(made, Site(site), setting, prompts, planner, made_with)


def _sampled(pipe: Any, prompts: Sequence[str], first: int, steps: int, call: dict[str, Any]) -> Tensor:
    """The pictures or videos of some prompts, each from its own noise, in [0, 1] on the CPU."""
    noise = [torch.Generator("cpu").manual_seed(first + number) for number in range(len(prompts))]
    more = {"prompt": list(prompts), "num_inference_steps": steps, "generator": noise, "output_type": "pt"}
    result = pipe(**{**call, **more})
    images = samples_in(result, len(prompts))
    if not torch.isfinite(images).all():
        refuse("the pipeline returned NaN or infinite pixels: try another dtype")
    return images.float().cpu()


def _setting(pipe: Any, steps: int, call: dict[str, Any]) -> Setting:
    """What a plan is fitted for, with the grid of sigmas that the pipeline has just sampled on."""
    numbers = {key: value for key, value in call.items() if isinstance(value, (int, float))}
    names = {"height": "height", "width": "width", "num_frames": "frames"}
    sizes = {name: numbers[key] for key, name in names.items() if key in numbers}
    plain = {key: value for key, value in numbers.items() if key not in names}
    sigmas, _ = readings(pipe.scheduler, Clock.sigma)
    return dataclasses.replace(setting_of_pipeline(pipe, steps), sigmas=sigmas, call=plain, **sizes)
