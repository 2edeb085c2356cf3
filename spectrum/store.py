"""Files that are there whole or not at all, and records read back. Imports nothing heavy."""

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from spectrum.errors import refuse

FORMAT = 2
"""Of a record. Raised when an older record could be misread."""


def identity(parts: Any, length: int = 12) -> str:
    """A short SHA-256 of `parts` as canonical JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:length]


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=".draft-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(draft).chmod(0o644)
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Any) -> None:
    """`write_bytes` of indented JSON; a NaN or infinity in it is stored as null."""
    write_bytes(path, (json.dumps(finite(content), indent=1, sort_keys=False) + "\n").encode())


def finite(content: Any) -> Any:
    """`content` as JSON can hold it: NaN and infinities become None."""
    if isinstance(content, dict):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [finite(value) for value in content]
    if isinstance(content, float) and content - content != 0:
        return None
    return content


def writable(folder: Path, key: str = "out") -> Path:
    """Make `folder`, and refuse one that cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / ".writable", b"")
        (folder / ".writable").unlink()
    except OSError as error:
        refuse(f"{key}={folder} cannot be written to ({error.strerror}): type {key}=FOLDER")
    return folder


def read_record(path: Path) -> dict[str, Any]:
    """A record from its file. Refuses one that cannot be read, is no record, or has another version's format."""
    try:
        record = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        return refuse(f"the record {path} cannot be read ({error}): delete it and run its command again")
    if not isinstance(record, dict) or "metrics" not in record or "id" not in record:
        return refuse(f"{path} is no record of run.py: take it out of the folder")
    if record.get("format") != FORMAT:
        number, command = record.get("format", 1), record.get("command", "its command")
        refuse(f"the record {path} has format {number}, and this version {FORMAT}: delete it and run {command} again")
    return record


def read_records(folder: Path) -> list[dict[str, Any]]:
    """Every record in a folder, by file name."""
    return [read_record(path) for path in sorted(folder.glob("*.json"))]
