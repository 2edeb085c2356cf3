"""What a config asks for, worked out before anything is loaded: its method, its reference, its name in tables."""

import dataclasses
import math

from spectrum.architecture import starts_of
from spectrum.config import DTYPES, RunConfig, at_runs, build_method, fill
from spectrum.errors import refuse
from spectrum.files import method_file, nearest_schedule, read
from spectrum.generate import Sampling
from spectrum.method import Method, Plan, Site, plan_method
from spectrum.pipeline import calibration

NONE = {"name": "none", "forecast": None}
ALWAYS = {"function": "spectrum.schedule.always"}


def plan_of(config: RunConfig, method: Method) -> Plan:
    """What `method` will do over the steps of a config, each denoiser of the pipeline with a history of its own."""
    steps = Sampling.of(config).steps
    return plan_method(method, steps, starts=starts_of(config.model, steps))


def cache_bytes(config: RunConfig, plan: Plan, batch: int = 1) -> int | None:
    """Bytes that a plan's features take at most: kept features x CFG branches x the batch's feature.

    Another height or width than the model's own changes the number of tokens with the area. None where a method stores
    elsewhere than at the exit of the blocks, or the number of frames is another: that is known from the first run step
    on.
    """
    model = config.model
    own = read("model", model.name)
    own = {**own, **own.get("tiny", {})} if model.weights == "tiny" else own
    if config.method.get("site", Site.exit) != Site.exit or model.frames != own.get("frames"):
        return None
    tokens, width = model.feature
    tokens = math.ceil(tokens * model.height * model.width / (own["height"] * own["width"]))
    return plan.kept * config.model.branches * batch * tokens * width * DTYPES[config.model.dtype].itemsize


def reference_of(config: RunConfig) -> RunConfig:
    """The uncached run that a config is compared with: same model, prompts, seeds and steps."""
    return dataclasses.replace(config, method=dict(NONE), schedule=dict(ALWAYS), runs=None)


def resolve(config: RunConfig) -> tuple[RunConfig, Method]:
    """The config with `runs` met and what was fitted for the model filled in, and its method, checked by planning."""
    fitted = calibration(config.model)
    config = at_runs(config, fitted)
    own = fitted.get(config.method["name"], {})
    usual = config.method.get("usual") or {}
    schedule, filled = fill(config.schedule, own, usual), fill(config.method, own, usual)
    config = dataclasses.replace(config, method=filled, schedule=schedule)
    method = build_method(config.method, config.schedule, fitted, config.model.name)
    steps = Sampling.of(config).steps
    if steps > config.model.steps:
        refuse(f"method.steps={steps} must be at most model.steps={config.model.steps}: type method.steps= or runs=")
    plan_of(config, method)
    return config, method


def label(config: RunConfig) -> str:
    """The method's name in tables, with its schedule's parameter and what differs from its own files."""
    method, schedule = config.method, config.schedule
    usual = method_file(method["name"])
    hidden = ("steps", "coefficients", "usual")
    shown = {k: v for k, v in method.items() if k == "order" or (v != usual.get(k) and k not in hidden)}
    name, differs = nearest_schedule(schedule)
    own = {**(method.get("usual") or {}), "ratios": schedule.get("ratios")}
    differs = {k: v for k, v in differs.items() if v is not None and own.get(k) != v}
    always = {k: schedule[k] for k in ("growth", "interval", "threshold") if schedule.get(k) is not None}
    words = [f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in {**shown, **always, **differs}.items()]
    if method["forecast"] and name != usual["schedule"]:
        words = [name, *words]
    return f"{method['name']} ({', '.join(words)})" if words else method["name"]
