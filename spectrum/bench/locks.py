"""Locks between processes that share a folder, which the system frees when their holder ends, however it ends.

A lock only spares work: what is made twice comes out the same, and every file is written whole. So where a file system
has no locks (NFS without its lock service, Lustre mounted without `flock`) work goes on without them.
"""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""How a file system says that it has none."""


@contextlib.contextmanager
def held(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold a lock.

    Args:
        path: the lock's file, which stays; its folder is made.
        wait: whether to wait for a process that holds it.

    Yields:
        Whether no other process that the file system knows of holds it. With `wait` it is false only where the lock's
        folder is not there.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "one.lock"
        >>> with held(path) as mine, held(path, wait=False) as too:
        ...     print(mine, too)
        True False
    """
    lock = FileLock(path, fallback_to_soft=False)
    mine = True
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        mine = False
    except FileNotFoundError:  # the process that ends last deletes the folder of the claims
        mine = False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    try:
        yield mine
    finally:
        lock.release()
