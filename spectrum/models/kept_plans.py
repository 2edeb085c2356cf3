"""The plans that are kept beside a model's weights, and what a plan makes of a config and of a method."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

from spectrum.config.schema import BUILT, ModelConfig, RunConfig
from spectrum.core.errors import refuse
from spectrum.core.method import Method, Site, Space
from spectrum.core.planned import bounds, planned
from spectrum.core.schedule import explicit
from spectrum.models.identity import model_identity, weights_folder
from spectrum.records.plan_file import PlanFile, Setting, changes, differences, read_plan

PLANS = "plans"
"""The folder beside a model's weights that holds its plans."""
TARGET = "spectrum.core.planned.planned"


def plan_name(steps: int, runs: int) -> str:
    """The file name under which a plan is kept.

    Example:
        >>> plan_name(50, 10)
        '50-steps-10-runs.json'
    """
    return f"{steps}-steps-{runs}-runs.json"


def plan_path(folder: Path | None, steps: int, runs: int | None) -> Path | None:
    """Where the plan of so many steps and runs is kept beside weights; None if there are no such weights or runs.

    Args:
        folder: of the weights; None where they lie in none.
        steps: number of denoising steps.
        runs: number of run steps; None where none were asked for.
    """
    return None if folder is None or runs is None else folder / PLANS / plan_name(steps, runs)


def kept_runs(folder: Path | None, steps: int) -> list[int]:
    """The numbers of runs for which a plan of so many steps is kept beside weights, ascending.

    Args:
        folder: of the weights; None where they lie in none.
        steps: number of denoising steps.
    """
    if folder is None:
        return []
    names = (path.name.split("-") for path in (folder / PLANS).glob(f"{steps}-steps-*-runs.json"))
    return sorted(int(words[2]) for words in names if words[2].isdecimal())


def kept_plan(folder: Path | None, steps: int, runs: int | None, model: str) -> PlanFile:
    """The plan for a number of runs that is kept beside weights.

    Args:
        folder: of the weights; None where they lie in none.
        steps: number of denoising steps.
        runs: number of run steps; None is refused with what there is.
        model: the model, for the message: `model=` and its name where it has a config.

    Raises:
        SpectrumError: if there is none.
    """
    there = kept_runs(folder, steps)
    path = plan_path(folder, steps, runs)
    if path is not None and runs in there:
        return read_plan(path)
    what = "type runs= or plan=FILE" if runs is None else f"no plan of {runs} runs in {steps} steps is kept"
    has = f"there are plans of {', '.join(map(str, there))} runs" if there else "there is none yet"
    typed = model if model.startswith("model=") else "model=NAME"
    makes = f"python scripts/fit.py {typed} model.steps={steps} runs={runs or steps // 5} keep=true"
    return refuse(f"{model}: {what}; {has}, and {makes} makes one")


def setting_of(model: ModelConfig) -> Setting:
    """What a config says of a run; its solver and grid are not known before the pipeline is loaded.

    Args:
        model: the model's config.
    """
    call = {key: value for key, value in model.call.items() if not isinstance(value, str)}
    identity = model_identity(model)
    return Setting(model.pipeline, identity, model.steps, None, [], model.height, model.width, model.frames, call)


def with_plan(config: RunConfig) -> RunConfig:
    """A config whose planned method has the run steps, weights and site of its plan; any other config as it is.

    Args:
        config: a config.

    Raises:
        SpectrumError: if there is no such plan, or it was made for something else and `plan_force` is not true.
    """
    forecast = config.method.forecast
    if not forecast or forecast.get("_target_") != TARGET or forecast.get("weights") is not None:
        if config.plan is not None:
            refuse(f"plan= goes with method=planned, and not with method={config.method.name}")
        return config
    model = config.model
    if config.plan is not None:
        plan = read_plan(Path(config.plan))
        if config.runs not in (None, len(plan.run_steps)):
            refuse(f"runs={config.runs}, but plan={config.plan} runs {len(plan.run_steps)} steps: leave runs= out")
    else:
        folder = None if model.weights in BUILT else weights_folder(model)
        plan = kept_plan(folder, model.steps, config.runs, f"model={model.name}")
    here = setting_of(model)
    check_goes_with(plan, here, config.plan_force, "plan_force=true")
    return applied(config, plan, here)


def check_goes_with(plan: PlanFile, here: Setting, forced: bool, force: str) -> None:
    """Refuse a plan that was made for something else.

    Args:
        plan: the plan.
        here: the run's setting.
        forced: whether it is applied all the same; never with another number of steps.
        force: what to type for that.

    Raises:
        SpectrumError: with what differs.
    """
    apart, same_steps = differences(plan.setting, here), plan.setting.steps == here.steps
    if apart and not (forced and same_steps):
        hint = f", or type {force}" if same_steps else ""
        refuse(
            f"{plan.name} was made for {'; '.join(apart)}: fit another with python scripts/fit.py "
            f"runs={len(plan.run_steps)}{hint}"
        )


def applied(config: RunConfig, plan: PlanFile, here: Setting) -> RunConfig:
    """A config of the planned method with a plan's run steps, weights and site, and with what the plan was made for.

    Args:
        config: the config; with `plan_force` the plan may run on any grid of its number of steps.
        plan: the plan.
        here: the run's setting.
    """
    made_for = plan.setting
    about = {
        "digest": plan.digest,
        "steps": made_for.steps,
        "sigmas": None if config.plan_force else made_for.sigmas,
        "differs": [*differences(made_for, here), *changes(made_for, here)],
    }
    forecast: dict[str, Any] = {**(config.method.forecast or {}), "run_steps": plan.run_steps, "weights": plan.weights}
    own = {"forecast": forecast, "site": Site(plan.site), "space": Space(plan.space), "plan": about}
    method = dataclasses.replace(config.method, **own)
    schedule = {**config.schedule, "run_steps": plan.run_steps}
    return dataclasses.replace(config, method=method, schedule=schedule, runs=None, plan=None)


def method_of(plan: PlanFile, force: bool = False) -> Method:
    """The method that a plan describes.

    Args:
        plan: the plan.
        force: whether it may run on any grid of that many steps.
    """
    forecast = functools.partial(planned, run_steps=plan.run_steps, weights=plan.weights)
    schedule = functools.partial(explicit, run_steps=plan.run_steps)
    limits = bounds(plan.weights, plan.setting.steps, None if force else plan.setting.sigmas)
    return Method("planned", forecast, schedule, Space(plan.space), Site(plan.site), **limits)
