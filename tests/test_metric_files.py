"""The files that metrics read: where they come from, how checkpoints are read, and what is said of those that fail."""

from pathlib import Path

import pytest
import torch

from eval.metrics.checkpoints import read_state_dict, short_reason
from eval.metrics.files import metric_item, needed
from spectrum.core.errors import SpectrumError

TORCHVISION = "BSD-3-Clause of torchvision", "https://github.com/pytorch/vision/blob/main/LICENSE"
WEB = {
    "fid": (
        "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt",
        "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
        0.0956,
        "Apache-2.0 of Inception and NVIDIA Source Code License of its wrapper",
        "https://github.com/NVlabs/stylegan2-ada-pytorch",
    ),
    "lpips": (
        "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
        "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        0.244,
        *TORCHVISION,
    ),
    "lpips_vgg": (
        "https://download.pytorch.org/models/vgg16-397923af.pth",
        "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        0.553,
        *TORCHVISION,
    ),
    "raft": ("https://download.pytorch.org/models/raft_large_C_T_V1-22a6c225.pth", "22a6c225", 0.0211, *TORCHVISION),
}


@pytest.mark.parametrize("name", WEB)
def test_a_file_has_its_address_its_digest_and_its_licence(name, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    item = metric_item(name)
    (source,) = item.sources
    assert (source.url, source.sha256, source.size_gb, source.licence, source.page) == WEB[name]
    file = source.url.rpartition("/")[2]
    assert source.target == tmp_path / "checkpoints" / file
    assert item.what == f"the metric {name}'s file {file}" and str(source.target) in item.own


def test_files_of_the_hub_are_named():
    assert metric_item("image_reward").what == "the metric image_reward's files ImageReward.pt and BERT's vocab.txt"
    assert metric_item("hpsv2").what == "the metric hpsv2's file HPS_v2_compressed.pt"
    hubs = [(source.hub, source.allow) for name in ("image_reward", "hpsv2") for source in metric_item(name).sources]
    assert hubs == [
        ("THUDM/ImageReward", ("ImageReward.pt",)),
        ("google-bert/bert-base-uncased", ("vocab.txt",)),
        ("xswu/HPSv2", ("HPS_v2_compressed.pt",)),
    ]


def test_what_is_needed_without_parameters_and_with_results_of_ones_own():
    assert needed("lpips", {}) == "lpips" and needed("lpips", {"net": "squeeze"}) is None
    assert needed("vbench_quality", {}) == "raft"
    for given in ({"results": "file"}, {"raft": "file"}, {"backbones": {"dynamic_degree": "a.b"}}):
        assert needed("vbench_quality", given) is None


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("It failed. Here is why. And more\nlines"), "It failed"),
        (ValueError("bad file X.:"), "bad file X"),
        (ValueError(".hidden is bad."), ".hidden is bad"),
        (KeyError(), "KeyError"),
    ],
)
def test_the_reason_is_the_first_sentence_or_the_errors_type(error, reason):
    assert short_reason(error) == reason


@pytest.mark.parametrize(
    "content",
    [{}, [torch.zeros(1)], torch.zeros(2), {"state_dict": [1]}, {"state_dict": {}}, {"a": torch.ones(1), "b": 1}],
)
def test_what_is_no_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(SpectrumError, match=r"a\.pt holds no state dict of tensors"):
        read_state_dict(tmp_path / "a.pt")


def test_a_checkpoint_saved_on_a_gpu_is_read_without_one():
    """The heads of LPIPS that torchmetrics ships are such a file."""
    torchmetrics = pytest.importorskip("torchmetrics")
    state = read_state_dict(Path(torchmetrics.__file__).parent / "functional/image/lpips_models/alex.pth")
    assert len(state) == 5 and {value.device.type for value in state.values()} == {"cpu"}
