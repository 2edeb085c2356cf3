"""The raw values of VBench's seven quality dimensions (Huang et al. 2024) for one video, with any backbone.

A video is a tensor (frames, 3, height, width), float in [0, 1]. A backbone is a function of such frames, so the
formulas are exact whatever the weights; each function says which network VBench uses. `eval.metrics.vbench` normalises
the raw values and adds them up.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from eval.metrics.checkpoints import load_weights, read_state_dict
from eval.metrics.files import metric_item
from eval.metrics.metric import import_package, weights_file
from spectrum.core.errors import check_number, refuse

UNIT = 255.0
"""Grey levels of an 8-bit picture, in which VBench measures differences."""
FLOW_FPS = 8
"""Frames per second that `dynamic_degree` looks at."""
SIDE = 512
"""The longest side, in pixels, of a frame that `imaging_quality` passes on."""
FRAMES = 16
"""Frames that a backbone gets at a time."""
RAFT_MULTIPLE, RAFT_LEAST, RAFT_UPDATES = 8, 128, 20
"""RAFT takes sides that are a multiple of 8 pixels and at least 128; VBench has it refine the flow 20 times."""

Features = Callable[[Tensor], Tensor]
"""From frames (n, 3, height, width), float in [0, 1], to one row or one number per frame."""
BetweenFrames = Callable[[Tensor, Tensor], Tensor]
"""From frames a and frames b, both (n, 3, height, width), float in [0, 1], to something of each pair."""


def subject_consistency(video: Tensor, features: Features) -> float:
    """How alike the features of the frames are.

    It is the mean over frames `i >= 1` of `(max(0, cos(f_{i-1}, f_i)) + max(0, cos(f_0, f_i))) / 2`.

    Args:
        video: (frames, 3, height, width), float in [0, 1]; at least two frames.
        features: from frames to rows (n, columns); it resizes and normalises the frames itself. VBench uses DINO
            ViT-B/16 (Caron et al. 2021).

    Returns:
        0 to 1, where 1 is a still.

    Raises:
        SpectrumError: for a tensor that is no such video, and for features of another shape.

    Example:
        >>> clip = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> still = clip[:1].expand(4, -1, -1, -1)
        >>> round(subject_consistency(still, lambda frames: frames.flatten(1)), 6)
        1.0
    """
    return _consistency("subject_consistency", video, features)


def background_consistency(video: Tensor, features: Features) -> float:
    """How alike the backgrounds are: the formula of `subject_consistency` on other features.

    Args:
        video: (frames, 3, height, width), float in [0, 1]; at least two frames.
        features: from frames to rows (n, columns). VBench uses the image features of CLIP ViT-B/32.

    Returns:
        0 to 1, where 1 is a still.

    Raises:
        SpectrumError: for a tensor that is no such video, and for features of another shape.
    """
    return _consistency("background_consistency", video, features)


def temporal_flickering(video: Tensor) -> float:
    """How little neighbouring frames differ: `(255 - MAE) / 255`, with the mean absolute error in grey levels.

    Args:
        video: (frames, 3, height, width), float in [0, 1]; at least two frames.

    Returns:
        0 to 1, where 1 is a still.

    Raises:
        SpectrumError: for a tensor that is no such video.

    Example:
        >>> levels = torch.tensor([0.0, 0.2, 0.6])
        >>> round(temporal_flickering(levels[:, None, None, None].expand(-1, 3, 8, 8)), 6)
        0.7
    """
    frames = _checked("temporal_flickering", video, 2)
    return _closeness(frames[1:], frames[:-1])


@torch.no_grad()
def motion_smoothness(video: Tensor, interpolate: BetweenFrames) -> float:
    """How well the odd frames follow from the even ones: `(255 - MAE) / 255` of the interpolated and the real ones.

    A last odd frame, with no frame after it, is left out.

    Args:
        video: (frames, 3, height, width), float in [0, 1]; at least three frames.
        interpolate: from frames a and frames b to the frames halfway between, of the same shape. VBench uses AMT-S (Li
            et al. 2023).

    Returns:
        0 to 1, where 1 is a motion that the interpolation predicts exactly.

    Raises:
        SpectrumError: for a tensor that is no such video, and for interpolated frames of another shape.

    Example:
        >>> levels = torch.tensor([0.0, 0.5, 0.0])
        >>> round(motion_smoothness(levels[:, None, None, None].expand(-1, 3, 8, 8), lambda a, b: (a + b) / 2), 6)
        0.5
    """
    frames = _checked("motion_smoothness", video, 3)
    before, after = frames[0:-2:2], frames[2::2]
    pairs = zip(before.split(FRAMES), after.split(FRAMES), strict=True)
    middle = torch.cat([_shaped("the interpolator", interpolate(a, b), a.shape) for a, b in pairs])
    return _closeness(middle.clamp(0, 1), frames[1:-1:2])


@torch.no_grad()
def dynamic_degree(video: Tensor, flow: BetweenFrames, fps: float = FLOW_FPS) -> float:
    """Whether a video moves.

    Every `round(fps / 8)`-th frame is kept. Two neighbours count as moving if the mean of the longest 5 % of their flow
    vectors is above `6 min(height, width) / 256` pixels. The video of the `T` frames kept moves if at least
    `round(4 T / 16)` pairs of neighbours do.

    Args:
        video: (frames, 3, height, width), float in [0, 1]. At least three
            frames have to be kept, because for two VBench asks for no moving pair.
        flow: from frames a and frames b to the optical flow (n, 2, height, width) in pixels. VBench uses RAFT (Teed and
            Deng 2020), which `raft` gives.
        fps: frames per second of the video.

    Returns:
        1.0 if it moves, else 0.0.

    Raises:
        SpectrumError: for a tensor that is no such video, a wrong `fps`, and a flow of another shape.

    Example:
        >>> still = torch.zeros(8, 3, 16, 16)
        >>> dynamic_degree(still, lambda a, b: torch.zeros(len(a), 2, 16, 16))
        0.0
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
    """How beautiful the frames are: the mean over frames of `head(f / |f|) / 10`.

    Args:
        video: (frames, 3, height, width), float in [0, 1]; at least one frame.
        features: from frames to rows `f` (n, columns). VBench uses CLIP ViT-L/14.
        head: from rows of length 1 to scores of 0 to 10, (n,) or (n, 1). VBench uses LAION's linear head.

    Returns:
        About 0 to 1.

    Raises:
        SpectrumError: for a tensor that is no such video, and for features or scores of another shape.
    """
    found = _features("aesthetic_quality", _checked("aesthetic_quality", video, 1), features)
    scores = head(torch.nn.functional.normalize(found.float(), dim=-1)).reshape(-1)
    return _shaped("the head", scores, (len(video),)).double().mean().item() / 10


