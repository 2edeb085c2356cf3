"""The metric `vbench_quality`: VBench's Quality of every video, over the dimensions that have a backbone here."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from eval.metrics import vbench, video
from eval.metrics.metric import AbsentError, Result
from eval.metrics.pictures import Pictures
from spectrum.config.targets import locate
from spectrum.core.errors import refuse

Measure = Callable[[Tensor], float]
"""From a video (frames, 3, height, width), float in [0, 1], to the raw value of a dimension."""
KEY = "eval.vbench_quality"


def vbench_quality(
    samples: Pictures,
    reference: Pictures | None,
    prompts: Sequence[str],
    *,
    backbones: Mapping[str, str] | None = None,
    plugins: Sequence[str] = (),
    raft: str | None = None,
    results: str | None = None,
) -> Result:
    """The metric `vbench_quality`: 100 times VBench's Quality of each video.

    The mean is over the dimensions that can be measured here, and the result names them. Temporal flickering needs no
    backbone, and dynamic degree only RAFT's file. For the others a backbone has to be given.

    Args:
        samples: the method's videos, of three frames or more.
        reference: not used.
        prompts: not used.
        backbones: by dimension, the dotted path of a function without arguments. It returns what the dimension's
            function in `eval.metrics.video` asks for; for aesthetic quality the pair of features and head.
        plugins: packages outside the project that `backbones` may name.
        raft: see `eval.metrics.video.raft`.
        results: a results file of VBench's own package. If given, its dimensions are taken and the videos are not read.

    Raises:
        AbsentError: for pictures, and for videos of fewer than three frames.
        SpectrumError: for an unknown dimension, a backbone that may not be named or cannot be imported, and a file that
            is not what it should be.
    """
    if results is not None:
        return _official(results)
    if samples.frames < 3:
        raise AbsentError("vbench_quality is for videos of three frames or more, and these are pictures")
    made = _backbones(backbones or {}, plugins)
    measures, facts, left_out = _measures(made, raft, samples.fps or video.FLOW_FPS)
    raws = [{name: measure(clip) for name, measure in measures.items()} for clip in samples.videos()]
    values = [100 * vbench.quality(raw)[0] for raw in raws]
    present = tuple(name for name in vbench.QUALITY if name in measures)
    means = {name: sum(raw[name] for raw in raws) / len(raws) for name in present}
    facts = {"dimensions": list(present), "raw": means, "backbones": dict(backbones or {}), **facts}
    result = Result.per_sample(values, **facts, left_out=left_out)
    return Result(result.aggregate, result.values, result.provenance, _warning(present))


def check_vbench_quality(
    *,
    backbones: Mapping[str, str] | None = None,
    plugins: Sequence[str] = (),
    raft: str | None = None,
    results: str | None = None,
) -> None:
    """Check the parameters of `vbench_quality`. No backbone is made.

    Args:
        backbones: see `vbench_quality`.
        plugins: see `vbench_quality`.
        raft: not checked: without it a dimension is left out.
        results: see `vbench_quality`.

    Raises:
        SpectrumError: for what `vbench_quality` refuses of them.
    """
    if results is not None:
        vbench.read_official(results)
    else:
        _located(backbones or {}, plugins)


def _official(results: str) -> Result:
    """Quality from a results file of VBench's own package."""
    found = vbench.read_official(results)
    score, present = vbench.quality({n: r.aggregate for n, r in found.items() if n in vbench.QUALITY})
    about = next(iter(found.values())).provenance
    facts = {"dimensions": list(present), "source": about["source"], "sha256": about["sha256"]}
    return Result(100 * score, None, facts)


def _warning(present: Sequence[str]) -> str:
    """Which dimensions a score is made of, unless it is all of them."""
    if len(present) == len(vbench.QUALITY):
        return ""
    return f"of VBench's seven dimensions, {', '.join(present).replace('_', ' ')} alone"


def _measures(
    made: Mapping[str, Any], raft: str | None, fps: float
) -> tuple[dict[str, Measure], dict[str, Any], dict[str, str]]:
    """The measure of each dimension that has a backbone, facts about the backbones, and why the others are left out."""
    facts: dict[str, Any] = {}
    found: dict[str, Measure] = {"temporal_flickering": video.temporal_flickering}
    left_out: dict[str, str] = {}
    for name in ("subject_consistency", "background_consistency", "motion_smoothness", "imaging_quality"):
        if name in made:
            found[name] = _bound(getattr(video, name), made[name])
    if "aesthetic_quality" in made:
        found["aesthetic_quality"] = _bound(video.aesthetic_quality, *made["aesthetic_quality"])
    try:
        flow = made.get("dynamic_degree")
        if flow is None:
            flow, about = video.raft(raft)
            facts["raft"] = about["sha256"]
        found["dynamic_degree"] = _bound(video.dynamic_degree, flow, fps)
    except AbsentError as error:
        left_out["dynamic_degree"] = str(error)
    how = f"give {KEY}.backbones.NAME=package.function"
    left_out |= {name: how for name in vbench.QUALITY if name not in found and name not in left_out}
    return found, facts, left_out


def _bound(function: Callable[..., float], *given: Any) -> Measure:
    return lambda clip: function(clip, *given)


def _located(targets: Mapping[str, str], plugins: Sequence[str]) -> dict[str, Callable[[], Any]]:
    """The functions that `backbones` names, by dimension."""
    if not isinstance(targets, Mapping):
        refuse(f"{KEY}.backbones must be a dict, got {targets!r}: type {KEY}.backbones.NAME=package.function")
    found: dict[str, Callable[[], Any]] = {}
    for name, target in targets.items():
        if name not in vbench.QUALITY:
            refuse(f"{KEY}.backbones.{name} is no dimension: type one of {', '.join(vbench.QUALITY)}")
        key = f"{KEY}.backbones.{name}"
        if not isinstance(target, str) or "." not in target:
            refuse(f"{key} must name a function, got {target!r}: type {key}=package.function")
        allowed = [plugins] if isinstance(plugins, str) else plugins
        found[name] = locate(target, key, allowed, plugins_key=f"+{KEY}.plugins")
        try:
            inspect.signature(found[name]).bind()
        except TypeError:
            refuse(f"{key} names {target}, which needs arguments: name a function without any")
    return found


def _backbones(targets: Mapping[str, str], plugins: Sequence[str]) -> dict[str, Any]:
    """What the functions return that `backbones` names, by dimension."""
    made = {name: function() for name, function in _located(targets, plugins).items()}
    pair = made.get("aesthetic_quality", ((), ()))
    if not (isinstance(pair, tuple) and len(pair) == 2):
        key = f"{KEY}.backbones.aesthetic_quality"
        refuse(f"{key} names {targets['aesthetic_quality']}, which must return the pair (features, head)")
    return made
