"""LPIPS against its formula written out, ST-LPIPS against its package, and what they say of their weights."""

import importlib
import sys
from pathlib import Path

import pytest
import torch
import torchmetrics
from digests import sha256
from torch.nn import functional as F

from eval.metrics import fidelity
from eval.metrics.metric import AbsentError, metric_of
from eval.metrics.pictures import Pictures
from spectrum.core.errors import SpectrumError

pytest.importorskip("torchvision")

ABSENT = ["IPython", "torchsummary"]
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
# of AlexNet's convolutions: number in `features`, channels in and out, size, stride, padding
CONVOLUTIONS = (
    (0, 3, 64, 11, 4, 2), (3, 64, 192, 5, 1, 2), (6, 192, 384, 3, 1, 1), (8, 384, 256, 3, 1, 1), (10, 256, 256, 3, 1, 1)
)  # fmt: skip


def noisy_pair(count=3, side=64):
    g = torch.Generator().manual_seed(0)
    reference = torch.rand(count, 3, side, side, generator=g)
    amount = torch.linspace(0.05, 0.3, count)[:, None, None, None]
    return (reference + amount * torch.randn(reference.shape, generator=g)).clamp(0, 1), reference


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


@pytest.fixture
def alexnet(hub):
    """AlexNet with random convolutions in torch hub's cache. Its linear layers, which LPIPS does not use, are zero."""
    g, state = torch.Generator().manual_seed(1), {}
    for number, into, out, size, _, _ in CONVOLUTIONS:
        state[f"features.{number}.weight"] = torch.randn(out, into, size, size, generator=g) / (into * size**2) ** 0.5
        state[f"features.{number}.bias"] = 0.1 * torch.randn(out, generator=g)
    for number, into, out in ((1, 9216, 4096), (4, 4096, 4096), (6, 4096, 1000)):
        state[f"classifier.{number}.weight"] = torch.zeros(1, 1).expand(out, into)
        state[f"classifier.{number}.bias"] = torch.zeros(out)
    torch.save(state, hub / "alexnet-owt-7be5be79.pth")
    return hub / "alexnet-owt-7be5be79.pth", state


def unit_features(state, pictures):
    """The unit vectors of AlexNet's five layers, of pictures in [0, 1]."""
    x = (2 * pictures - 1 - torch.tensor(SHIFT)[:, None, None]) / torch.tensor(SCALE)[:, None, None]
    for number, _, _, _, stride, padding in CONVOLUTIONS:
        if number in (3, 6):
            x = F.max_pool2d(x, 3, 2)
        x = F.conv2d(x, state[f"features.{number}.weight"], state[f"features.{number}.bias"], stride, padding).relu()
        yield x / (x.square().sum(1, keepdim=True).sqrt() + 1e-8)


def test_lpips_by_its_formula(alexnet):
    """The squared gaps of unit features, weighted by channel as torchmetrics ships it, meaned over the places."""
    path, state = alexnet
    own, other = noisy_pair()
    heads = torch.load(
        Path(torchmetrics.__file__).parent / "functional/image/lpips_models/alex.pth", map_location="cpu"
    )
    expected = torch.zeros(3)
    for layer, (a, b) in enumerate(zip(unit_features(state, own), unit_features(state, other), strict=True)):
        expected += ((a - b).square() * heads[f"lin{layer}.model.1.weight"]).sum(1).mean((1, 2))
    found = fidelity.lpips(Pictures(own), Pictures(other), [])
    assert found.values == pytest.approx(expected.tolist(), rel=1e-3) and min(found.values) > 1e-4
    assert found.values[0] < found.values[1] < found.values[2]
    assert found.provenance == {"backbone": path.name, "sha256": sha256(path)}
    given = fidelity.lpips(Pictures(other), Pictures(other), [], weights=str(path))
    assert given.values == [0, 0, 0] and given.provenance == found.provenance
    with pytest.raises(SpectrumError, match=r"^lpips compares with the uncached run"):
        fidelity.lpips(Pictures(own), None, [])


def test_lpips_uses_the_backbone_that_is_asked_for(hub, monkeypatch):
    (hub / "vgg16-397923af.pth").write_bytes(b"weights")
    asked = []

    class Fake:
        """Stands for torchmetrics' LPIPS: the net is the mean difference of pictures in [-1, 1]."""

        def __init__(self, net_type="alex", normalize=False):
            asked.append(net_type)

        def eval(self):
            return self

        def net(self, own, other):
            return (own - other).mean((1, 2, 3), keepdim=True)

    monkeypatch.setattr("torchmetrics.image.lpip.LearnedPerceptualImagePatchSimilarity", Fake)
    grey = [Pictures(torch.full((2, 3, 8, 8), level)) for level in (0.75, 0.5)]
    found = fidelity.lpips(*grey, [], net="vgg")
    assert asked == ["vgg"] and found.values == [0.5, 0.5]
    assert found.provenance["backbone"] == "vgg16-397923af.pth"


