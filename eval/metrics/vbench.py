"""VBench's scores (Huang et al. 2024) from the raw values of its dimensions, and its own package's results.

A raw value is normalised to `(raw - low) / (high - low)`. `Quality` is the weighted mean over seven dimensions,
`Semantic` the mean over nine, `Total = (4 Quality + Semantic) / 5`. VBench counts a dimension that was not measured as
raw 0; here it is absent: the mean is over those that are there, and every score comes with their names.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.metrics.metric import Result
from spectrum.core.errors import refuse

QUALITY_SHARE, SEMANTIC_SHARE = 4, 1
Score = tuple[float, tuple[str, ...]]


@dataclass(frozen=True)
class Dimension:
    """One of VBench's dimensions: the raw values that become 0 and 1, its weight, and whether each video counts alike.

    Attributes:
        low: raw value that becomes 0.
        high: raw value that becomes 1.
        weight: in the mean of its half.
        by_frames: a corpus is averaged over compared frames instead of over videos.
    """

    low: float = 0.0
    high: float = 1.0
    weight: float = 1.0
    by_frames: bool = False


QUALITY: Mapping[str, Dimension] = {
    "subject_consistency": Dimension(0.1462, by_frames=True),
    "background_consistency": Dimension(0.2615, by_frames=True),
    "temporal_flickering": Dimension(0.6293),
    "motion_smoothness": Dimension(0.706, 0.9975),
    "dynamic_degree": Dimension(weight=0.5),
    "aesthetic_quality": Dimension(),
    "imaging_quality": Dimension(),
}
SEMANTIC: Mapping[str, Dimension] = {
    "object_class": Dimension(),
    "multiple_objects": Dimension(),
    "human_action": Dimension(),
    "color": Dimension(),
    "spatial_relationship": Dimension(),
    "scene": Dimension(0.0, 0.8222),
    "appearance_style": Dimension(0.0009, 0.2855),
    "temporal_style": Dimension(0.0, 0.364),
    "overall_consistency": Dimension(0.0, 0.364),
}
DIMENSIONS: Mapping[str, Dimension] = {**QUALITY, **SEMANTIC}


def normalised(dimension: str, raw: float) -> float:
    """`(raw - low) / (high - low)` of a dimension; like VBench's own it is not cut off at 0 and 1."""
    if dimension not in DIMENSIONS:
        refuse(f"VBench has no dimension {dimension}: type one of {', '.join(DIMENSIONS)}")
    if not math.isfinite(raw):
        refuse(f"{dimension} is {raw}: leave a dimension out that has no value")
    about = DIMENSIONS[dimension]
    return (raw - about.low) / (about.high - about.low)


def quality(raws: Mapping[str, float]) -> Score:
    """VBench's Quality from raw values by dimension, and the dimensions that are in, in VBench's order.

    The weighted mean of the normalised values, dynamic degree with weight 0.5; with all seven that is their weighted
    sum over 6.5. Refuses an unknown dimension, and raw values none of which is of this half.
    """
    return _half("quality", QUALITY, raws)


def semantic(raws: Mapping[str, float]) -> Score:
    """VBench's Semantic from raw values by dimension, and the dimensions that are in: the mean of normalised values."""
    return _half("semantic", SEMANTIC, raws)


def total(raws: Mapping[str, float]) -> Score:
    """VBench's Total, `(4 Quality + Semantic) / 5`, and the dimensions that are in. Both halves need one at least."""
    (first, left), (second, right) = quality(raws), semantic(raws)
    score = (QUALITY_SHARE * first + SEMANTIC_SHARE * second) / (QUALITY_SHARE + SEMANTIC_SHARE)
    return score, (*left, *right)


def _half(name: str, dimensions: Mapping[str, Dimension], raws: Mapping[str, float]) -> Score:
    scores = {dimension: normalised(dimension, raw) for dimension, raw in raws.items()}
    present = tuple(dimension for dimension in dimensions if dimension in scores)
    if not present:
        refuse(f"there is no {name} score without a dimension of it: measure one of {', '.join(dimensions)}")
    weights = {dimension: dimensions[dimension].weight for dimension in present}
    return sum(weights[d] * scores[d] for d in present) / sum(weights.values()), present


def corpus(dimension: str, values: Sequence[float], frames: Sequence[int]) -> float:
    """A dimension's raw value over many videos, from each one's value and number of frames.

    The mean over videos; for subject and background consistency the mean over compared frames, so that a video of `T`
    frames has the weight `T - 1`.
    """
    if dimension not in DIMENSIONS:
        refuse(f"VBench has no dimension {dimension}: type one of {', '.join(DIMENSIONS)}")
    if not values or len(values) != len(frames):
        refuse(f"{dimension} needs the frame count of each video: there are {len(values)} values, {len(frames)} counts")
    weights: Sequence[int] = [1] * len(values)
    if DIMENSIONS[dimension].by_frames:
        weights = [count - 1 for count in frames]
        if min(weights) < 1:
            refuse(f"{dimension} compares frames: leave out videos of fewer than two")
    return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)


def read_official(path: str | Path) -> dict[str, Result]:
    """What VBench's own package found, by dimension, from its `*_eval_results.json`.

    That file holds for each dimension `[aggregate, [{"video_path": ..., "video_results": ...}, ...]]`. Truth values
    become 0 and 1; imaging quality, which it stores per video as 0 to 100, becomes 0 to 1 like its aggregate. The
    provenance names the file and its digest, and the videos in the order of the values.
    """
    found = Path(path).expanduser()
    try:
        data = found.read_bytes()
        content = json.loads(data)
    except FileNotFoundError:
        refuse(f"{found} is missing: give the path of VBench's *_eval_results.json")
    except (OSError, ValueError) as error:
        refuse(f"{found} is no JSON file ({error}): give VBench's *_eval_results.json")
    if not isinstance(content, dict) or not content:
        refuse(f"{found} holds no dimensions: give VBench's *_eval_results.json, not its *_full_info.json")
    facts = {"source": "VBench's own package", "file": found.name, "sha256": hashlib.sha256(data).hexdigest()}
    return {_named(found, key): _imported(found, _named(found, key), content[key], facts) for key in content}


def _named(found: Path, key: str) -> str:
    name = key.strip().lower().replace(" ", "_")
    if name not in DIMENSIONS:
        refuse(f"{found} has {key}, which is none of VBench's dimensions: {', '.join(DIMENSIONS)}")
    return name


def _imported(found: Path, name: str, entry: Any, facts: Mapping[str, str]) -> Result:
    if not isinstance(entry, list) or len(entry) < 2 or not isinstance(entry[1], list):
        refuse(f"{found}: {name} is not [aggregate, list of videos]: give VBench's *_eval_results.json")
    rows = entry[1]
    if not all(isinstance(row, dict) and {"video_path", "video_results"} <= row.keys() for row in rows):
        refuse(f"{found}: a video of {name} lacks video_path or video_results: give VBench's *_eval_results.json")
    (aggregate,), values = _numbers(found, name, entry[:1]), _numbers(found, name, [r["video_results"] for r in rows])
    videos = [str(row["video_path"]) for row in rows]
    return Result(aggregate, values, {**facts, "dimension": name, "videos": videos})


def _numbers(found: Path, name: str, values: Iterable[Any]) -> list[float]:
    listed = list(values)
    if not all(isinstance(value, (bool, int, float)) and math.isfinite(value) for value in listed):
        refuse(f"{found}: {name} has a value that is no finite number: let VBench measure it again")
    percent = name == "imaging_quality" and max(listed, default=0) > 1
    return [value / 100 if percent else float(value) for value in listed]
