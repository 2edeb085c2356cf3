"""The raw values of VBench's seven quality dimensions (Huang et al. 2024) of one video, with any backbone.

A video is a float tensor (frames, 3, height, width) in [0, 1]. Backbones are functions of such tensors, so each of
these is exact without weights; VBench's are named where they are asked for. `eval.vbench` normalises and sums up.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from eval.metrics.checkpoints import filled, stored
from eval.metrics.files import metric_item
from eval.metrics.metric import package, weights_file
from spectrum.core.errors import check_number, refuse

UNIT = 255.0
FLOW_FPS = 8
SIDE = 512
FRAMES = 16
RAFT_MULTIPLE, RAFT_LEAST, RAFT_UPDATES = 8, 128, 20

Features = Callable[[Tensor], Tensor]
Between = Callable[[Tensor, Tensor], Tensor]


def subject_consistency(video: Tensor, features: Features) -> float:
    """How alike the frames' features are, 0 to 1; VBench takes DINO ViT-B/16 (Caron et al. 2021).

    The mean over frames `i >= 1` of `(max(0, cos(f_{i-1}, f_i)) + max(0, cos(f_0, f_i))) / 2`. `features` maps
    frames (n, 3, height, width) in [0, 1] to (n, columns) and does its own resizing and normalising.
    """
    return _consistency("subject_consistency", video, features)


def background_consistency(video: Tensor, features: Features) -> float:
    """The formula of `subject_consistency`, 0 to 1, for which VBench takes CLIP ViT-B/32's image features."""
    return _consistency("background_consistency", video, features)


def temporal_flickering(video: Tensor) -> float:
    """`(255 - MAE) / 255` of neighbouring frames, 0 to 1, where 1 is a still; differences are in 0 to 255."""
    frames = _checked("temporal_flickering", video, 2)
    return _closeness(frames[1:], frames[:-1])


@torch.no_grad()
def motion_smoothness(video: Tensor, interpolate: Between) -> float:
    """How well odd frames follow from the even ones, `(255 - MAE) / 255`, 0 to 1; VBench takes AMT-S (Li et al. 2023).

    `interpolate` maps frames a and b, both (n, 3, height, width) in [0, 1], to the frames halfway, of the same shape. A
    last odd frame, with no frame after it, is left out.
    """
    frames = _checked("motion_smoothness", video, 3)
    before, after = frames[0:-2:2], frames[2::2]
    pairs = zip(before.split(FRAMES), after.split(FRAMES), strict=True)
    middle = torch.cat([_shaped("the interpolator", interpolate(a, b), a.shape) for a, b in pairs])
    return _closeness(middle.clamp(0, 1), frames[1:-1:2])


@torch.no_grad()
def dynamic_degree(video: Tensor, flow: Between, fps: float = FLOW_FPS) -> float:
    """1 for a video that moves, else 0; VBench takes RAFT (Teed and Deng 2020), here `raft`.

    Of a video of `fps` frames a second every `round(fps / 8)`-th frame is kept. A pair of neighbours moves where the
    mean of the largest 5 % of its flow's lengths is above `6 min(height, width) / 256` pixels, and the video of the
    `T` frames kept where at least `round(4 T / 16)` pairs do. `flow` maps frames a and b, both (n, 3, height, width),
    to (n, 2, height, width) in pixels. Refuses fewer than three frames: for two, VBench's count of pairs is 0.
    """
    check_number("the frames a second of dynamic_degree", fps)
    if fps <= 0:
        refuse(f"the frames a second of dynamic_degree must be above 0, got {fps}")
    frames = _checked("dynamic_degree", video, 1)[:: max(1, round(fps / FLOW_FPS))]
    if len(frames) < 3:
        refuse(f"dynamic_degree needs three frames at {FLOW_FPS} a second, and there are {len(frames)}: sample more")
    height, width = frames.shape[-2:]
    moving = 0
    for a, b in zip(frames[:-1].split(1), frames[1:].split(1), strict=True):
        lengths = _shaped("the flow", flow(a, b), (1, 2, height, width)).double().norm(dim=1).flatten()
        fastest = lengths.topk(max(1, int(0.05 * height * width))).values.mean().item()
        moving += fastest > 6 * min(height, width) / 256
    return float(moving >= round(4 * len(frames) / 16))


@torch.no_grad()
def aesthetic_quality(video: Tensor, features: Features, head: Features) -> float:
    """The mean of `head(f / |f|) / 10` over frames, about 0 to 1; VBench takes CLIP ViT-L/14 and LAION's linear head.

    `features` maps frames (n, 3, height, width) in [0, 1] to (n, columns), and `head` unit vectors to a score of 0 to
    10 each, (n,) or (n, 1).
    """
    found = _features("aesthetic_quality", _checked("aesthetic_quality", video, 1), features)
    scores = head(torch.nn.functional.normalize(found.float(), dim=-1)).reshape(-1)
    return _shaped("the head", scores, (len(video),)).double().mean().item() / 10


