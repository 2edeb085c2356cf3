"""`samples.jsonl`: a line for each sample of a folder whose picture is there whole, in the order of the samples."""

import hashlib
import json
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from spectrum.bench.prompts import Sample
from spectrum.records.files import write_bytes

Entry = dict[str, Any]
"""Of a sample: `index`, `seed`, `prompt`, `file`, `sha256`, and by CFG branch its run steps and its calls."""


def lock_of(folder: Path) -> FileLock:
    """What a process holds while it changes the ledger of a folder."""
    return FileLock(folder.parent / f".{folder.name}.lock")


def finished_samples(folder: Path, files: Collection[str] | None = None) -> dict[str, Entry]:
    """The lines of `samples.jsonl` whose picture is there whole, by file name.

    What stands behind a damaged line is dropped: those samples are made again.

    Args:
        folder: of the samples.
        files: the pictures to look for; all of them by default.
    """
    found: dict[str, Entry] = {}
    ledger = folder / "samples.jsonl"
    if not ledger.exists():
        return found
    for line in ledger.read_text(errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            break
        if not _is_entry(entry):
            break
        if files is not None and entry["file"] not in files:
            continue
        picture = folder / "images" / Path(entry["file"]).name
        if picture.exists() and hashlib.sha256(picture.read_bytes()).hexdigest() == entry["sha256"]:
            found[entry["file"]] = entry
    return found


def _is_entry(entry: Any) -> bool:
    """Whether a line of the ledger has all that `generate` writes there."""
    kinds = {"index": int, "seed": int, "prompt": str, "file": str, "sha256": str, "runs": dict, "calls": dict}
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), kind) for key, kind in kinds.items()):
        return False
    return all(isinstance(runs, list) for runs in entry["runs"].values())


def whole_ledger(folder: Path, samples: Sequence[Sample]) -> list[Entry] | None:
    """The lines of all `samples`, in their order; None unless all their pictures are there whole."""
    have = finished_samples(folder, {s.file for s in samples})
    return [have[s.file] for s in samples] if all(s.file in have for s in samples) else None


def write_ledger(folder: Path, entries: Sequence[Entry]) -> None:
    """Let the ledger hold these lines and no others; it is not touched if it does."""
    ledger = folder / "samples.jsonl"
    if not ledger.exists() or ledger.read_bytes() != _lines(entries):
        write_bytes(ledger, _lines(entries))


def append(folder: Path, entries: Sequence[Entry]) -> None:
    """Add lines behind those that are there whole; what a killed process wrote of a line is cut off."""
    with lock_of(folder), (folder / "samples.jsonl").open("a+b") as file:
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        file.write(_lines(entries))
        file.flush()
        os.fsync(file.fileno())


def _lines(entries: Sequence[Entry]) -> bytes:
    return "".join(json.dumps(entry) + "\n" for entry in entries).encode()
