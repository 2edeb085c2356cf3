"""Fit what a method needs on a model, on prompts that no table uses, and keep it with the model.

python scripts/calibrate.py model=tiny method=teacache [prompts=calibration] [prompts.limit=16] [budgets=14,10]
python scripts/calibrate.py model=tiny method=teacache write=true      keep the fit beside the weights

For TeaCache it fits the polynomial from the relative change of its signal to that of the blocks' output between
consecutive steps of the uncached run (degree 4, least squares); for MagCache the ratios of the residual's size from
step to step. For every data-dependent method it finds the thresholds that run a given number of steps on average.
"""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from spectrum.api import denoisers
from spectrum.bench.calibration import calibrate, joined
from spectrum.bench.fits import FITS
from spectrum.bench.progress import Progress
from spectrum.bench.prompts import read_prompts, shared_prompts
from spectrum.commands.guard import quiet, split_options, truth, with_defaults
from spectrum.commands.help import wants_config_help
from spectrum.config.compose import compose
from spectrum.config.sampling import Sampling
from spectrum.config.schema import RunConfig
from spectrum.core.errors import refuse
from spectrum.models.fitted import CALIBRATION, read_calibration
from spectrum.models.identity import weights_folder
from spectrum.models.offload import check_whole
from spectrum.models.pipelines import device_of, load_pipeline
from spectrum.models.sources import CLASSES_HUB
from spectrum.records.files import write_json

BUDGETS = (18, 14, 12, 10, 9, 8)
USAGE = "python scripts/calibrate.py model=NAME method=teacache [budgets=14,10]"

OPTIONS = {
    "budgets": "the numbers of block runs to find thresholds for: 18,14,12,10,9,8 by default",
    "write": "true keeps the fit beside the weights; else it is printed",
    "overwrite": "true replaces a kept fit of other steps or of more prompts",
}


def main(words: list[str]) -> None:
    """Fit, and print the fit or keep it beside the weights.

    Args:
        words: the options, and the config's overrides.
    """
    if wants_config_help(words, __doc__ or "", OPTIONS):
        return
    given, words = split_options(words, OPTIONS, USAGE)
    config = compose(with_defaults(words, "prompts=calibration"))
    name = config.method.name
    if name not in FITS and config.method.drift is None:
        refuse(f"method={name} has nothing to fit: type one that decides by data, {USAGE}")
    check_fit_prompts(config)
    check_whole(config)
    budgets = _budgets(given.get("budgets"))
    keep = truth("write", given)
    if keep:
        check_overwrite(config, truth("overwrite", given))
    quiet()
    pipe = load_pipeline(config.model, device_of(config.device))
    if len(denoisers(pipe)) > 1:
        refuse(f"model={config.model.name} has two denoisers, and a fit is of one: type a method of time alone")
    console = Console()
    say = functools.partial(console.print, markup=False, highlight=False, soft_wrap=True)
    with Progress(console) as progress:
        found = calibrate(dataclasses.replace(config, runs=None), pipe, budgets, say, progress.start)
    write_fit(config, found) if keep else print_fit(config, found)


def _budgets(text: str | None) -> tuple[int, ...]:
    if text is None:
        return BUDGETS
    words = text.strip("[]").split(",")
    if not all(word.strip().isdecimal() and int(word) for word in words):
        refuse(f"budgets={text} is no list of numbers of steps: type budgets=14,10")
    return tuple(map(int, words))


def check_fit_prompts(config: RunConfig) -> None:
    """Refuse to fit on prompts that tables are made on, wherever they were read from.

    Raises:
        SpectrumError: for a prompt of the held-out or of the sealed list; for the embedded model of classes, also for
            a class that its tables are made on.
    """
    prompts = read_prompts(config.prompts)
    of_classes = config.model.hub == CLASSES_HUB
    if of_classes and any(text.isdecimal() for text in prompts):
        refuse("a fit names its classes, not their numbers: type prompts=classes_calibration")
    free = "classes_calibration" if of_classes else "calibration"
    for name in ("heldout", "sealed", *(["classes"] if of_classes else [])):
        if shared_prompts(prompts, name):
            refuse(f"nothing is fitted on the {name} prompts, which methods are compared on: type prompts={free}")


def kept_fits(config: RunConfig) -> tuple[Path, dict[str, Any]]:
    """(the file beside the weights, the fits in it). Refuses a model whose weights come from the hub."""
    folder = weights_folder(config.model)
    if folder is None:
        refuse(
            f"the weights of model={config.model.name} lie in no folder of their own: leave write=true out, and put "
            "what is printed into its config"
        )
    return folder / CALIBRATION, read_calibration(folder / CALIBRATION)


def check_overwrite(config: RunConfig, allowed: bool) -> None:
    """Refuse to replace a kept fit that was made for another config, other steps or more prompts, unless allowed."""
    path, known = kept_fits(config)
    about = known.get(config.method.name, {}).get("fitted_on")
    if about is None or allowed:
        return
    count = len(read_prompts(config.prompts)) * len(config.seeds)
    steps = Sampling.of(config).steps
    other = about.get("config", config.model.name) != config.model.name or about.get("steps", steps) != steps
    if other or about.get("samples", 0) > count:
        refuse(
            f"{path} has a fit of {config.method.name} on {about.get('config')}, {about.get('steps')} steps and "
            f"{about.get('samples')} samples, and this one is of {config.model.name}, {steps} steps and {count}: type "
            "overwrite=true to replace it"
        )


def print_fit(config: RunConfig, found: dict[str, Any]) -> None:
    """Print a fit as it belongs into the model's config."""
    name = config.method.name
    print(f"put this under calibration.{name} in configs/model/{config.model.name}.yaml, or type write=true to keep it")
    print(f"beside the weights:\n{json.dumps(joined({}, found))}")


def write_fit(config: RunConfig, found: dict[str, Any]) -> None:
    """Keep a fit beside the weights."""
    path, known = kept_fits(config)
    name = config.method.name
    write_json(path, {**known, name: joined(known.get(name, {}), found)})
    print(f"written: {path}")
