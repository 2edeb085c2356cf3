"""Sets of pictures, read as they are needed and checked as they are read."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from spectrum.errors import refuse


def load_images(folder: Path, files: Sequence[str]) -> Tensor:
    """PNG files as (count, 3, height, width) float32 in [0, 1]. Refuses a missing, damaged or odd-sized one."""
    images = []
    for name in files:
        try:
            with Image.open(folder / name) as image:
                images.append(torch.from_numpy(np.asarray(image.convert("RGB")).copy()))
        except FileNotFoundError:
            refuse(f"{folder / name} is missing: run the same command again to sample it")
        except (UnidentifiedImageError, OSError):
            refuse(f"{folder / name} is not a whole picture: delete it and run the same command again")
        if images[-1].shape != images[0].shape:
            here, first = (f"{i.shape[1]}x{i.shape[0]}" for i in (images[-1], images[0]))
            refuse(f"{folder / name} has {here} pixels and {files[0]} has {first}: one set has pictures of one size")
    return torch.stack(images).permute(0, 3, 1, 2).float() / 255


class Pictures:
    """A set of pictures in order: files of a folder, or a tensor (count, 3, height, width), float in [0, 1].

    Raises `SpectrumError` for an empty set, integer tensors (their differences wrap around) and NaN pixels.
    """

    def __init__(self, source: Path | Tensor, files: Sequence[str] = ()) -> None:
        self._folder = source if isinstance(source, Path) else None
        self._tensor = source if isinstance(source, Tensor) else None
        self._files = list(files)
        if self._tensor is not None:
            if not self._tensor.is_floating_point():
                refuse("pictures are float tensors in [0, 1]; divide 8-bit ones by 255 first")
            if not torch.isfinite(self._tensor).all():
                refuse("there are NaN or infinite pixels in the pictures: sample them again")
        if not len(self):
            refuse(f"there are no pictures in {self}: sample some first")

    @classmethod
    def folder(cls, path: Path, count: int | None = None) -> "Pictures":
        """Every PNG under a folder, by name. Refuses another number of them than `count`."""
        files = sorted(p.relative_to(path).as_posix() for p in path.rglob("*.png"))
        if count is not None and len(files) != count:
            refuse(f"{path} has {len(files)} pictures where {count} belong: run the same command again")
        return cls(path, files)

    def __len__(self) -> int:
        return len(self._files) if self._tensor is None else len(self._tensor)

    def __str__(self) -> str:
        return "the pictures" if self._folder is None else str(self._folder)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels, of the first picture."""
        first = next(self.batches(1))
        return first.shape[-1], first.shape[-2]

    def batches(self, count: int) -> Iterator[Tensor]:
        """The pictures in order, `count` at a time: (n, 3, height, width) float32 in [0, 1]."""
        for start in range(0, len(self), count):
            if self._tensor is not None:
                yield self._tensor[start : start + count].float()
            elif self._folder is not None:
                yield load_images(self._folder, self._files[start : start + count])
