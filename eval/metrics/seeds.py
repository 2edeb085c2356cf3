"""Metrics that compare the seeds of one prompt with one another. They have one value a prompt."""

import itertools
import warnings
from collections.abc import Sequence

import numpy as np
import torch

from eval.metrics.lite0 import check_sides, lite0_stages, stage_distance
from eval.metrics.metric import AbsentError, Result, need_reference
from eval.metrics.pictures import Pictures
from eval.metrics.prompted import check_prompts
from eval.metrics.text import check_model, cosines, towers_of
from spectrum.core.errors import refuse


def seed_rank(
    samples: Pictures,
    reference: Pictures | None,
    prompts: Sequence[str],
    *,
    model: str = "tiny",
    checkpoint: str | None = None,
    seeds: int,
) -> Result:
    """The metric `seed_rank`: whether a method keeps the order of a prompt's seeds that the full run has.

    People who draft many seeds and keep the best need that, whatever the distance between the pictures. It is
    Spearman's rank correlation, over the seeds of a prompt, between the method's and the full run's scores. A picture's
    score is its cosine with the prompt, of which `clip_score` shows 100 times what is above 0; a video's is the mean of
    its frames'.

    Args:
        samples: the method's pictures, the seeds of a prompt one after another.
        reference: the uncached run's pictures.
        prompts: one prompt per picture.
        model: the CLIP model, as in `clip_score`.
        checkpoint: its weights, as in `clip_score`.
        seeds: samples of each prompt.

    Returns:
        For each prompt 1 if the order is the same, -1 if it is the other way round, 0 if there is no relation; NaN
        where all seeds of a side have one score.

    Raises:
        AbsentError: for fewer than three seeds, and if the checkpoint or the package open_clip is missing.
        SpectrumError: if there is no reference, or the prompts do not match the pictures.
    """
    from scipy.stats import spearmanr

    need_seeds("seed_rank", seeds, 3)
    other = need_reference("seed_rank", reference)
    for pictures in (samples, other):
        check_prompts("seed_rank", pictures, prompts)
    towers = towers_of("seed_rank", model, checkpoint)
    ours, theirs = (
        np.reshape(cosines(towers, pictures, prompts), (-1, seeds, pictures.frames)).mean(2)
        for pictures in (samples, other)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns of equal scores, and gives NaN
        values = [float(np.asarray(spearmanr(a, b))[0]) for a, b in zip(ours, theirs, strict=True)]
    return Result.per_sample(values, seeds=seeds, **towers.about)


def check_seed_rank(*, model: str = "tiny", checkpoint: str | None = None) -> None:
    """Check the parameters of `seed_rank`.

    Args:
        model: the architecture, or `tiny`.
        checkpoint: not checked: without it the metric is left out.

    Raises:
        SpectrumError: for an architecture that open_clip does not know.
    """
    check_model("seed_rank", model)


def diversity(samples: Pictures, reference: Pictures | None, prompts: Sequence[str], *, seeds: int) -> Result:
    """The metric `diversity`: how far the pictures of a prompt are from one another, whatever the prompt says.

    It is the mean of `lite0_distance` over all pairs of a prompt's seeds. The full run has a value of its own: a method
    below it makes its pictures more alike.

    Args:
        samples: the method's pictures, the seeds of a prompt one after another.
        reference: not used.
        prompts: not used.
        seeds: samples of each prompt.

    Raises:
        AbsentError: for fewer than two seeds, for videos, for sides below 32 pixels, and if the packages of
            `lite0_distance` are missing.
    """
    need_seeds("diversity", seeds, 2)
    if samples.frames > 1:
        raise AbsentError("diversity compares pictures, and these samples are videos")
    if len(samples) % seeds:
        refuse(f"diversity needs {seeds} pictures a prompt, and there are {len(samples)}: sample both again")
    check_sides("diversity", samples)
    stages, digest = lite0_stages("diversity")
    pairs = list(itertools.combinations(range(seeds), 2))
    first, second = (torch.tensor(side) for side in zip(*pairs, strict=True))
    values = []
    for images in samples.batches(seeds):
        found = stages(images)
        gaps = stage_distance([stage[first] for stage in found], [stage[second] for stage in found])
        values.append(gaps.double().mean().item())
    return Result.per_sample(values, seeds=seeds, backbone="efficientnet_lite0", sha256=digest)


def need_seeds(metric: str, seeds: int, least: int) -> None:
    """Check that a prompt has enough seeds.

    Args:
        metric: the metric, for the message.
        seeds: samples of each prompt.
        least: how many it needs.

    Raises:
        AbsentError: if it has fewer.
    """
    if seeds < least:
        raise AbsentError(f"{metric} needs {least} seeds or more a prompt, and there are {seeds}: type seeds=[0,1,2]")
