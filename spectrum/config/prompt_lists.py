"""The prompt lists that ship with the project."""

import functools
from pathlib import Path

PROMPTS = Path(__file__).resolve().parent.parent / "assets" / "prompts"
"""The folder of the lists."""


@functools.cache
def shipped_prompts(name: str) -> tuple[str, ...]:
    """The prompts of a list that ships with the project, `calibration`, `development`, `heldout` or `sealed`."""
    return tuple((PROMPTS / f"{name}.txt").read_text(encoding="utf-8").split("\n")[:-1])
