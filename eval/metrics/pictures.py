"""Sets of pictures and of videos, read as they are needed and checked as they are read."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from spectrum.core.errors import refuse


def frames_of(path: Path, only: float | None = None) -> Iterator[Tensor]:
    """The frames of a PNG, a single one of a picture, (height, width, 3) uint8; `only` the one at that share of it."""
    try:
        with Image.open(path) as image:
            count = getattr(image, "n_frames", 1)
            for number in range(count) if only is None else [min(int(only * count), count - 1)]:
                if number:
                    image.seek(number)
                yield torch.from_numpy(np.array(image if image.mode == "RGB" else image.convert("RGB")))
    except FileNotFoundError:
        refuse(f"{path} is missing: run the same command again to sample it")
    except (UnidentifiedImageError, OSError, SyntaxError):
        refuse(f"{path} is not a whole picture: delete it and run the same command again")


def load_images(folder: Path, files: Sequence[str]) -> Tensor:
    """PNG files as (count, 3, height, width) float32 in [0, 1], of a video the middle frame.

    Refuses a missing, damaged or odd-sized one.
    """
    return _stacked([(folder / name, frame) for name in files for frame in frames_of(folder / name, only=0.5)])


def _stacked(images: Sequence[tuple[Path, Tensor]], like: tuple[Path, Tensor] | None = None) -> Tensor:
    """Frames with the files they are of as one tensor; refuses another size than that of `like`, or of the first."""
    head, first = like or images[0]
    for path, image in images:
        if image.shape != first.shape:
            here, there = (f"{i.shape[1]}x{i.shape[0]}" for i in (image, first))
            refuse(f"{path} has {here} pixels and {head.name} has {there}: one set has pictures of one size")
    return torch.stack([image for _, image in images]).permute(0, 3, 1, 2).float() / 255


class Pictures:
    """A set of pictures or videos in order: files of a folder, or a float tensor in [0, 1].

    A tensor is (count, 3, height, width), or (count, frames, 3, height, width). A set of videos is read as all their
    frames one after another: its length is count x `frames`. Raises `SpectrumError` for an empty set, integer tensors
    (their differences wrap around) and NaN pixels.
    """

    def __init__(self, source: Path | Tensor, files: Sequence[str] = ()) -> None:
        self._folder = source if isinstance(source, Path) else None
        self._tensor = source if isinstance(source, Tensor) else None
        self._files = list(files)
        self.frames, self.fps = 1, None
        """Frames of each sample, 1 for pictures; frames a second, None for pictures."""
        if self._tensor is not None:
            if not self._tensor.is_floating_point():
                refuse("pictures are float tensors in [0, 1]; divide 8-bit ones by 255 first")
            if not torch.isfinite(self._tensor).all():
                refuse("there are NaN or infinite pixels in the pictures: sample them again")
            if self._tensor.ndim == 5:
                self.frames, self._tensor = self._tensor.shape[1], self._tensor.flatten(0, 1)
        elif self._folder is not None and self._files:
            self.frames, self.fps = _moving(self._folder / self._files[0])
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
        return len(self._files) * self.frames if self._tensor is None else len(self._tensor)

    def __str__(self) -> str:
        return "the pictures" if self._folder is None else str(self._folder)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels, of the first picture."""
        first = next(self.batches(1))
        return first.shape[-1], first.shape[-2]

    def batches(self, count: int) -> Iterator[Tensor]:
        """The pictures, or frames, in order, `count` at a time: (n, 3, height, width) float32 in [0, 1]."""
        if self._tensor is not None:
            yield from self._tensor.float().split(count)
            return
        read = self._read()
        first = None
        while some := list(itertools.islice(read, count)):
            first = first or some[0]
            yield _stacked(some, first)

    def videos(self) -> Iterator[Tensor]:
        """One sample at a time: (frames, 3, height, width) float32 in [0, 1]."""
        return self.batches(self.frames)

    def _read(self) -> Iterator[tuple[Path, Tensor]]:
        for name in self._files:
            path = (self._folder or Path()) / name
            seen = 0
            for frame in frames_of(path):
                seen += 1
                yield path, frame
            if seen != self.frames:
                refuse(f"{path} has {seen} frames and {self._files[0]} has {self.frames}: sample both again")


def _moving(path: Path) -> tuple[int, float | None]:
    """(frames, frames a second) of a PNG; (1, None) of a picture, or of one that cannot be read."""
    try:
        with Image.open(path) as image:
            count = getattr(image, "n_frames", 1)
            if count == 1:
                return 1, None
            image.seek(1)
            return count, 1000 / image.info["duration"]
    except OSError:
        return 1, None
