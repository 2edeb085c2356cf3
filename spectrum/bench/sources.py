"""A digest of the code and the configs that decide what a score or a sample is."""

import functools
import hashlib
from pathlib import Path

from spectrum.config.reader import CONFIGS

PACKAGE = Path(__file__).resolve().parent.parent
WITHOUT = ("commands", "assets")
"""Folders of the package that change nothing of what is sampled or scored."""
GROUPS = ("method", "model", "planner", "prompts", "schedule")
"""The config groups that do."""


@functools.cache
def sources_digest() -> str:
    """16 hex digits of the SHA-256 over the names and bytes of the package's and baselines' modules, and of configs."""
    total = hashlib.sha256()
    for folder in (PACKAGE, PACKAGE.parent / "baselines", *(CONFIGS / group for group in GROUPS)):
        files = (path for kind in ("*.py", "*.yaml") for path in folder.rglob(kind))
        for path in sorted(path for path in files if path.relative_to(folder).parts[0] not in WITHOUT):
            total.update(f"{folder.name}/{path.relative_to(folder).as_posix()}".encode() + b"\0" + path.read_bytes())
    return total.hexdigest()[:16]
