"""VBench's scores (Huang et al. 2024) from the raw values of its dimensions, and the results of VBench's own package.

A raw value is normalised to `(raw - low) / (high - low)`. Quality is the weighted mean over seven dimensions, Semantic
the mean over nine others, and Total is `(4 Quality + Semantic) / 5`. VBench counts a dimension that was not measured as
a raw 0. Here the means are over the dimensions that were measured, and every score comes with their names.
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
"""Weights of the two halves in Total."""
Score = tuple[float, tuple[str, ...]]
"""A score and the dimensions that it is made of, in VBench's order."""


@dataclass(frozen=True)
class Dimension:
    """How one of VBench's dimensions is normalised and averaged.

    Attributes:
        low: the raw value that becomes 0.
        high: the raw value that becomes 1.
        weight: its weight in the mean of its half.
        by_frames: whether many videos are averaged over their compared frames; False averages over the videos.
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
    """Normalise a raw value to `(raw - low) / (high - low)`. As in VBench it is not cut off at 0 and 1.

    Args:
        dimension: a key of `DIMENSIONS`.
        raw: the raw value.

    Raises:
        SpectrumError: for an unknown dimension, and a value that is NaN or infinite.

    Example:
        >>> round(normalised("motion_smoothness", 0.9975), 9)
        1.0
    """
    if dimension not in DIMENSIONS:
        refuse(f"VBench has no dimension {dimension}: type one of {', '.join(DIMENSIONS)}")
    if not math.isfinite(raw):
        refuse(f"{dimension} is {raw}: leave a dimension out that has no value")
    about = DIMENSIONS[dimension]
    return (raw - about.low) / (about.high - about.low)


def quality(raws: Mapping[str, float]) -> Score:
    """VBench's Quality: the weighted mean of the normalised values of its seven dimensions.

    Dynamic degree has the weight 0.5 and the others 1, so with all seven it is the weighted sum over 6.5.

    Args:
        raws: raw values by dimension. Those of the Semantic half are left out.

    Returns:
        The score, about 0 to 1, and the dimensions that it is made of.

    Raises:
        SpectrumError: for an unknown dimension, and if there is none of this half.

    Example:
        >>> score, dimensions = quality({"dynamic_degree": 0.3, "imaging_quality": 0.6})
        >>> round(score, 6), dimensions
        (0.5, ('dynamic_degree', 'imaging_quality'))
    """
    return _half("quality", QUALITY, raws)


def semantic(raws: Mapping[str, float]) -> Score:
    """VBench's Semantic: the mean of the normalised values of its nine dimensions.

    Args:
        raws: raw values by dimension. Those of the Quality half are left out.

    Returns:
        The score, about 0 to 1, and the dimensions that it is made of.

    Raises:
        SpectrumError: for an unknown dimension, and if there is none of this half.
    """
    return _half("semantic", SEMANTIC, raws)


def total(raws: Mapping[str, float]) -> Score:
    """VBench's Total, `(4 Quality + Semantic) / 5`.

    Args:
        raws: raw values by dimension.

    Returns:
        The score, about 0 to 1, and the dimensions that it is made of.

    Raises:
        SpectrumError: for an unknown dimension, and if one of the halves has none.

    Example:
        >>> total({"imaging_quality": 0.5, "color": 1.0})
        (0.6, ('imaging_quality', 'color'))
    """
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
    """A dimension's raw value over many videos.

    It is the mean over the videos. For subject and background consistency a video of `T` frames has the weight `T - 1`,
    the number of frames that were compared with others.

    Args:
        dimension: a key of `DIMENSIONS`.
        values: the raw value of each video.
        frames: the number of frames of each video.

    Raises:
        SpectrumError: for an unknown dimension, no values, another number of frame counts, and videos of one frame
            where frames are compared.

    Example:
        >>> round(corpus("subject_consistency", [0.9, 0.6], frames=[11, 31]), 6)
        0.675
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
    """Read what VBench's own package measured.

    Args:
        path: its `*_eval_results.json`, which holds `[aggregate, [{"video_path": ..., "video_results": ...}, ...]]` for
            each dimension.

    Returns:
        By dimension, the raw values of the videos and the aggregate. Truth values become 0 and 1. Imaging quality,
        which the file has as 0 to 100 for each video, becomes 0 to 1 like its aggregate. The provenance names the file,
        its SHA-256 and the videos in the order of the values.

    Raises:
        SpectrumError: if the file is missing or is not such a file.
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
