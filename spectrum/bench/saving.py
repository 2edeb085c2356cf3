"""Encodes and writes the pictures of one batch in a thread, while the next batch is sampled."""

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor

from spectrum.bench.ledger import Entry, Ledger
from spectrum.bench.prompts import Sample
from spectrum.bench.sampling import encoded
from spectrum.records.files import write_bytes


class Saving:
    """Saves batches in a thread, one at a time.

    The ledger gets the lines of a batch once its pictures are written; only then is its claim given up. When the `with`
    block is left, whether by an error or not, the last batch is saved too, and an error in the thread is raised.

    Args:
        folder: of the samples.
        ledger: of the folder.
        fps: frames per second of videos.
    """

    def __init__(self, folder: Path, ledger: Ledger, fps: int | None) -> None:
        self._folder, self._ledger, self._fps = folder, ledger, fps
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="saving")
        self._pending: tuple[list[Sample], Future[list[str]], list[dict[str, Any]], ExitStack] | None = None

    def save(self, batch: list[Sample], images: Tensor, done: list[dict[str, Any]], claim: ExitStack) -> None:
        """Save a batch, once the one before it is saved.

        Args:
            batch: the samples.
            images: as `sample_batch` returns them.
            done: for each sample what its line says beside the picture: `runs` and `calls`.
            claim: closed when the lines are in the ledger, or the batch could not be saved.
        """
        try:
            self.settle()
        except BaseException:
            claim.close()
            raise
        self._pending = batch, self._thread.submit(self._write, batch, images), done, claim

    def settle(self) -> None:
        """Wait until all is saved.

        Raises:
            OSError: if a picture could not be written.
        """
        if self._pending is None:
            return
        (batch, written, done, claim), self._pending = self._pending, None
        with claim:
            try:
                digests = written.result()
                self._ledger.add([_entry(*parts) for parts in zip(batch, digests, done, strict=True)])
            except FileNotFoundError:  # where locks hold nothing back, another process may have ended the folder
                self._ledger.follow()
                if self._ledger.entries(batch) is None:
                    raise

    def _write(self, batch: list[Sample], images: Tensor) -> list[str]:
        """Write the pictures of a batch; the SHA-256 of each file."""
        digests = []
        for sample, image in zip(batch, images, strict=True):
            content = encoded(image, self._fps)
            write_bytes(self._folder / "images" / sample.file, content)
            digests.append(hashlib.sha256(content).hexdigest())
        return digests

    def __enter__(self) -> "Saving":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.settle()
        except BaseException:
            if error is None:
                raise
        finally:
            self._thread.shutdown()
            self._ledger.close()


def _entry(sample: Sample, digest: str, done: dict[str, Any]) -> Entry:
    entry = {"index": sample.index, "seed": sample.seed, "prompt": sample.prompt, "file": sample.file}
    return {**entry, "sha256": digest, **done}
