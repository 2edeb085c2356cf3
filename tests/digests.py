"""Digests of files, worked out without the project's own code."""

import hashlib


def sha256(path):
    """The SHA-256 of a file, 64 hex digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
