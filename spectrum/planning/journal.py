"""What a search has scored, line by line in a file, so that it goes on where it broke off."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from spectrum.records.files import write_bytes


class Journal:
    """Scores in a file.

    Args:
        path: the file; None keeps them in memory alone.
        about: what they are scores of; the scores of a file that says something else are dropped.

    Attributes:
        scores: in dB, by what was scored.
    """

    def __init__(self, path: Path | None, about: str) -> None:
        self._path, self._about = path, about
        self.scores: dict[str, list[float]] = self._read()

    def _read(self) -> dict[str, list[float]]:
        """The scores in the file, as far as its lines are whole; the file is then as they are."""
        found: dict[str, list[float]] = {}
        if self._path is None:
            return found
        lines = self._path.read_text(errors="replace").splitlines() if self._path.exists() else []
        if lines[:1] == [json.dumps({"about": self._about})]:
            for line in lines[1:]:
                try:
                    entry = json.loads(line)
                    found[str(entry["scored"])] = [float(value) for value in entry["decibels"]]
                except (ValueError, KeyError, TypeError):
                    break
        entries = [{"about": self._about}, *(_entry(*pair) for pair in found.items())]
        write_bytes(self._path, "".join(json.dumps(entry) + "\n" for entry in entries).encode())
        return found

    def add(self, scored: str, decibels: Sequence[float]) -> list[float]:
        """Keep scores, and return them.

        Args:
            scored: what was scored.
            decibels: the scores.
        """
        self.scores[scored] = list(decibels)
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(json.dumps(_entry(scored, self.scores[scored])) + "\n")
                file.flush()
                os.fsync(file.fileno())
        return self.scores[scored]


def _entry(scored: str, decibels: list[float]) -> dict[str, object]:
    return {"scored": scored, "decibels": decibels}
