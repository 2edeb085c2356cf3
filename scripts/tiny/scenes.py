"""Captioned scenes of emoji on patterned grounds, painted from a seed.

A caption says little of what its picture fixes: which picture of a group, where, how large, how turned, mirrored or
not, which pattern in which phase. That is what bends the sampling trajectories of a model trained on them.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from . import vocabulary as v

SIZE = 96


@dataclass(frozen=True)
class Scene:
    """One picture's caption and its pixels, uint8 of shape (SIZE, SIZE, 3)."""

    caption: str
    pixels: np.ndarray


def load_objects(folder: Path) -> dict[str, Image.Image]:
    """The RGBA picture of every object, from the unpacked emoji package's 64-pixel folder."""
    return {name: Image.open(folder / f"{code}.png").convert("RGBA") for name, code in v.FILES.items()}


def _shades(colour: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    base = np.clip(np.array(v.COLOURS[colour]) + rng.normal(0, 7, 3), 0, 255)
    step = rng.uniform(26, 60) * (-1 if base.mean() > 150 else 1)
    return base, np.clip(base + step, 0, 255)


def paint_ground(colour: str, pattern: str, rng: np.random.Generator) -> np.ndarray:
    """A (SIZE, SIZE, 3) float ground; phase, angle and pitch of the pattern are drawn, not captioned."""
    first, second = _shades(colour, rng)
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(float)
    angle, pitch = rng.uniform(0, np.pi), rng.uniform(14, 26)
    u = (np.cos(angle) * x + np.sin(angle) * y) / pitch + rng.uniform()
    w = (-np.sin(angle) * x + np.cos(angle) * y) / pitch + rng.uniform()
    edge = pitch / 2
    wave_u, wave_w = np.sin(2 * np.pi * u), np.sin(2 * np.pi * w)
    if pattern == "plain":
        mix = np.zeros_like(x)
    elif pattern == "striped":
        mix = np.clip(wave_u * edge / np.pi + 0.5, 0, 1)
    elif pattern == "checkered":
        mix = np.clip(wave_u * wave_w * edge + 0.5, 0, 1)
    elif pattern == "dotted":
        r = np.hypot((u % 1) - 0.5, (w % 1) - 0.5)
        mix = np.clip((0.28 - r) * pitch + 0.5, 0, 1)
    else:
        ramp = np.cos(angle) * (x - SIZE / 2) + np.sin(angle) * (y - SIZE / 2)
        mix = np.clip(ramp / (1.3 * SIZE) + 0.5, 0, 1) * 1.6
    return np.clip(first + mix[..., None] * (second - first), 0, 255)


def _boxes(layout: str, count: int, size: str, side: str, rng: np.random.Generator) -> list[tuple[float, float, float]]:
    """Centre x, centre y and width of each object, in pixels."""
    if count == 1:
        low, high = {"small": (34, 42), "large": (68, 82), "": (46, 78)}[size]
        width = rng.uniform(low, high)
        slack = (SIZE - width) / 2 + 2
        dx, dy = rng.uniform(-slack, slack, 2)
        if side in ("left", "right"):
            dx = slack * rng.uniform(0.6, 1.0) * (1 if side == "right" else -1)
        if side in ("top", "bottom"):
            dy = slack * rng.uniform(0.6, 1.0) * (1 if side == "bottom" else -1)
        return [(SIZE / 2 + dx, SIZE / 2 + dy, width)]
    if count == 2:
        upright = layout == "above" or (layout == "and" and rng.random() < 0.3)
        widths = rng.uniform(40, 48, 2)
        along = [rng.uniform(w / 2, SIZE / 2 - w / 2 + 3) for w in widths]
        along[1] += SIZE / 2 - 3
        across = [rng.uniform(w / 2 + 1, SIZE - w / 2 - 1) for w in widths]
        spots = list(zip(along, across, widths, strict=True))
        if layout == "and" and rng.random() < 0.5:
            spots = [(b, a, w) for (b, a, _), w in zip(spots[::-1], widths, strict=True)]
        return [(a, b, w) if upright else (b, a, w) for b, a, w in spots]
    corners = rng.permutation(4)[:count]
    return [
        (
            SIZE * (0.26 + 0.48 * (c % 2)) + rng.uniform(-4, 4),
            SIZE * (0.26 + 0.48 * (c // 2)) + rng.uniform(-4, 4),
            rng.uniform(35, 44),
        )
        for c in corners
    ]


def _paste(ground: np.ndarray, picture: Image.Image, box: tuple[float, float, float], rng: np.random.Generator) -> None:
    cx, cy, width = box
    if rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    side = round(width)
    picture = picture.resize((side, side), Image.Resampling.LANCZOS)
    scale, turn = picture.width / width, np.deg2rad(rng.normal(0, 7))
    c, s = np.cos(turn) * scale, np.sin(turn) * scale
    half = picture.width / 2
    affine = (c, s, half - c * cx - s * cy, -s, c, half + s * cx - c * cy)
    layer = np.asarray(picture.transform((SIZE, SIZE), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR))
    alpha = layer[..., 3:].astype(float) / 255
    ground *= 1 - alpha
    ground += alpha * layer[..., :3]


def _head(layout: str, nouns: list[str], count: int, size: str, side: str) -> str:
    if layout == "count":
        return f"{('two', 'three', 'four')[count - 2]} {v.plural(nouns[0])}"
    if layout == "single":
        return v.article(f"{size} {nouns[0]}".strip()) + (f" at the {side}" if side else "")
    joint = {"and": "and", "above": "above", "left": "left of"}[layout]
    return f"{v.article(nouns[0])} {joint} {v.article(nouns[1])}"


def draw(objects: dict[str, Image.Image], rng: np.random.Generator) -> Scene:
    """One training scene. Never an object on its held-out ground colour, named in the caption or not."""
    layout = rng.choice(["single", "and", "above", "left", "count"], p=[0.52, 0.16, 0.1, 0.1, 0.12])
    count = 1 if layout == "single" else int(rng.integers(2, 5)) if layout == "count" else 2
    kinds = 1 if layout in ("single", "count") else 2
    names = [str(n) for n in rng.choice(list(v.FILES), kinds, replace=False)]
    barred = {v.unseen_colour(n) for n in names}
    colour = str(rng.choice([c for c in v.COLOURS if c not in barred]))
    pattern = str(rng.choice(v.PATTERNS, p=[0.3, 0.2, 0.2, 0.15, 0.15]))
    size = str(rng.choice(["small", "large", ""], p=[0.12, 0.12, 0.76])) if layout == "single" else ""
    side = str(rng.choice(["left", "right", "top", "bottom"])) if layout == "single" and rng.random() < 0.2 else ""
    ground = paint_ground(colour, pattern, rng)
    boxes = _boxes(layout, count, size, side, rng)
    for name, box in zip(names * (count if kinds == 1 else 1), boxes, strict=True):
        _paste(ground, objects[name], box, rng)
    nouns = [v.GROUP[name] if rng.random() < 0.12 else name for name in names]
    caption = _head(layout, nouns, count, size, side)
    said = [pattern] if rng.random() < 0.4 else []
    said += [colour] if rng.random() < 0.8 else []
    if said:
        caption += " on " + " ".join(said)
    return Scene(caption, np.clip(ground, 0, 255).round().astype(np.uint8))


def draw_one(objects: dict[str, Image.Image], name: str, rng: np.random.Generator) -> np.ndarray:
    """The pixels of a training scene with one object, on any ground, uint8 of shape (SIZE, SIZE, 3)."""
    colour = str(rng.choice(list(v.COLOURS)))
    ground = paint_ground(colour, str(rng.choice(v.PATTERNS, p=[0.3, 0.2, 0.2, 0.15, 0.15])), rng)
    _paste(ground, objects[name], _boxes("single", 1, "", "", rng)[0], rng)
    return np.clip(ground, 0, 255).round().astype(np.uint8)


_PATTERN_WORDS = ("", "striped ", "dotted ", "", "checkered ")


def tuned_prompts(count: int, seen: bool, seed: int, taken: Collection[str] = ()) -> list[str]:
    """Prompts from pairs of object and ground colour that training never shows, or (`seen`) from pairs that it does.

    Args:
        count: how many.
        seen: which of the two kinds of pair.
        seed: of the draw.
        taken: prompts of other lists, none of which comes again.
    """
    rng = np.random.default_rng(seed)
    prompts: list[str] = []
    names = [str(n) for n in rng.permutation(list(v.FILES))]
    while len(prompts) < count:
        name = names[len(prompts) % len(names)]
        colour = v.unseen_colour(name)
        if seen:
            colour = str(rng.choice([c for c in v.COLOURS if c != colour]))
        partners = [n for n in names if n != name and (v.unseen_colour(n) == colour) != seen]
        layout = ("single", "and", "single", "left", "single", "above")[len(prompts) % 6]
        pair = [name] if layout == "single" or not partners else [name, str(rng.choice(partners))]
        head = _head(layout if len(pair) == 2 else "single", pair, len(pair), "", "")
        pattern = _PATTERN_WORDS[len(prompts) % 5]
        prompt = f"{head} on {pattern}{colour}"
        while prompt in taken:
            prompt = f"{head} on {rng.choice(_PATTERN_WORDS)}{colour}"
        prompts.append(prompt)
    return prompts