def test_lpips_says_what_is_missing(hub, tmp_path, monkeypatch):
    pair = [Pictures(torch.rand(1, 3, 64, 64))] * 2
    with pytest.raises(SpectrumError, match=r"^eval\.lpips\.net=squeeze is unknown: type alex or vgg$"):
        metric_of("lpips", {"net": "squeeze"})
    for name, file, given in (("lpips", "alexnet-owt", {}), ("lpips_vgg", "vgg16-397923af", {"net": "vgg"})):
        said = (
            rf"^lpips needs the weights .*{file}.* which are not .*: type python scripts/fetch\.py {name}, or put your"
        )
        with pytest.raises(AbsentError, match=said):
            fidelity.lpips(*pair, [], **given)
    mine = str(tmp_path / "mine.pth")
    said = r"^torchmetrics does not read eval\.lpips\.weights=.*mine\.pth: copy the file to .*alexnet-owt-7be5be79\.pth"
    for refused in (lambda: fidelity.lpips(*pair, [], weights=mine), lambda: metric_of("lpips", {"weights": mine})):
        with pytest.raises(SpectrumError, match=said):
            refused()
    (hub / "alexnet-owt-7be5be79.pth").write_bytes(b"weights")
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(AbsentError, match=r"^lpips needs the package torchvision \("):
        fidelity.lpips(*pair, [])


def test_st_lpips_is_that_of_its_package(capsys, monkeypatch):
    pytest.importorskip("stlpips_pytorch")
    own, other = noisy_pair()
    found = fidelity.st_lpips(Pictures(own), Pictures(other), [])
    assert capsys.readouterr().out == ""
    module = sys.modules["stlpips_pytorch.stlpips"]
    net = module.LPIPS(net="alex", variant="shift_tolerant").eval()
    with torch.no_grad():
        expected = net(2 * own - 1, 2 * other - 1)
    assert found.values == pytest.approx(expected.flatten().tolist(), rel=1e-5) and min(found.values) > 1e-4
    folder, asked = Path(module.__file__).parent / "weights" / "vST0.0", []
    monkeypatch.setattr(module, "LPIPS", lambda **given: asked.append(given["net"]) or net)
    other_net = fidelity.st_lpips(Pictures(own), Pictures(other), [], net="vgg")
    assert asked == ["vgg"] and other_net.values == found.values
    for name, result in (("alex_shift_tolerant", found), ("vgg_shift_tolerant", other_net)):
        assert result.provenance == {"backbone": name, "sha256": sha256(folder / f"{name}.pth")}


def test_st_lpips_says_what_is_missing(tmp_path, monkeypatch):
    package = pytest.importorskip("stlpips_pytorch")
    own = Pictures(torch.rand(1, 3, 64, 64))
    with pytest.raises(SpectrumError, match=r"^eval\.st_lpips\.net=squeeze is unknown"):
        metric_of("st_lpips", {"net": "squeeze"})
    with pytest.raises(SpectrumError, match=r"^st_lpips compares with the uncached run"):
        fidelity.st_lpips(own, None, [])
    monkeypatch.setattr(sys.modules["stlpips_pytorch.stlpips"], "__file__", str(tmp_path / "stlpips.py"))
    with pytest.raises(AbsentError, match=r"^st_lpips needs the weights .*alex.*: reinstall stlpips-pytorch$"):
        fidelity.st_lpips(own, own, [])
    monkeypatch.setitem(sys.modules, "stlpips_pytorch.stlpips", None)
    with pytest.raises(AbsentError, match=r"^st_lpips needs the package stlpips-pytorch \("):
        fidelity.st_lpips(own, own, [])
    assert package.__name__ == "stlpips_pytorch"


def test_st_lpips_needs_neither_ipython_nor_torchsummary(monkeypatch):
    """Its package imports both and uses neither."""
    pytest.importorskip("stlpips_pytorch")
    for name in [name for name in sys.modules if name.split(".")[0] in ABSENT]:
        monkeypatch.delitem(sys.modules, name)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in ABSENT else find(name, *rest))

    def imported(*words):
        from IPython import embed
        from torchsummary import summary

        assert (embed, summary) == (None, None)
        raise ZeroDivisionError

    monkeypatch.setattr(fidelity, "import_package", imported)
    with pytest.raises(ZeroDivisionError):
        fidelity.st_lpips(Pictures(torch.rand(1, 3, 64, 64)), None, [])
    assert not any(name in sys.modules for name in ABSENT)


def test_st_lpips_leaves_what_is_installed_alone_and_takes_its_stand_ins_back_after_an_error(tmp_path, monkeypatch):
    (tmp_path / "torchsummary.py").write_text("summary = 7\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] in ABSENT]:
        monkeypatch.delitem(sys.modules, name)
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == ABSENT[0] else find(name, *rest)
    )

    def broken(*words):
        from IPython import embed
        from torchsummary import summary

        assert (embed, summary) == (None, 7)
        raise ZeroDivisionError

    monkeypatch.setattr(fidelity, "import_package", broken)
    with pytest.raises(ZeroDivisionError):
        fidelity.st_lpips(Pictures(torch.rand(1, 3, 64, 64)), None, [])
    assert "IPython" not in sys.modules and sys.modules.pop("torchsummary").summary == 7


def test_each_net_has_a_file_of_its_own(hub):
    for net, name in (("alex", "alexnet-owt-7be5be79.pth"), ("vgg", "vgg16-397923af.pth")):
        with pytest.raises(SpectrumError, match=f"copy the file to {hub / name}, and leave"):
            fidelity.check_lpips(net=net, weights="elsewhere.pth")
        metric_of("lpips", {"net": net, "weights": str(hub / name)})
        with pytest.raises(AbsentError, match=name):
            fidelity.lpips(*map(Pictures, noisy_pair()), [], net=net, weights=str(hub / name))
