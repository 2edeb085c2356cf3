"""`samples.jsonl`: a line for each sample of a folder whose picture is there whole, in the order of the samples.

It is written when all samples are there. Until then each process adds lines to a file of its own in the folder's
`.parts`, so that no two processes ever write to one file, and follows the files of the others. Nothing here needs a
lock; a line counts if its picture has the SHA-256 that it names, and was made on the folder's kind of machine.
"""

import functools
import hashlib
import json
import math
import os
import shutil
import uuid
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from spectrum.bench.made_on import Kind, kind_of
from spectrum.bench.prompts import Sample
from spectrum.records.files import write_bytes

Entry = dict[str, Any]
"""Of a sample: `index`, `seed`, `prompt`, `file`, `sha256`, and by CFG branch its run steps and its calls."""
PARTS = ".parts"
"""The folder of the processes' own files, which is deleted when `samples.jsonl` is written."""
MADE_ON = "made_on"
"""The key of the first line of such a file: the kind of machine that its pictures were made on."""


class Ledger:
    """The samples of a folder that are there whole, followed while this and other processes make more.

    Args:
        folder: of the samples.
        files: the pictures to look for; all of them by default.
        made_on: the kind of this process, where that is the folder's, see `keep_kind`; None for a reader.

    Attributes:
        done: by file name, the entries whose picture is there whole.
        found: how many of them this process did not add itself.
    """

    def __init__(self, folder: Path, files: Collection[str] | None = None, made_on: Kind | None = None) -> None:
        self.done: dict[str, Entry] = {}
        self.found = 0
        self._folder, self._files, self._made_on = folder, files, made_on
        self._read_to: dict[str, float] = {}  # by name of a part; infinite behind a damaged line
        self._seen: tuple[int, int, int] | None = None  # inode, size and time of samples.jsonl when it was read
        self._unproved: dict[str, Entry] = {}
        self._own: tuple[Path, BinaryIO] | None = None

    def follow(self) -> None:
        """Read what was written since the last time."""
        for name in names_in(self._folder / PARTS):
            if name.endswith(".jsonl") and (self._own is None or name != self._own[0].name):
                self._follow_part(self._folder / PARTS / name)
        try:
            with (self._folder / "samples.jsonl").open("rb") as file:
                state = os.fstat(file.fileno())
                seen = state.st_ino, state.st_size, state.st_mtime_ns
                if seen != self._seen:
                    self._seen = seen
                    self._take(file.read())
        except FileNotFoundError:
            self._seen = None

    def _follow_part(self, path: Path) -> None:
        """Read the lines that a process has added; the rest of one that it has not ended is read when it has."""
        start = self._read_to.get(path.name, 0)
        if start == math.inf:
            return
        try:
            with path.open("rb") as file:
                file.seek(int(start))
                content = file.read()
        except FileNotFoundError:
            return
        whole = content[: content.rfind(b"\n") + 1]
        if whole and not start and not self._is_of_this_kind(whole):
            return
        self._read_to[path.name] = start + len(whole) if self._take(whole) else math.inf

    def _is_of_this_kind(self, part: bytes) -> bool:
        """Whether the lines of a part are of pictures that were made on the folder's kind of machine."""
        kind = self._made_on or kind_of(self._folder)
        try:
            first = json.loads(part.partition(b"\n")[0])
        except ValueError:
            return False
        return (first.get(MADE_ON) if isinstance(first, dict) else None) == kind

    def _take(self, content: bytes) -> bool:
        """Take over lines, up to one that is damaged; whether none is."""
        for line in content.split(b"\n")[:-1]:
            try:
                entry = json.loads(line)
            except ValueError:
                return False
            if isinstance(entry, dict) and MADE_ON in entry:
                continue
            if not _is_entry(entry):
                return False
            if self._files is None or entry["file"] in self._files:
                self._unproved[entry["file"]] = entry
                self._prove(entry["file"])
        return True

    def _prove(self, name: str) -> None:
        """Count a sample as done if its picture is there whole."""
        entry = self._unproved[name]
        if _sha256_of(self._folder / "images" / Path(name).name) == entry["sha256"]:
            self.found += name not in self.done
            self.done[name] = self._unproved.pop(name)

    def entries(self, samples: Sequence[Sample]) -> list[Entry] | None:
        """The lines of some samples, in their order; None unless all their pictures are there whole."""
        for name in (s.file for s in samples):
            if name not in self.done and name in self._unproved:  # on a network file system a picture may come late
                self._prove(name)
        return [self.done[s.file] for s in samples] if all(s.file in self.done for s in samples) else None

    def add(self, entries: Sequence[Entry]) -> None:
        """Add the lines of samples whose pictures are there whole.

        Raises:
            FileNotFoundError: if another process has written `samples.jsonl` since, with these samples in it.
        """
        if self._own is None:
            path = self._folder / PARTS / f"{uuid.uuid4().hex}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            self._own = path, path.open("ab")
            self._own[1].write(_lines([{MADE_ON: self._made_on}] if self._made_on is not None else []))
        file = self._own[1]
        file.write(_lines(entries))
        file.flush()
        os.fsync(file.fileno())
        self.done |= {entry["file"]: entry for entry in entries}

    def end(self, samples: Sequence[Sample]) -> list[Entry]:
        """Write `samples.jsonl`, once all samples are there, and delete the files of the processes.

        Args:
            samples: all samples of the folder, in their order.

        Returns:
            Their lines.
        """
        self.close()
        found = [self.done[s.file] for s in samples]
        write_ledger(self._folder, found)
        shutil.rmtree(self._folder / PARTS, ignore_errors=True)
        return found

    def close(self) -> None:
        """Close this process's own file."""
        if self._own is not None:
            self._own[1].close()
            self._own = None


