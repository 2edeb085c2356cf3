"""Toy denoisers: the real classes at toy width with drawn weights, and the inputs of one denoising step.

Each is a file in `configs/denoiser`: the class, the arguments of its config, and for each argument of its forward what
to pass. Such a file is data: nothing in it is run.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from spectrum.config.reader import CONFIGS, choices
from spectrum.core.errors import refuse
from spectrum.models.architectures import class_of, randomise

STEPS = 8
"""Denoising steps of a toy's trajectory."""


@dataclass(frozen=True)
class Toy:
    """A toy denoiser.

    Attributes:
        name: of its file.
        cls: its class in diffusers.
        config: arguments of the class.
        inputs: by argument of the forward what `value_of` makes of it.
        latents: the arguments that a sampler changes from step to step.
    """

    name: str
    cls: str
    config: Mapping[str, Any]
    inputs: Mapping[str, Any]
    latents: tuple[str, ...]

    def build(self) -> nn.Module:
        """The denoiser, in evaluation mode.

        Raises:
            SpectrumError: if diffusers has no such class.
        """
        import diffusers

        cls = getattr(diffusers, self.cls, None) or refuse(f"diffusers {diffusers.__version__} has no {self.cls}")
        return randomise(cls(**self.config))

    def call(self, step: int, seed: int = 0) -> dict[str, Any]:
        """The arguments of the forward at one of `STEPS` steps.

        Args:
            step: the step.
            seed: of the numbers that are drawn. The latents at two steps differ, the other inputs do not.
        """
        fixed = torch.Generator().manual_seed(seed)
        found = {name: value_of(spec, step, fixed) for name, spec in self.inputs.items()}
        moving = torch.Generator().manual_seed(1000 * (seed + 1) + step)
        return {name: _moved(value, moving) if name in self.latents else value for name, value in found.items()}


def toy(name: str) -> Toy:
    """The toy of a file in `configs/denoiser`.

    Raises:
        SpectrumError: if there is no such file.
    """
    if name not in choices("denoiser"):
        refuse(f"there is no toy denoiser {name}: type one of {', '.join(choices('denoiser'))}")
    said = yaml.safe_load((CONFIGS / "denoiser" / f"{name}.yaml").read_text())
    latents = said.get("latents") or [next(iter(said["inputs"]))]
    return Toy(name, said["class"], said.get("config", {}), said["inputs"], tuple(latents))


NO_TOY = {
    "MotionAdapter": "weights for a UNetMotionModel, no denoiser",
    "MiniMaxMusic3RVQDepthDecoder": "decodes tokens, no denoiser",
    "WanAnimate2Transformer3DModel": "its key-value cache is an object that a first call fills",
}
"""The classes without a toy, and why."""


def missing_classes(known: Collection[str]) -> dict[str, str]:
    """The denoiser classes of the installed diffusers that are not among `known`, each with why it has no toy."""
    import diffusers
    from diffusers import ModelMixin

    found: dict[str, str] = {}
    for name in dir(diffusers):
        cls = getattr(diffusers, name)
        if not (isinstance(cls, type) and issubclass(cls, ModelMixin)) or name in known:
            continue
        if cls.__module__.startswith(("diffusers.models.transformers.", "diffusers.models.unets.")):
            found[name] = NO_TOY.get(name, "new: nobody has written one")
    return found


