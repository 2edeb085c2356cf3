"""Plans a record's method again: its run steps, its weights and its cache, where it decides by time alone."""

import dataclasses

from eval.tables.derived import Problems, by_time_alone, differs, targets
from spectrum.config.methods import build_method
from spectrum.config.reader import choices
from spectrum.config.schema import RunConfig
from spectrum.config.targets import own_targets
from spectrum.core.errors import SpectrumError
from spectrum.models.plans import cache_bytes, plan_of
from spectrum.records.record import Record


def planned_problems(record: Record, config: RunConfig) -> Problems:
    """What in a record is otherwise than its method's plan says.

    Args:
        record: the record. One that names functions from outside the project is not planned: nothing that a
            record names is imported.
        config: its model, method and schedule.
    """
    if not by_time_alone(record):
        yield from differs("weights", record.weights, [], "a method that decides by the data")
        return
    if not targets(record) <= own_targets() or record.model.get("name") not in choices("model"):
        return
    timing = dataclasses.replace(config.method, drift=None, correct=None)  # neither changes a plan; both need torch
    try:
        plan = plan_of(config, build_method(timing, record.schedule, allowed=own_targets()))
    except SpectrumError as error:
        yield f"method or schedule cannot be planned: {error}"
        return
    runs = plan.runs or []
    yield from differs("runs", sorted(set().union(*record.runs.values())), runs, "the plan")
    if not (config.model.architecture or {}).get("settings", {}).get("boundary_ratio"):
        yield from differs("nfe_by_sample", record.nfe_by_sample, [len(runs)] * record.samples, "the plan")
    planned = [{"step": s.step, "sum": s.total, "l1": s.l1} for s in plan.skipped]
    yield from differs("weights", record.weights, planned, "the plan")
    size = cache_bytes(config, plan)
    if record.cache_bytes.predicted_per_sample is None and record.method.get("site") == "output":
        return  # made before it could be predicted there
    yield from differs("cache_bytes.predicted_per_sample", record.cache_bytes.predicted_per_sample, size, "the plan")
