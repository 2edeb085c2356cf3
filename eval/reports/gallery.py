"""The samples of a report: which are shown, and their images as text that an HTML file can hold."""

import base64
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from spectrum.records.record import Record

SIDE = 512
"""Pictures with a longer side, in pixels, are shown scaled down to it."""
MOST_SAMPLES = 64
"""The most samples of each run that a report holds."""
MOST_BYTES = 96 * 2**20
"""The most bytes of images that a report holds."""


@dataclass(frozen=True)
class ReportSample:
    """One sample that every run of a report has made.

    Attributes:
        file: its name in the folder of images.
        prompt: its prompt.
        seed: its seed.
    """

    file: str
    prompt: str
    seed: int


@dataclass(frozen=True)
class Gallery:
    """What the page's script shows. Everything in it can be written as JSON.

    Attributes:
        images: data URIs.
        runs: the name of each run that has cards.
        cards: for each sample and run: `prompt`, `seed`, `order` of the sample, `run`, `psnr` in dB (None where it is
            infinite or unknown), `same` for equal images, `image` and `reference` as positions in `images`
            (`reference` is None for the reference itself).
        shown: how many samples are shown.
        total: how many there are.
        scaled: whether pictures are shown smaller than they are.
    """

    images: list[str]
    runs: list[str]
    cards: list[dict[str, Any]]
    shown: int
    total: int
    scaled: bool


def data_uri(path: Path) -> tuple[str, bool]:
    """An image file as a data URI, and whether it was scaled down.

    Small pictures and videos (animated PNG) are taken as they are; larger pictures become JPEG.

    Args:
        path: the file.
    """
    with Image.open(path) as image:
        if getattr(image, "n_frames", 1) > 1 or max(image.size) <= SIDE:
            return _uri("image/png", path.read_bytes()), False
        buffer = io.BytesIO()
        small = image.convert("RGB")
        small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        small.save(buffer, format="JPEG", quality=92, subsampling=0)
    return _uri("image/jpeg", buffer.getvalue()), True


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def build_gallery(records: Mapping[Path, Record], samples: Sequence[ReportSample]) -> Gallery:
    """Choose samples and read their images. Runs whose images are gone are left out.

    With more than `MOST_SAMPLES` samples those are shown on which some run is worst.

    Args:
        records: by the folder of their samples, the records of one reference.
        samples: all samples, in the order of the records' values.
    """
    folders = {folder: record for folder, record in records.items() if _has_images(folder, samples)}
    reference = next((folder.parent / record.reference for folder, record in records.items()), None)
    if reference is None or not _has_images(reference, samples):
        folders, reference = {}, None
    compared = {f: r for f, r in folders.items() if not r.is_reference} or folders
    errors = [_errors(record, len(samples)) for record in compared.values()]
    images: list[str] = []
    cards: list[dict[str, Any]] = []
    size, count, scaled = 0, 0, False
    for order in _ranked(errors, len(samples)) if compared else []:
        before = len(images)
        found, smaller = _cards(order, samples[order], compared, reference, errors, images)
        size += sum(map(len, images[before:]))
        if count and size > MOST_BYTES:
            del images[before:]
            break
        cards += found
        count, scaled = count + 1, scaled or smaller
    names = [f"{record.label}, {record.nfe:.3g} runs" for record in compared.values()]
    return Gallery(images, names, cards, count, len(samples), scaled)


def _has_images(folder: Path, samples: Sequence[ReportSample]) -> bool:
    return all((folder / "images" / sample.file).exists() for sample in samples)


def _errors(record: Record, count: int) -> Sequence[float | None]:
    """The PSNR of each sample: infinite for equal images, None where it was not measured."""
    entry = record.metrics.get("psnr")
    if entry is None or entry.values is None or len(entry.values) != count:
        return [None] * count
    return [math.inf if value is None else value for value in entry.values]


def _ranked(errors: Sequence[Sequence[float | None]], count: int) -> Iterator[int]:
    """The samples to show, in order: all of them, or those on which some run is worst."""
    order = list(range(count))
    if count > MOST_SAMPLES:
        worst = [min((v for own in errors if (v := own[i]) is not None), default=math.inf) for i in order]
        order = sorted(order, key=lambda i: worst[i])[:MOST_SAMPLES]
    return iter(order)


def _cards(
    order: int,
    sample: ReportSample,
    runs: Mapping[Path, Record],
    reference: Path | None,
    errors: Sequence[Sequence[float | None]],
    images: list[str],
) -> tuple[list[dict[str, Any]], bool]:
    """A card for each run of one sample, whose images are added to `images`; and whether they were scaled down."""
    first = len(images)
    base, scaled = data_uri((reference or Path()) / "images" / sample.file)
    images.append(base)
    cards = []
    for number, ((folder, record), own) in enumerate(zip(runs.items(), errors, strict=True)):
        value = own[order]
        known = value if value is not None and math.isfinite(value) else None
        card = {"prompt": sample.prompt, "seed": sample.seed, "order": order, "run": number, "psnr": known}
        if record.is_reference:
            cards.append({**card, "same": False, "image": first, "reference": None})
            continue
        images.append(data_uri(folder / "images" / sample.file)[0])
        cards.append({**card, "same": value == math.inf, "image": len(images) - 1, "reference": first})
    return cards, scaled
