"""Builds a `Method` from its config: missing values filled in, functions found and bound."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from spectrum.config.compose import RunConfig, parse
from spectrum.config.reader import compose_raw
from spectrum.config.schema import MethodConfig
from spectrum.config.targets import bound_function, locate, shipped_targets
from spectrum.core.errors import check_number, refuse
from spectrum.core.given_schedule import given_schedule
from spectrum.core.method import Method, refuse_without_drift
from spectrum.core.planned import bounds
from spectrum.core.schedule import needs_drift, plan


def fill_missing(values: Mapping[str, Any], *sources: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with each null replaced from the first source that has it, also in the nodes that name functions.

    Args:
        values: a method or a schedule config.
        sources: what was fitted for the model, then the method's fallback.

    Example:
        >>> fill_missing({"threshold": None, "warmup": 3}, {}, {"threshold": 0.08, "warmup": 8})
        {'threshold': 0.08, 'warmup': 3}
    """
    filled: dict[str, Any] = {}
    for key, value in values.items():
        if value is None:
            value = next((source[key] for source in sources if source.get(key) is not None), None)
        elif isinstance(value, Mapping) and "_target_" in value:
            value = fill_missing(value, *sources)
        filled[key] = value
    return filled


def filled(config: RunConfig, fits: Mapping[str, Any]) -> RunConfig:
    """A config whose method and schedule have their nulls filled in.

    Args:
        config: the config.
        fits: what was fitted for the model, by method name.
    """
    fit, fallback = fits.get(config.method.name, {}), config.method.fallback
    method = MethodConfig(**fill_missing(vars(config.method), fit, fallback))
    return dataclasses.replace(config, method=method, schedule=fill_missing(config.schedule, fit, fallback))


def uses_fit(config: RunConfig, fits: Mapping[str, Any]) -> bool:
    """Whether a value of a config's method or schedule comes from what was fitted for the model."""
    with_fit, without = filled(config, fits), filled(config, {})
    return (with_fit.method, with_fit.schedule) != (without.method, without.schedule)


def build_method(
    method: MethodConfig,
    schedule: Mapping[str, Any],
    fits: Mapping[str, Any] | None = None,
    model: str = "",
    plugins: Sequence[str] = (),
    allowed: Collection[str] | None = None,
) -> Method:
    """The `Method` that a method's and a schedule's config describe.

    Args:
        method: the method's config.
        schedule: the schedule's.
        fits: what was fitted for the model, by method name.
        model: the model's name, for messages.
        plugins: packages outside the project whose functions may be named.
        allowed: if given, the only functions that may be named, see `targets.shipped_targets`.

    Raises:
        SpectrumError: for a parameter that the method's functions do not take, and for a value that was never fitted
            for this model.
    """
    fit = (fits or {}).get(method.name, {})
    own = fill_missing(vars(method), fit, method.fallback)
    timing = fill_missing(schedule, fit, method.fallback)
    missing = (
        f"{method.name} has no coefficients for the model {model or 'given'}: fit them with python "
        f"scripts/calibrate.py model={model or 'NAME'} method={method.name}"
    )

    def function(node: Any, key: str) -> Any:
        return None if node is None else bound_function(node, key, missing, plugins, allowed)

    target = str(timing.get("_target_", ""))
    if own["drift"] is None and target in shipped_targets() and needs_drift(locate(target, "schedule")):
        refuse_without_drift(method.name)
    rule = function(timing, "schedule")

    return Method(
        name=method.name,
        forecast=function(own["forecast"], "method.forecast"),
        schedule=given_schedule(rule) if target.partition(".")[0] in plugins else rule,
        drift=function(own["drift"], "method.drift"),
        correct=function(own["correct"], "method.correct"),
        space=method.space,
        site=method.site,
        clock=method.clock,
        keep=method.keep,
        signal=method.signal,
        accumulate=method.accumulate,
        shared_decision=method.shared_decision,
        front_blocks=own["front_blocks"] or 0,
        batch_decision=method.batch_decision,
        **_bounds_of_plan(own),
    )


def _bounds_of_plan(own: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `Method` that a plan fills in; none where the method has no plan."""
    if own["plan"] is None:
        return {}
    try:
        return bounds(own["forecast"]["weights"], own["plan"]["steps"], own["plan"]["sigmas"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return refuse("method.plan is filled in from a plan: leave it out, and type plan=FILE")


def with_runs(config: RunConfig, fits: Mapping[str, Any]) -> RunConfig:
    """A config with `runs` met: its schedule's parameter looked up, or a control's steps cut.

    What was fitted for this number of runs comes first (`by_runs`), then the values of the schedule's `runs_search`.

    Args:
        config: the config.
        fits: what was fitted for the model, by method name.

    Raises:
        SpectrumError: if nothing gives that many runs; the message says which numbers there are.
    """
    name, model = config.method.name, config.model
    if config.runs is None or name == "none":
        return config
    check_number("runs", config.runs, low=1, integer=True)
    if config.method.steps is not None:
        return dataclasses.replace(config, method=dataclasses.replace(config.method, steps=config.runs))
    by_runs: dict[int, dict[str, Any]] = {
        int(runs): dict(found) for runs, found in fits.get(name, {}).get("by_runs", {}).items()
    }
    search = config.schedule.get("runs_search") or {}
    if not isinstance(search, dict) or not all(isinstance(values, list) for values in search.values()):
        refuse(f"schedule.runs_search={search} must hold a list of values by parameter: leave it as it is")
    for key, values in search.items():
        for value in values:
            tried = {**config.schedule, key: value}
            method = build_method(config.method, tried, fits, model.name, config.plugins)
            by_runs.setdefault(len(plan(method.schedule, model.steps)), {key: value})
    if not by_runs:
        refuse(
            f"what makes {name} run {config.runs} steps of {model.name} is not known: type its schedule's parameter in "
            "place of runs=, or fit a schedule that decides by the data with python scripts/calibrate.py "
            f"model={model.name} method={name}"
        )
    if config.runs not in by_runs:
        has = ", ".join(map(str, sorted(by_runs)))
        refuse(f"this schedule cannot run exactly {config.runs} of {model.steps} steps; type runs= one of {has}")
    return dataclasses.replace(config, schedule={**config.schedule, **by_runs[config.runs]})


def method_config(name: str, overrides: Sequence[str] = ()) -> RunConfig:
    """The checked config of a method by its name, with command-line style overrides, as `accelerate` takes them.

    Args:
        name: a file of `configs/method`.
        overrides: `method.forecast.blend=0.5`, `schedule.growth=3.0`, `schedule=explicit`, `runs=14`.

    Raises:
        SpectrumError: for an override that is no `key=value`.
        hydra.errors.HydraException, omegaconf.errors.OmegaConfBaseException: for what cannot be composed.
    """
    for word in overrides:
        if "=" not in word:
            refuse(f"the override {word!r} is no key=value: type for example 'schedule.growth=3.0'")
    words = [f"method={name}", *overrides]
    return parse(compose_raw(words), words)