@torch.no_grad()
def imaging_quality(video: Tensor, scorer: Features) -> float:
    """The mean of `scorer / 100` over frames, 0 to 1; VBench takes MUSIQ trained on SPAQ (Ke et al. 2021).

    `scorer` maps frames (n, 3, height, width) in [0, 1] to scores of 0 to 100, (n,) or (n, 1). It gets frames of which
    the longer side is 512 pixels or less: larger ones are resized, bilinear without antialiasing, as VBench does.
    """
    frames = _checked("imaging_quality", video, 1)
    height, width = frames.shape[-2:]
    scores = []
    for some in frames.split(FRAMES):
        if max(height, width) > SIDE:
            scale = SIDE / max(height, width)
            size = (int(scale * height), int(scale * width))
            some = torch.nn.functional.interpolate(some, size, mode="bilinear", align_corners=False)
        scores.append(_shaped("the scorer", scorer(some).reshape(-1), (len(some),)))
    return torch.cat(scores).double().mean().item() / 100


def raft(weights: str | None = None) -> tuple[Between, dict[str, Any]]:
    """RAFT as torchvision has it, a flow for `dynamic_degree`, and its provenance; 20 updates, as VBench takes.

    `weights` is a file of `raft_large`, without it torch hub's cache is looked in for `raft_large_C_T_V1-22a6c225.pth`,
    the port of VBench's own weights. Frames are padded by their edges to a multiple of 8 pixels, at least 128.
    AbsentError where the file is not there.
    """
    package("torchvision", "torchvision", "dynamic_degree")
    from torchvision.models.optical_flow import raft_large

    item = metric_item("raft")
    path, digest = weights_file("dynamic_degree", weights or item.sources[0].target, item.how)
    net = filled(raft_large(weights=None), stored(path), path, "torchvision's raft_large")

    def flow(a: Tensor, b: Tensor) -> Tensor:
        height, width = a.shape[-2:]
        tall, wide = (max(RAFT_LEAST, -(-side // RAFT_MULTIPLE) * RAFT_MULTIPLE) for side in (height, width))
        top, left = (tall - height) // 2, (wide - width) // 2
        edges = (left, wide - width - left, top, tall - height - top)
        a, b = (torch.nn.functional.pad(2 * frames - 1, edges, mode="replicate") for frames in (a, b))
        return net(a, b, num_flow_updates=RAFT_UPDATES)[-1][..., top : top + height, left : left + width]

    return flow, {"backbone": path.name, "sha256": digest}


@torch.no_grad()
def _consistency(name: str, video: Tensor, features: Features) -> float:
    found = _features(name, _checked(name, video, 2), features).double()
    previous = torch.nn.functional.cosine_similarity(found[:-1], found[1:], dim=-1).clamp(min=0)
    first = torch.nn.functional.cosine_similarity(found[:1], found[1:], dim=-1).clamp(min=0)
    return ((previous + first) / 2).mean().item()


def _closeness(frames: Tensor, others: Tensor) -> float:
    error = UNIT * (frames.double() - others.double()).abs().mean().item()
    return (UNIT - error) / UNIT


def _features(name: str, frames: Tensor, features: Features) -> Tensor:
    found = torch.cat([features(some) for some in frames.split(FRAMES)])
    if found.ndim != 2 or len(found) != len(frames) or not torch.isfinite(found).all():
        refuse(f"the features of {name} must be finite and (frames, columns), got {tuple(found.shape)}: change them")
    return found


def _shaped(what: str, found: Tensor, shape: tuple[int, ...]) -> Tensor:
    if tuple(found.shape) != tuple(shape) or not torch.isfinite(found).all():
        refuse(f"{what} must give finite values of the shape {tuple(shape)}, got {tuple(found.shape)}: change it")
    return found


def _checked(name: str, video: Tensor, least: int) -> Tensor:
    if video.ndim != 4 or video.shape[1] != 3 or not video.is_floating_point():
        refuse(
            f"{name} takes a float video (frames, 3, height, width) in [0, 1], got {tuple(video.shape)} {video.dtype}"
        )
    if len(video) < least:
        refuse(f"{name} needs {least} frames or more, and the video has {len(video)}: sample more")
    if not torch.isfinite(video).all() or video.min() < 0 or video.max() > 1:
        refuse(
            f"{name} takes pixels in [0, 1] and the video has others: divide 8-bit ones by 255, sample NaN ones again"
        )
    return video.float()
