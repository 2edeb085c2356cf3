"""Estimates the seconds of a sample from its operations and from what this machine was measured to do."""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spectrum.bench.flops import StepFlops, step_flops, without_weights
from spectrum.bench.resolve import resolve
from spectrum.config.compose import compose
from spectrum.config.sampling import Sampling
from spectrum.config.schema import RunConfig
from spectrum.core.errors import SpectrumError, refuse
from spectrum.core.method import Site
from spectrum.models.plans import feature_bytes, plan_of

REACHED = {"flux": 0.545, "sd35": 0.439, "wan21_14b": 0.672, "hunyuan_video": 0.516, "sdxl": 0.256}
"""The share of the rate of matrix products that a full step reached on one H100: operations of the step over its time
and over the rate measured there (`results/gpu`, not compiled). SDXL's steps were bound by the host."""
RUNS = 14, 10
INSTEAD = "type for example method=spectrum or method=fora"


@dataclass(frozen=True)
class Rates:
    """What a machine was measured to do.

    Attributes:
        tflops: TFLOP/s of matrix products by dtype.
        sum_bytes: bytes a second of the weighted sum of stored features.
        hook_seconds: of the hook at a skipped step.
    """

    tflops: Mapping[str, float]
    sum_bytes: float
    hook_seconds: float


def between(work: float) -> dict[str, float]:
    """Seconds for work that takes so long at the full rate of matrix products: `low`, `middle` and `high`.

    Args:
        work: seconds at that rate.
    """
    shares = sorted(REACHED.values())
    return {"low": work / shares[-1], "middle": work / statistics.median(shares), "high": work / shares[0]}


def seconds_of(step: StepFlops, steps: int, runs: int, stored: float, dtype: str, rates: Rates) -> dict[str, float]:
    """The seconds of a sample's denoising.

    Args:
        step: the operations of a step.
        steps: how many there are.
        runs: at how many the blocks run.
        stored: bytes that a skipped step reads and writes for its forecast.
        dtype: of the model.
        rates: of the machine.

    Returns:
        `low`, `middle` and `high`: the steps that run at the highest, median and lowest share of `REACHED`.
    """
    rate = 1e12 * rates.tflops[dtype]
    skipped = (steps - runs) * (stored / rates.sum_bytes + step.calls * rates.hook_seconds)
    operations = runs * step.total + (steps - runs) * (step.outside or 0)
    return {key: value + skipped for key, value in between(operations / rate).items()}


def method_words(name: str) -> list[str]:
    """The overrides of a method whose runs can be told before it samples, and that what is measured can be run with.

    Args:
        name: of the method.

    Raises:
        SpectrumError: for one that decides by data, skips nothing, stores elsewhere than behind the blocks, or has to
            be fitted first.
    """
    words = [f"method={name}"]
    try:
        _, method = resolve(compose(["model=tiny", *words]))
    except SpectrumError as error:
        refuse(f"method={name} cannot be measured as it is ({error}): {INSTEAD}")
    if method.forecast is None:
        refuse(f"method={name} skips nothing: type for example method=spectrum")
    if not method.time_only or method.site is Site.modules:
        why = "works inside the blocks" if method.site is Site.modules else "decides by data at which steps it skips"
        refuse(f"method={name} {why}, so nothing can be estimated: {INSTEAD}")
    toy = ["model=flux", "model.weights=tiny"]
    for own in ([*toy, f"runs={RUNS[0]}"], *(["model=tiny", f"runs={runs}"] for runs in RUNS)):
        try:
            resolve(compose([*own, *words, "batch=1"]))
        except SpectrumError as error:
            refuse(f"method={name} cannot be measured as it is ({error}): {INSTEAD}")
    return words


def estimate(name: str, words: Sequence[str], rates: Rates) -> dict[str, Any]:
    """What a model is estimated to take.

    Args:
        name: of the model.
        words: overrides of the method.
        rates: of the machine.

    Returns:
        `model`, `size`, `dtype`, `steps`, `tflop` of a step, `full` and by number of runs the seconds, None where the
        method cannot be run so on the model, and by number of runs the reasons for that in `without`; or `model` and
        the `reason` why there is no estimate.
    """
    config = compose([f"model={name}", "method=none", "batch=1"])
    size = f"{config.model.width}x{config.model.height}" + (f"x{config.model.frames}" if config.model.frames else "")
    if rates.tflops.get(config.model.dtype) is None:
        return {"model": name, "size": size, "reason": f"this machine has no products of {config.model.dtype} matrices"}
    try:
        described = (config.model.architecture or {}).get("components")
        built = _built(name) if described else config
        step = step_flops(without_weights(built.model), Sampling.of(built))
    except SpectrumError as error:
        return {"model": name, "size": size, "reason": str(error)}
    steps, dtype = plan_of(config, resolve(config)[1]).steps, config.model.dtype
    found: dict[str, Any] = {"model": name, "size": size, "dtype": dtype, "steps": steps, "tflop": step.total / 1e12}
    found["full"] = seconds_of(step, steps, steps, 0, dtype, rates)
    found["without"] = {}
    for runs in RUNS:
        try:
            site, stored = _planned(name, words, runs)
        except SpectrumError as error:
            found[str(runs)], found["without"][str(runs)] = None, str(error)
            continue
        own = step if site is Site.exit else dataclasses.replace(step, outside=0)
        found[str(runs)] = seconds_of(own, steps, runs, stored, dtype, rates)
    return found


def _built(name: str) -> RunConfig:
    """The config of a model's published architecture, called as a pipeline without text encoders is."""
    return compose([f"model={name}", "model.weights=random", "method=none", "batch=1"])


def _planned(name: str, words: Sequence[str], runs: int) -> tuple[Site, float]:
    """Where a method stores, and the bytes of a skipped step's forecast.

    What is stored at the output is as small as the latents, and counted as nothing.

    Raises:
        SpectrumError: where it has no schedule of so many runs, or has not been fitted for the model.
    """
    config, method = resolve(compose([f"model={name}", *words, f"runs={runs}", "batch=1"]))
    held = plan_of(config, method).features_held + 1
    return method.site, held * config.model.branches * feature_bytes(config) if method.site is Site.exit else 0.0
