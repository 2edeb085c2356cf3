"""Checkpoints of a training run: written whole or not at all."""

from pathlib import Path
from typing import Any

import torch


def save(path: Path, step: int, *parts: Any) -> None:
    """Store `step` and the state of every part (modules, optimisers) under `path`, atomically."""
    draft = path.with_suffix(".tmp")
    torch.save({"step": step, "parts": [part.state_dict() for part in parts]}, draft)
    draft.replace(path)


def restore(path: Path, *parts: Any) -> int:
    """Load what `save` stored into the parts; the step to go on from, 0 if there is no checkpoint."""
    if not path.exists():
        return 0
    stored = torch.load(path, map_location="cpu", weights_only=True)
    for part, state in zip(parts, stored["parts"], strict=True):
        part.load_state_dict(state)
    return stored["step"]
