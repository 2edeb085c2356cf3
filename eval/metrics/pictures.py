"""Sets of pictures and of videos: read from disk as they are needed, and checked while they are read."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from spectrum.core.errors import refuse


def read_frames(path: Path, at: float | None = None) -> Iterator[Tensor]:
    """Read the frames of a PNG one after another; a picture has one frame, an animated PNG has several.

    Args:
        path: the file.
        at: if given, read only the frame at this position, from 0 (the first) to 1 (the last).

    Returns:
        Frames (height, width, 3), uint8.

    Raises:
        SpectrumError: if the file is missing or damaged.
    """
    try:
        with Image.open(path) as image:
            count = getattr(image, "n_frames", 1)
            for number in range(count) if at is None else [min(int(at * count), count - 1)]:
                if number:
                    image.seek(number)
                yield torch.from_numpy(np.array(image if image.mode == "RGB" else image.convert("RGB")))
    except FileNotFoundError:
        refuse(f"{path} is missing: run the same command again to sample it")
    except (UnidentifiedImageError, OSError, SyntaxError):
        refuse(f"{path} is not a whole picture: delete it and run the same command again")


def load_images(folder: Path, files: Sequence[str]) -> Tensor:
    """Read pictures to be shown; of a video, the frame in the middle.

    Args:
        folder: where they are.
        files: names of PNG files in it; at least one.

    Returns:
        (count, 3, height, width) float32 in [0, 1].

    Raises:
        SpectrumError: if a file is missing or damaged, or has another size than the first.
    """
    return _stacked([(folder / name, frame) for name in files for frame in read_frames(folder / name, at=0.5)])


def _stacked(images: Sequence[tuple[Path, Tensor]], like: tuple[Path, Tensor] | None = None) -> Tensor:
    """Frames, each with the file it comes from, as one float tensor; refuses sizes other than that of `like`."""
    head, first = like or images[0]
    for path, image in images:
        if image.shape != first.shape:
            found, expected = (f"{i.shape[1]}x{i.shape[0]}" for i in (image, first))
            refuse(f"{path} has {found} pixels and {head.name} has {expected}: all pictures of a set have one size")
    return torch.stack([image for _, image in images]).permute(0, 3, 1, 2).float() / 255


class Pictures:
    """A set of pictures or of videos, in order.

    A set of videos is read as all their frames, one video after another, so metrics of pictures work on videos too.

    Args:
        source: a folder; or a float tensor in [0, 1] of shape (count, 3, height, width) for pictures or
            (count, frames, 3, height, width) for videos.
        files: names of PNG files in the folder, in order. They are read only when `batches` or `videos` gets to them.

    Attributes:
        frames: frames of each sample; 1 for pictures.
        fps: frames per second of videos that were read from files; None for pictures and for tensors.
        on_read: told of 0 before the first batch, and of how many pictures or frames each batch had once it has been
            worked on.

    Raises:
        SpectrumError: for an empty set, an integer tensor (differences of 8-bit values wrap around), and NaN or
            infinite pixels.

    Example:
        >>> clips = Pictures(torch.zeros(2, 5, 3, 8, 12))
        >>> len(clips), clips.frames, clips.size
        (10, 5, (12, 8))
        >>> [tuple(batch.shape) for batch in clips.batches(6)]
        [(6, 3, 8, 12), (4, 3, 8, 12)]
    """

    def __init__(self, source: Path | Tensor, files: Sequence[str] = ()) -> None:
        self._folder = source if isinstance(source, Path) else None
        self._tensor = source if isinstance(source, Tensor) else None
        self._files = list(files)
        self.frames, self.fps = 1, None
        self.on_read: Callable[[int], None] = lambda count: None
        if self._tensor is not None:
            if not self._tensor.is_floating_point():
                refuse("pictures are float tensors in [0, 1]; divide 8-bit ones by 255 first")
            if not torch.isfinite(self._tensor).all():
                refuse("there are NaN or infinite pixels in the pictures: sample them again")
            if self._tensor.ndim == 5:
                self.frames, self._tensor = self._tensor.shape[1], self._tensor.flatten(0, 1)
        elif self._folder is not None and self._files:
            self.frames, self.fps = _frames_and_rate(self._folder / self._files[0])
        if not len(self):
            refuse(f"there are no pictures in {self}: sample some first")

    @classmethod
    def folder(cls, path: Path, count: int | None = None) -> "Pictures":
        """Every PNG file in a folder and its subfolders, sorted by name.

        Args:
            path: the folder.
            count: how many files there have to be; None for any number.

        Raises:
            SpectrumError: if there is another number of files, or none.
        """
        files = sorted(p.relative_to(path).as_posix() for p in path.rglob("*.png"))
        if count is not None and len(files) != count:
            refuse(f"{path} has {len(files)} pictures instead of {count}: run the same command again")
        return cls(path, files)

    def __len__(self) -> int:
        return len(self._files) * self.frames if self._tensor is None else len(self._tensor)

    def __str__(self) -> str:
        return "the pictures" if self._folder is None else str(self._folder)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the first picture, in pixels."""
        first = next(self._batches(1))
        return first.shape[-1], first.shape[-2]

    def batches(self, count: int) -> Iterator[Tensor]:
        """Read the pictures, or the frames of the videos, in order.

        Args:
            count: pictures per batch; the last batch may be smaller.

        Returns:
            Tensors (n, 3, height, width), float32 in [0, 1].

        Raises:
            SpectrumError: if a file is missing or damaged, or has another size or length than the first.
        """
        self.on_read(0)
        for batch in self._batches(count):
            yield batch
            self.on_read(len(batch))

    def _batches(self, count: int) -> Iterator[Tensor]:
        if self._tensor is not None:
            yield from self._tensor.float().split(count)
            return
        read = self._read()
        first = None
        while some := list(itertools.islice(read, count)):
            first = first or some[0]
            yield _stacked(some, first)

    def videos(self) -> Iterator[Tensor]:
        """Read one sample at a time: tensors (frames, 3, height, width), float32 in [0, 1]."""
        return self.batches(self.frames)

    def _read(self) -> Iterator[tuple[Path, Tensor]]:
        """Every frame with the file it comes from."""
        for name in self._files:
            path = (self._folder or Path()) / name
            count = 0
            for frame in read_frames(path):
                count += 1
                yield path, frame
            if count != self.frames:
                refuse(f"{path} has {count} frames and {self._files[0]} has {self.frames}: sample both again")


def _frames_and_rate(path: Path) -> tuple[int, float | None]:
    """How many frames a PNG has and how many it shows per second; (1, None) for a picture or an unreadable file."""
    try:
        with Image.open(path) as image:
            count = getattr(image, "n_frames", 1)
            if count == 1:
                return 1, None
            image.seek(1)
            return count, 1000 / image.info["duration"]
    except OSError:
        return 1, None
