"""The files of other people's networks that metrics read: where they come from, where they are, what they are called.

None of them is downloaded by a metric: `spectrum fetch NAME` does that, or a path is given as the metric's parameter.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spectrum.core.errors import refuse
from spectrum.models.sources import HubFiles, Item, Source, WebFile, cached_file, shown

IMAGE_REWARD = HubFiles(
    "THUDM/ImageReward", "5736be03b2652728fb87788c9797b0570450ab72", 1.79, "Apache-2.0", allow=("ImageReward.pt",)
)
VOCABULARY = HubFiles(
    "google-bert/bert-base-uncased",
    "86b5e0934494bd15c9632b12f734a8a67f723594",
    0.000232,
    "Apache-2.0",
    allow=("vocab.txt",),
)
HPS = HubFiles(
    "xswu/HPSv2", "697403c78157020a1ae59d23f111aa58ced35b0a", 1.97, "Apache-2.0", allow=("HPS_v2_compressed.pt",)
)
TORCHVISION = "BSD-3-Clause of torchvision", "https://github.com/pytorch/vision/blob/main/LICENSE"
# file name, GB, SHA-256 (of RAFT only the digits that are part of its name are published)
TORCHVISION_FILES = {
    "lpips": (
        "alexnet-owt-7be5be79.pth",
        0.244,
        "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
    ),
    "lpips_vgg": (
        "vgg16-397923af.pth",
        0.553,
        "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    ),
    "raft": ("raft_large_C_T_V1-22a6c225.pth", 0.0211, "22a6c225"),
}
INCEPTION = "inception-2015-12-05.pt"
INCEPTION_URL = f"https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/{INCEPTION}"
INCEPTION_SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
NAMES = ("lpips", "lpips_vgg", "fid", "image_reward", "hpsv2", "raft")
"""The names that `spectrum fetch` knows metrics' files by."""
ALSO_CALLED = {"kid": "fid", "vbench_quality": "raft"}
"""Metrics whose files have the name of another one."""
OWN = {
    "lpips": "put your own file at {target}",
    "lpips_vgg": "put your own file at {target}",
    "fid": "put your own file at {target}, or type eval.fid.weights=FILE and eval.kid.weights=FILE",
    "raft": "put your own file at {target}, or type eval.vbench_quality.raft=FILE",
    "image_reward": "type eval.image_reward.checkpoint=FILE, with vocab.txt beside it",
    "hpsv2": "type eval.hpsv2.checkpoint=FILE",
}


def hub_checkpoints() -> Path:
    """The folder that torch hub, and so torchvision and torchmetrics, keeps downloaded checkpoints in."""
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints"


def metric_item(name: str) -> Item:
    """The files of a metric.

    Args:
        name: one of `NAMES`.

    Example:
        >>> metric_item("hpsv2").what
        "the metric hpsv2's file HPS_v2_compressed.pt"
    """
    sources: tuple[Source, ...]
    if name == "image_reward":
        sources = (IMAGE_REWARD, VOCABULARY)
        files = "ImageReward.pt and BERT's vocab.txt"
    elif name == "hpsv2":
        sources, files = (HPS,), HPS.allow[0]
    elif name == "fid":
        files, page = INCEPTION, "https://github.com/NVlabs/stylegan2-ada-pytorch"
        licence = "Apache-2.0 of Inception and NVIDIA Source Code License of its wrapper"
        sources = (WebFile(INCEPTION_URL, hub_checkpoints() / INCEPTION, 0.0956, licence, page, INCEPTION_SHA256),)
    elif name in TORCHVISION_FILES:
        files, size, sha256 = TORCHVISION_FILES[name]
        url = f"https://download.pytorch.org/models/{files}"
        sources = (WebFile(url, hub_checkpoints() / files, size, *TORCHVISION, sha256),)
    else:
        return refuse(f"no metric's files are called {name}: there are {', '.join(NAMES)}")
    own = OWN[name].format(target=shown(sources[0].target))
    return Item(name, f"the metric {name}'s file{'s' * (len(sources) > 1)} {files}", sources, own)


def needed(metric: str, parameters: Mapping[str, Any]) -> str | None:
    """The name of the files that a metric reads with some parameters; None if it reads none that can be fetched.

    Args:
        metric: the metric's name.
        parameters: its parameters, as the config has them.
    """
    given = {key: value for key, value in parameters.items() if value}
    if metric == "lpips":
        return None if "weights" in given else {"alex": "lpips", "vgg": "lpips_vgg"}.get(given.get("net", "alex"))
    if metric in ("fid", "kid"):
        return None if "weights" in given else "fid"
    if metric in ("image_reward", "hpsv2"):
        return None if "checkpoint" in given else metric
    if metric == "vbench_quality":
        raft = not ({"raft", "results"} & given.keys() or "dynamic_degree" in given.get("backbones", {}))
        return "raft" if raft else None
    return None


def hub_path(source: HubFiles) -> Path:
    """The path of a source's one file in the hub's cache, of its pinned commit or of whichever is there as `main`.

    Where neither is there, the bare name of the file.
    """
    name = source.allow[0]
    return cached_file(source.hub, name, source.revision) or cached_file(source.hub, name) or Path(name)
