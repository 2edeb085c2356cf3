"""Files that are there whole or not at all, and digests. Imports nothing heavy."""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spectrum.core.errors import refuse


def identity(parts: Any, length: int = 12) -> str:
    """A short SHA-256 of `parts` as canonical JSON.

    Args:
        parts: anything that JSON can hold.
        length: how many hex digits to return.

    Example:
        >>> identity({"a": 1})
        'f9d86028c6e0'
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:length]


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole, or not at all: to a temporary name first, then renamed.

    Args:
        path: the file; its folder is made.
        data: the content.
    """
    write_together({path: data})


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Write files so that all are there whole, or none: each to a temporary name first, and then all are renamed.

    Args:
        contents: what each file is to hold; their folders are made.
    """
    drafts: dict[Path, Path] = {}
    try:
        for path, data in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, draft = tempfile.mkstemp(dir=path.parent, prefix=".draft-")
            drafts[Path(draft)] = path
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(draft).chmod(0o644)
        for draft, path in drafts.items():
            draft.replace(path)
    except BaseException:
        for draft in drafts:
            draft.unlink(missing_ok=True)
        raise


def json_bytes(content: Any) -> bytes:
    """JSON as a file holds it. NaN and infinities become null."""
    return (json.dumps(finite(content), indent=1, sort_keys=False) + "\n").encode()


def write_json(path: Path, content: Any) -> None:
    """Write JSON as `write_bytes` does. NaN and infinities are stored as null."""
    write_bytes(path, json_bytes(content))


def finite(content: Any) -> Any:
    """`content` with NaN and infinities replaced by None, as JSON can hold it.

    Example:
        >>> finite({"psnr": float("inf"), "values": (1.0, float("nan"))})
        {'psnr': None, 'values': [1.0, None]}
    """
    if isinstance(content, dict):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [value if type(value) is float and value - value == 0 else finite(value) for value in content]
    if isinstance(content, float) and content - content != 0:
        return None
    return content


def writable(folder: Path, key: str = "out") -> Path:
    """Make a folder and check that it can be written to.

    Args:
        folder: the folder.
        key: the config key that names it, for the message.

    Raises:
        SpectrumError: if it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / ".writable", b"")
        (folder / ".writable").unlink()
    except OSError as error:
        refuse(f"{key}={folder} cannot be written to ({error.strerror}): type {key}=FOLDER")
    return folder
