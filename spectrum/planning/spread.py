"""Works on batches of samples that lie on several pipelines, on all pipelines at the same time."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Protocol, TypeVar

Found = TypeVar("Found")


class OnPlayer(Protocol):
    """A batch that a pipeline is called for."""

    @property
    def player(self) -> object:
        """What plays the pipeline, which can do one call at a time."""
        ...


Part = TypeVar("Part", bound=OnPlayer)


def spread(work: Callable[..., Found], parts: Sequence[Part], *others: Sequence[object]) -> list[Found]:
    """`[work(part, ...) for each part]`, in a thread for each pipeline; the order and the values are the same.

    torch lets go of Python's lock while it computes, so threads suffice. After an error no other part is begun.

    Args:
        work: called with a part and with what the other sequences have for it.
        parts: the batches.
        *others: sequences of the same length.

    Example:
        >>> class Batch:
        ...     player = None
        >>> spread(lambda part, number: 2 * number, [Batch(), Batch()], [3, 4])
        [6, 8]
    """
    jobs = list(zip(parts, *others, strict=True))
    by_player: dict[int, list[int]] = {}
    for number, part in enumerate(parts):
        by_player.setdefault(id(part.player), []).append(number)
    if len(by_player) <= 1:
        return [work(*job) for job in jobs]

    failed = threading.Event()

    def one_after_the_other(numbers: list[int]) -> list[Found]:
        found = []
        for number in numbers:
            if failed.is_set():
                break
            try:
                found.append(work(*jobs[number]))
            except BaseException:
                failed.set()
                raise
        return found

    with ThreadPoolExecutor(len(by_player)) as threads:
        running = [threads.submit(one_after_the_other, numbers) for numbers in by_player.values()]
        try:
            wait(running)
        except BaseException:
            failed.set()
            raise
    done = [own.result() for own in running]
    found = {
        n: value
        for numbers, own in zip(by_player.values(), done, strict=True)
        for n, value in zip(numbers, own, strict=True)
    }
    return [found[number] for number in range(len(jobs))]