@torch.no_grad()
def imaging_quality(video: Tensor, scorer: Features) -> float:
    """How good the frames look: the mean over frames of `scorer / 100`.

    Frames whose longer side is above 512 pixels are resized to that, bilinear without antialiasing, as VBench does.

    Args:
        video: (frames, 3, height, width), float in [0, 1]; at least one frame.
        scorer: from frames to scores of 0 to 100, (n,) or (n, 1). VBench uses MUSIQ trained on SPAQ (Ke et al. 2021).

    Returns:
        0 to 1.

    Raises:
        SpectrumError: for a tensor that is no such video, and for scores of another shape.
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


def raft(weights: str | None = None) -> tuple[BetweenFrames, dict[str, Any]]:
    """Torchvision's RAFT as the optical flow of `dynamic_degree`.

    It refines the flow 20 times, as in VBench. Frames are padded with copies of their edges to sides that are a
    multiple of 8 pixels and at least 128, and the flow is cut back to the frame.

    Args:
        weights: a checkpoint of `raft_large`; None for `raft_large_C_T_V1-22a6c225.pth` in torch hub's cache, to which
            the weights that VBench uses were ported.

    Returns:
        The flow, and its provenance: the file's name and SHA-256.

    Raises:
        AbsentError: if the file or torchvision is missing.
        SpectrumError: if the file is no checkpoint of `raft_large`.
    """
    import_package("torchvision", "torchvision", "dynamic_degree")
    from torchvision.models.optical_flow import raft_large

    item = metric_item("raft")
    path, digest = weights_file("dynamic_degree", weights or item.sources[0].target, item.how)
    net = load_weights(raft_large(weights=None), read_state_dict(path), path, "torchvision's raft_large")

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
