"""VBench's Quality as a metric: the dimensions that have a backbone here, of every video that was sampled."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from eval.metrics import vbench, video
from eval.metrics.metric import AbsentError, Result
from eval.metrics.pictures import Pictures
from spectrum.core.errors import refuse

Measure = Callable[[Tensor], float]


def vbench_quality(
    samples: Pictures,
    reference: Pictures | None,
    prompts: Sequence[str],
    *,
    backbones: Mapping[str, str] | None = None,
    raft: str | None = None,
    results: str | None = None,
) -> Result:
    """VBench's Quality of each video over the dimensions that can be measured, which the result names.

    Temporal flickering needs no backbone, dynamic degree the file of RAFT at `raft`. `backbones` gives one to the
    others: by dimension the dotted path of a function without arguments that returns what `eval.video` asks for there
    (for aesthetic quality the pair of features and head). With `results`, a file of VBench's own package, its
    dimensions are taken instead and the videos are not looked at. AbsentError for pictures.
    """
    if results is not None:
        found = vbench.read_official(results)
        score, present = vbench.quality({n: r.aggregate for n, r in found.items() if n in vbench.QUALITY})
        facts = next(iter(found.values())).provenance
        return Result(100 * score, None, {**_about(present), "source": facts["source"], "sha256": facts["sha256"]})
    if samples.frames < 3:
        raise AbsentError("vbench_quality is for videos of three frames or more, and these are pictures")
    measures, facts, absent = _measures(backbones or {}, raft, samples.fps or video.FLOW_FPS)
    raws = [{name: measure(clip) for name, measure in measures.items()} for clip in samples.videos()]
    values = [100 * vbench.quality(raw)[0] for raw in raws]
    present = tuple(name for name in vbench.QUALITY if name in measures)
    means = {name: sum(raw[name] for raw in raws) / len(raws) for name in present}
    result = Result.per_sample(values, **_about(present), raw=means, **facts, left_out=absent)
    return Result(result.aggregate, result.values, result.provenance, _warning(present))


def _about(present: Sequence[str]) -> dict[str, Any]:
    return {"dimensions": list(present)}


def _warning(present: Sequence[str]) -> str:
    if len(present) == len(vbench.QUALITY):
        return ""
    return f"of VBench's seven dimensions, {', '.join(present).replace('_', ' ')} alone"


def _measures(
    backbones: Mapping[str, str], raft: str | None, fps: float
) -> tuple[dict[str, Measure], dict[str, Any], dict[str, str]]:
    """By dimension its measure; facts of their backbones; and why each other dimension is left out."""
    for name in backbones:
        if name not in vbench.QUALITY:
            refuse(f"eval.vbench_quality.backbones.{name} is no dimension: type one of {', '.join(vbench.QUALITY)}")
    given = {name: _made(name, path) for name, path in backbones.items()}
    facts: dict[str, Any] = {"backbones": dict(backbones)}
    found: dict[str, Measure] = {"temporal_flickering": video.temporal_flickering}
    absent: dict[str, str] = {}
    for name in ("subject_consistency", "background_consistency", "motion_smoothness", "imaging_quality"):
        if name in given:
            found[name] = _bound(getattr(video, name), given[name])
    if "aesthetic_quality" in given:
        found["aesthetic_quality"] = _bound(video.aesthetic_quality, *given["aesthetic_quality"])
    try:
        flow = given.get("dynamic_degree")
        if flow is None:
            flow, about = video.raft(raft)
            facts["raft"] = about["sha256"]
        found["dynamic_degree"] = lambda clip: video.dynamic_degree(clip, flow, fps)
    except AbsentError as error:
        absent["dynamic_degree"] = str(error)
    how = "give eval.vbench_quality.backbones.NAME=package.function"
    absent |= {name: how for name in vbench.QUALITY if name not in found and name not in absent}
    return found, facts, absent


def _bound(function: Callable[..., float], *given: Any) -> Measure:
    return lambda clip: function(clip, *given)


def _made(name: str, path: str) -> Any:
    module, _, attribute = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)()
    except (ImportError, AttributeError, ValueError) as error:
        return refuse(f"eval.vbench_quality.backbones.{name}={path} cannot be imported: {error}")