def value_of(spec: Any, step: int, draw: torch.Generator) -> Any:
    """One argument of a forward from what a toy's file says of it.

    Args:
        spec: a number, a text, a truth value or null: itself. A list of whole numbers: normal numbers of that shape.
            Else one of `{normal: [2, 3]}`, `{zeros: [2, 3]}`, `{ones: [2, 3]}`, `{full: [2, 3], with: 4}`,
            `{integers: [2, 3], below: 10}`, `{values: [[0, 1]]}` for a tensor of these numbers, `{time: [2], of: 1000}`
            for a timestep that falls from 1000 to 0, `{grid: [4, 4], columns: 3, batch: 2}` for coordinates
            of tokens, `{picture: [16, 24]}` for a PIL picture of that height and width, `{mask: [16, 24]}` for one that
            is white in its lower half, `{video: [16, 24], frames: 5}` for a list of pictures, with `frames` also of
            masks, `{list: [...]}`, `{tuple: [...]}` and `{dict: {...}}` of such, `{object: ...}` for a class of
            diffusers, further keys are its arguments, `{literal: ...}` for what YAML says, `{torch: float32}` for a
            dtype. Tensors take `dtype: bool`; whole numbers are int64, all others float32.
        step: the step.
        draw: the generator of what is drawn.

    Raises:
        SpectrumError: for anything else.

    Example:
        >>> value_of({"time": [2], "of": 1000}, 2, torch.Generator())
        tensor([750., 750.])
        >>> value_of({"grid": [1, 2], "columns": 3}, 0, torch.Generator()).tolist()
        [[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    if spec is None or isinstance(spec, (bool, int, float, str)):
        return spec
    kind: dict[str, Any] = {"normal": spec} if isinstance(spec, list) else dict(spec)
    for container, make in (("list", list), ("tuple", tuple)):
        if container in kind:
            return make(value_of(part, step, draw) for part in kind[container])
    if "dict" in kind:
        return {name: value_of(part, step, draw) for name, part in kind["dict"].items()}
    if "object" in kind:
        return class_of(kind.pop("object"), "diffusers")(
            **{key: value_of(one, step, draw) for key, one in kind.items()}
        )
    if "torch" in kind:
        return getattr(torch, kind["torch"])
    if "literal" in kind:
        return kind["literal"]
    for picture in ("picture", "mask", "video"):
        if picture in kind:
            height, width = kind[picture]
            made = [_picture(picture, height, width, draw) for _ in range(kind.get("frames", 1))]
            return made if "frames" in kind else made[0]
    tensor = _tensor(kind, step, draw)
    return tensor.to(getattr(torch, kind["dtype"])) if "dtype" in kind else tensor


def _tensor(kind: Mapping[str, Any], step: int, draw: torch.Generator) -> Tensor:
    if "normal" in kind:
        return torch.randn(kind["normal"], generator=draw)
    for name, value in (("zeros", 0.0), ("ones", 1.0), ("full", kind.get("with", 0.0))):
        if name in kind:
            return torch.full(kind[name], value)
    if "integers" in kind:
        return torch.randint(kind["below"], kind["integers"], generator=draw)
    if "values" in kind:
        return torch.tensor(kind["values"])
    if "time" in kind:
        return torch.full(kind["time"], float(kind.get("of", 1)) * (1 - step / STEPS))
    if "grid" in kind:
        return _grid(kind)
    return refuse(f"a toy's input is {dict(kind)}: see value_of for what may stand there")


def _picture(kind: str, height: int, width: int, draw: torch.Generator) -> Any:
    from diffusers.utils.pil_utils import numpy_to_pil

    if kind == "mask":
        lower = torch.arange(height) >= height // 2
        return numpy_to_pil(lower.float()[:, None, None].expand(height, width, 1).numpy())[0]
    return numpy_to_pil(torch.rand((height, width, 3), generator=draw).numpy())[0]


def _grid(kind: Mapping[str, Any]) -> Tensor:
    """(tokens, columns) coordinates, or (batch, tokens, columns); columns before the last ones are 0."""
    axes = torch.meshgrid(*(torch.arange(side, dtype=torch.float32) for side in kind["grid"]), indexing="ij")
    places = torch.stack([axis.flatten() for axis in axes], -1)
    spare = kind.get("columns", places.shape[1]) - places.shape[1]
    places = torch.cat([places.new_zeros(len(places), spare), places], 1)
    return places.expand(kind["batch"], *places.shape).clone() if "batch" in kind else places


def _moved(value: Any, draw: torch.Generator) -> Any:
    """Latents of another step: other numbers near by, or half of the whole numbers in another order."""
    if isinstance(value, (list, tuple)):
        return type(value)(_moved(part, draw) for part in value)
    if not isinstance(value, Tensor):
        return value
    if value.is_floating_point():
        return value + 0.3 * torch.randn(value.shape, generator=draw).to(value.dtype)
    other = value.flatten()[torch.randperm(value.numel(), generator=draw)].reshape(value.shape)
    return torch.where(torch.rand(value.shape, generator=draw) < 0.5, other, value)
