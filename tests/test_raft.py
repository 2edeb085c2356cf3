"""Torchvision's RAFT with random weights, as the flow of a video's dynamic degree."""

import hashlib
import sys

import numpy as np
import pytest
import torch

from eval.metrics import video
from eval.metrics.metric import AbsentError
from spectrum.core.errors import SpectrumError

flows = pytest.importorskip("torchvision.models.optical_flow")
UPDATES = 3


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("raft") / "raft.pth"
    torch.save(flows.raft_large(weights=None).state_dict(), path)
    return path


def padded(frames, top, bottom, left, right):
    """Frames in [-1, 1], each edge repeated outwards."""
    edges = ((0, 0), (0, 0), (top, bottom), (left, right))
    return torch.from_numpy(np.pad(2 * frames.numpy() - 1, edges, mode="edge"))


@pytest.mark.parametrize(
    ("size", "edges"),
    [((128, 136), (0, 0, 0, 0)), ((99, 129), (14, 15, 3, 4))],
)
def test_frames_are_padded_by_their_edges_and_the_flow_is_cut_back(checkpoint, monkeypatch, size, edges):
    """To sides of 128 and 136, and by one more below and on the right where the padding is odd."""
    assert video.RAFT_UPDATES == 20
    monkeypatch.setattr(video, "RAFT_UPDATES", UPDATES)
    net = flows.raft_large(weights=None).eval()
    net.load_state_dict(torch.load(checkpoint))
    flow, about = video.raft(str(checkpoint))
    frames = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    top, _, left, _ = edges
    with torch.no_grad():
        expected = net(padded(frames[:1], *edges), padded(frames[1:], *edges), num_flow_updates=UPDATES)[-1]
        found = flow(frames[:1], frames[1:])
    torch.testing.assert_close(found, expected[..., top : top + size[0], left : left + size[1]])
    assert about == {"backbone": "raft.pth", "sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest()}


def test_what_is_missing_or_wrong_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(
        AbsentError, match=r"^dynamic_degree needs the weights .*raft_large_C_T_V1.*scripts/fetch\.py raft"
    ):
        video.raft()
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(SpectrumError, match=r"other\.pth is no checkpoint of torchvision's raft_large"):
        video.raft(str(tmp_path / "other.pth"))
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(AbsentError, match=r"^dynamic_degree needs the package torchvision \("):
        video.raft()
