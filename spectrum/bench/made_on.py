"""`made_on.json`: on what kind of machine a folder's samples are made, which their last bits depend on.

The first process that is about to sample writes it, and it stays beside `samples.jsonl`. A process of another kind can
read the samples, and compare others with them, but makes none in that folder.
"""

import contextlib
import errno
import json
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spectrum.core.errors import refuse
from spectrum.records.files import json_bytes

FILE = "made_on.json"
NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP)
"""How a file system says that a file can have no second name."""
PATIENCE = 5.0
"""Seconds for which a file that is not whole may be one that another process is writing."""

Kind = Mapping[str, Any]
"""Device and version of torch; on a CPU also its kernels and threads. See `spectrum.bench.provenance.kernels_of`."""


def kind_of(folder: Path) -> dict[str, Any] | None:
    """On what kind of machine the samples of a folder are made.

    Args:
        folder: of the samples.

    Returns:
        The kind; empty if the file is damaged; None if there is none, because nothing was made or before it was noted.
    """
    try:
        content = json.loads((folder / FILE).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def keep_kind(folder: Path, own: Kind) -> None:
    """Note the kind of this process for a folder that has none yet, before anything is sampled into it.

    Args:
        folder: of the samples.
        own: the kind of this process.

    Raises:
        SpectrumError: if another process, also one that does so at the same moment, has noted another kind.
    """
    if kind_of(folder) is None:
        handle, draft = tempfile.mkstemp(dir=folder, prefix=".draft-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(json_bytes(own))
                file.flush()
                os.fsync(file.fileno())
            Path(draft).chmod(0o644)
            _name_first(Path(draft), folder / FILE)
        finally:
            Path(draft).unlink()
    check_kind(folder, own)


def _name_first(draft: Path, path: Path) -> None:
    """Give a whole file its name, unless another process was first."""
    with contextlib.suppress(FileExistsError):
        try:
            os.link(draft, path)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            with path.open("xb") as file:
                file.write(draft.read_bytes())


def check_kind(folder: Path, own: Kind) -> None:
    """Refuse to make samples in a folder whose samples are made on another kind of machine.

    Args:
        folder: of the samples; one without a note is taken as it is.
        own: the kind of this process.

    Raises:
        SpectrumError: with what differs and what to type.
    """
    until = time.monotonic() + PATIENCE
    while (kind := kind_of(folder)) == {} and time.monotonic() < until:
        time.sleep(0.1)
    if kind is None or kind == own:
        return
    if not kind:
        refuse(f"{folder / FILE} is damaged, so nothing says how the samples beside it are made: delete {folder}")
    key = next((key for key in (*own, *kind) if own.get(key) != kind.get(key)), None)
    if key is None:  # one that this process lacks is there and null
        refuse(f"{folder / FILE} is damaged, so nothing says how the samples beside it are made: delete {folder}")
    same = f"type {_with_threads(kind.get(key))}" if key == "threads" else "go on with what it was begun with"
    refuse(
        f"{folder} was begun with {key}={kind.get(key)}, and this process has {key}={own.get(key)}: the last bits of "
        f"pictures could differ; {same}, or delete {folder}"
    )


def _with_threads(count: Any) -> str:
    """The command of this process with a number of threads, where it is one that a user types."""
    typed = Path(sys.argv[0]).name
    words = {"run.py": ["python", *sys.argv], "spectrum": ["spectrum", *sys.argv[1:]]}.get(typed)
    return f"OMP_NUM_THREADS={count} {shlex.join(words)}" if words else f"OMP_NUM_THREADS={count} before the command"