def finished_samples(folder: Path, files: Collection[str] | None = None) -> dict[str, Entry]:
    """The samples of a folder whose picture is there whole, by file name.

    What stands behind a damaged line is dropped: those samples are made again.

    Args:
        folder: of the samples.
        files: the pictures to look for; all of them by default.
    """
    ledger = Ledger(folder, files)
    ledger.follow()
    return ledger.done


def whole_ledger(folder: Path, samples: Sequence[Sample]) -> list[Entry] | None:
    """The lines of all `samples`, in their order; None unless all their pictures are there whole."""
    ledger = Ledger(folder, {s.file for s in samples})
    ledger.follow()
    return ledger.entries(samples)


def names_in(folder: Path) -> list[str]:
    """The names in a folder, in order; none of a folder that is not there, or that another process has just deleted."""
    try:
        return sorted(path.name for path in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def write_ledger(folder: Path, entries: Sequence[Entry]) -> None:
    """Let `samples.jsonl` hold these lines and no others; it is not touched if it does."""
    ledger = folder / "samples.jsonl"
    if not ledger.exists() or ledger.read_bytes() != _lines(entries):
        write_bytes(ledger, _lines(entries))


def _is_entry(entry: Any) -> bool:
    """Whether a line of the ledger has all that `generate` writes there."""
    kinds = {"index": int, "seed": int, "prompt": str, "file": str, "sha256": str, "runs": dict, "calls": dict}
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), kind) for key, kind in kinds.items()):
        return False
    return all(isinstance(runs, list) for runs in entry["runs"].values())


def _sha256_of(picture: Path) -> str | None:
    """The SHA-256 of a file; None if there is none."""
    try:
        state = picture.stat()
        return _sha256(picture, state.st_ino, state.st_size, state.st_mtime_ns)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


@functools.lru_cache(maxsize=1 << 18)
def _sha256(picture: Path, inode: int, size: int, changed_ns: int) -> str:
    """The SHA-256 of a file, read once for each time that it was changed."""
    with picture.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _lines(entries: Sequence[Entry]) -> bytes:
    return "".join(json.dumps(entry) + "\n" for entry in entries).encode()
