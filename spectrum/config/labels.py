"""What tables call a method with its settings."""

from collections.abc import Mapping
from typing import Any

from spectrum.config.reader import nearest_schedule
from spectrum.config.schema import MethodConfig, changed_settings

_NOT_IN_LABELS = ("steps", "coefficients", "fallback", "_target_", "_partial_")
_IN_LABELS = ("order", "growth", "interval", "threshold")
_OF_A_PLAN = ("run_steps", "weights", "plan")
"""Keys that a plan fills in; a method that has one is called by its name, for its runs stand in a column."""


def label_of(method: MethodConfig, schedule: Mapping[str, Any], files: tuple[Mapping[str, Any], str]) -> str:
    """The method's name in tables, with its schedule's parameter and what differs from its own files.

    Args:
        method: the method's settings.
        schedule: the schedule's settings.
        files: what its own files say, from `spectrum.config.reader.method_file`.
    """
    own_method, own_schedule = files
    own, fallback = _flat(own_method), method.fallback
    shown = {k: v for k, v in _flat(changed_settings(method)).items() if k == "order" or v != own.get(k)}
    name, differs = nearest_schedule(schedule)
    always = {k: schedule[k] for k in _IN_LABELS if schedule.get(k) is not None}
    differs = {k: v for k, v in differs.items() if v is not None and k != "ratios" and fallback.get(k) != v}
    said = {**shown, **always, **differs}
    if "weights" in (method.forecast or {}):
        said = {k: v for k, v in said.items() if k not in _OF_A_PLAN}
    if method.plan is not None and method.plan.get("sigmas") is None:
        said["forced"] = ""
    words = [f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}".strip() for k, v in said.items()]
    if method.forecast and name != own_schedule:
        words = [name, *words]
    return f"{method.name} ({', '.join(words)})" if words else method.name


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with those of the functions among them, by their last key."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        nested = isinstance(value, Mapping) and key not in _OF_A_PLAN
        inner = _flat(value) if nested else {key: value}
        found |= {k: v for k, v in inner.items() if k not in _NOT_IN_LABELS} if key != "fallback" else {}
    return found
