"""What a plan and a loaded pipeline have to do with each other."""

from pathlib import Path
from typing import Any

from spectrum.core.errors import refuse
from spectrum.core.method import Method
from spectrum.hooks.private_api import uncompiled
from spectrum.models.attached import denoisers_as_called, loaded_from
from spectrum.models.fingerprint import fingerprint
from spectrum.models.identity import digest
from spectrum.models.kept_plans import check_goes_with, kept_plan, method_of
from spectrum.records.plan_file import Setting, read_plan

STEPS = 50
"""The number of steps for which `accelerate` looks a plan up."""


def setting_of_pipeline(pipe: Any, steps: int) -> Setting:
    """What a pipeline with one denoiser says of its runs; its grid is not known before it is called.

    Args:
        pipe: a diffusers pipeline.
        steps: number of denoising steps that it will be called with.
    """
    folder, solver = folder_of(pipe), type(pipe.scheduler).__name__
    identity = digest(folder) if folder else None
    weights = fingerprint(uncompiled(denoisers_as_called(pipe)[0]))
    return Setting(type(pipe).__name__, identity, steps, solver, [], weights=weights)


def folder_of(pipe: Any) -> Path | None:
    """The folder that a pipeline was loaded from; None where it was not loaded from one."""
    name = loaded_from(pipe)
    return Path(name) if name and (Path(name) / "model_index.json").is_file() else None


def planned_method(pipe: Any, runs: int | None, plan: Path | str | None, force: bool) -> Method:
    """The method of a plan for a pipeline: of a file, or with `runs` of the one kept beside the pipeline's weights.

    Args:
        pipe: a diffusers pipeline.
        runs: block runs out of 50 steps; None with a file.
        plan: the file.
        force: apply it to a pipeline that it was not made for.

    Raises:
        SpectrumError: if there is no such plan, or it was made for other weights, another pipeline or solver.
    """
    many = len(denoisers_as_called(pipe))
    if many > 1:
        refuse(f"{type(pipe).__name__} has {many} denoisers, and a plan is fitted for one: type another method")
    found = kept_plan(folder_of(pipe), STEPS, runs, type(pipe).__name__) if plan is None else read_plan(Path(plan))
    if runs not in (None, len(found.run_steps)):
        refuse(f"runs={runs}, but the plan runs {len(found.run_steps)} steps: leave runs= out")
    check_goes_with(found, setting_of_pipeline(pipe, found.setting.steps), force, "force=True")
    return method_of(found, force)
