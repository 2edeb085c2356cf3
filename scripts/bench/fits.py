"""What fitting a plan costs on a large model, and a run with that plan."""

import time
from collections.abc import Callable
from typing import Any

import torch
from model import Model

from spectrum.bench.fitting import Asked, Fitting
from spectrum.core.method import Site
from spectrum.models.kept_plans import method_of

PROMPTS = 2


def cost(model: Model, runs: int, found: dict[str, Any], keep: Callable[[], None]) -> None:
    """Fit a plan without a search for its schedule, and sample with it.

    Args:
        model: the model, with nothing on its pipeline.
        runs: the number of run steps.
        found: is given `uncached`: a timed call in full; `prompts`; `sampling_seconds`: of the prompts' uncached runs;
            `fit_seconds`: of all else; `full_runs`: the plan's own count of what both cost; `grown`: the bytes by which
            both raised the peak of memory; `planned`: a timed call with the plan.
        keep: writes it down as far as it is.
    """
    cuda = model.device.type == "cuda"
    model.timed(stop=3)
    found |= {"uncached": model.timed(), "prompts": PROMPTS, "runs": runs}
    keep()
    config = model.config("prompts=examples", f"prompts.limit={PROMPTS}", "planner=given")
    before = torch.cuda.memory_allocated() if cuda else 0
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    began = time.monotonic()
    with Fitting(config, [model.pipe], Site.output, lambda *_: lambda _: None) as fitting:
        found["sampling_seconds"] = time.monotonic() - began
        plan = fitting.plan(config.planner or {}, Asked(runs), None)
    found["fit_seconds"] = time.monotonic() - began - found["sampling_seconds"]
    found |= {"full_runs": plan.full_runs, "run_steps": list(plan.run_steps)}
    found["grown"] = torch.cuda.max_memory_allocated() - before if cuda else 0
    keep()
    found["planned"] = model.timed(method_of(plan, force=True))
