"""Fit a plan: from a number of block runs to the steps at which they are best spent, with the weights between them.

python scripts/fit.py model=tiny runs=10 [prompts=calibration] [prompts.limit=8] [planner=traced] [site=output]
python scripts/fit.py model=tiny runs=10 planner=given                 weights alone, for a grid that is not searched
python scripts/fit.py model=tiny runs=8,10,14                          a plan for each, from the same uncached runs
python run.py method=planned plan=outputs/plans/tiny-50-steps-10-runs.json             sample with it

The calibration prompts are sampled uncached, and a planner looks for the run steps with which a sample comes nearest to
that; then the weights are fitted gap by gap. What was scored is kept in a journal in outputs/plans, so that the same
command goes on where it was broken off, and comes to the same plan, byte by byte; a fit of another number of runs goes
on from it too.
"""

import dataclasses
import functools
import math
from pathlib import Path

import torch
from rich.console import Console

from spectrum.bench.fitting import Asked, fit_plans, forecast_of
from spectrum.bench.progress import Progress
from spectrum.bench.prompts import read_prompts
from spectrum.commands.calibrate import check_fit_prompts
from spectrum.commands.guard import quiet, split_options, truth, with_defaults
from spectrum.commands.help import wants_config_help
from spectrum.commands.plan_files import card, lines_of
from spectrum.config.compose import compose
from spectrum.config.reader import choices
from spectrum.config.schema import RunConfig
from spectrum.core.errors import check_number, refuse
from spectrum.core.method import Site
from spectrum.models.identity import weights_folder
from spectrum.models.kept_plans import PLANS, plan_name
from spectrum.models.offload import check_whole
from spectrum.models.pipelines import device_of, load_pipeline
from spectrum.planning.local import LOCAL
from spectrum.records.files import write_bytes
from spectrum.records.plan_file import FITTED, read_plan, write_plan

PROMPTS = 8
"""How many calibration prompts a plan is fitted on, unless prompts.limit= says so."""
USAGE = "python scripts/fit.py model=NAME runs=10"
OPTIONS = {
    "runs": "number of block runs; several with commas between them",
    "to": "the plan's file; outputs/plans/MODEL-STEPS-steps-RUNS-runs.json by default",
    "site": "output (the default) or exit: where features are stored",
    "memory": "how many of the newest run steps a forecast uses; 3 by default, 0 for all",
    "forecast": "fitted (the default), local, or a method whose forecast gives the weights: fora, taylorseer, spectrum",
    "branches": "shared (the default) or own: whether the CFG branches have the same weights",
    "seed": "of the planner; 0 by default",
    "devices": "several, each with the whole model, share the batches of samples: cuda:0,cuda:1; device= by default",
    "keep": "true also keeps the plan beside the model's weights, where runs= finds it",
}


def main(words: list[str]) -> None:
    """Fit a plan and write it.

    Args:
        words: the options, and the config's overrides.
    """
    if wants_config_help(words, __doc__ or "", OPTIONS):
        return
    given, words = split_options(words, OPTIONS, USAGE)
    limit = [] if any(word.startswith("prompts.text=") for word in words) else [f"prompts.limit={PROMPTS}"]
    config = compose(with_defaults(words, "method=none", "prompts=calibration", *limit))
    asked = asked_of(given)
    check_fit_prompts(config)
    check_whole(config)
    model = config.model
    if "to" in given and len(asked) > 1:
        refuse("to= names one file: leave it out, or type one number of runs")
    if "to" in given and Path(given["to"]).is_dir():
        refuse(f"to={given['to']} is a folder: type to=FILE")
    keep = truth("keep", given)
    folder = weights_folder(model) if keep else None
    if keep and folder is None:
        refuse(f"the weights of model={model.name} lie in no folder that a plan could be kept in: leave keep=true out")
    quiet()
    devices = devices_of(config, given.get("devices"))
    config = dataclasses.replace(config, device=",".join(map(str, devices))) if len(devices) > 1 else config
    pipes = [load_pipeline(model, device) for device in devices]
    console = Console()
    journals = Path(config.out) / PLANS
    journals.mkdir(parents=True, exist_ok=True)
    say = functools.partial(console.print, markup=False, highlight=False, soft_wrap=True)
    with Progress(console) as progress:
        for plan in fit_plans(config, pipes, asked, journals, progress.start):
            name = plan_name(model.steps, len(plan.run_steps))
            places = [Path(given.get("to") or journals / f"{model.name}-{name}")]
            places += [] if folder is None else [folder / PLANS / name]
            for place in places:
                write_plan(place, plan)
            for line in (*lines_of(plan), *(f"written: {place}" for place in places)):
                say(line)
    if folder is not None:
        kept = [read_plan(place) for place in (folder / PLANS).glob("*-runs.json")]
        write_bytes(folder / PLANS / "README.md", card(kept).encode())


def devices_of(config: RunConfig, text: str | None) -> list[torch.device]:
    """The devices that a fit is spread over.

    Args:
        config: the model, the prompts and the batch size.
        text: names with commas between them; None for that of `device=`.

    Raises:
        SpectrumError: for a device that is not there, one GPU twice, and more devices than batches.
    """
    found = [device_of(name.strip()) for name in (text or config.device).split(",") if name.strip()]
    if not found or any(device.type != "cpu" and found.count(device) > 1 for device in found):
        refuse(f"devices={text} has no device, or one twice: type for example devices=cuda:0,cuda:1")
    samples = len(read_prompts(config.prompts)) * len(config.seeds)
    size = config.batch or config.model.batch
    if len(found) > math.ceil(samples / size):
        hint = f"batch={max(1, samples // len(found))}"
        refuse(f"{samples} samples in batches of {size} leave some of {len(found)} devices idle: type {hint}")
    return found


def asked_of(given: dict[str, str]) -> list[Asked]:
    """What each plan is asked to be, from the options of the command line.

    Raises:
        SpectrumError: for an option with another value than it takes.
    """
    site = given.get("site", "output")
    if site not in (Site.output, Site.exit):
        refuse(f"site={site}: type site=output or site=exit")
    branches = given.get("branches", "shared")
    if branches not in ("shared", "own"):
        refuse(f"branches={branches}: type branches=shared or branches=own")
    forecast = given.get("forecast", FITTED)
    if forecast not in (FITTED, LOCAL, *choices("method")):
        known = ", ".join((FITTED, LOCAL, *choices("method")))
        refuse(f"forecast={forecast} is unknown: type forecast= with one of {known}")
    if forecast not in (FITTED, LOCAL):
        forecast_of(forecast)
    numbers = {}
    for key, default in (("memory", "3" if forecast == FITTED else "0"), ("seed", "0")):
        text = given.get(key, default)
        if not text.isdecimal():
            refuse(f"{key}={text} is no whole number: type {key}=2")
        numbers[key] = int(text)
    many = given.get("runs", "").split(",")
    if "runs" not in given:
        refuse(f"how many runs may a sample cost? Type runs=N, {USAGE}")
    for text in many:
        if not text.isdecimal():
            refuse(f"runs={given['runs']} is no whole number: type runs=10, or runs=8,10,14")
        check_number("runs", int(text), low=2, integer=True)
    memory, shared, seed = numbers["memory"] or None, branches == "shared", numbers["seed"]
    return [Asked(runs, Site(site), memory, shared, seed, forecast) for runs in dict.fromkeys(map(int, many))]
