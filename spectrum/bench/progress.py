"""Shows how far a job is: a bar in a terminal, a line every 30 seconds where the output is piped."""

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

EVERY = 30.0
"""Seconds between two lines where there is no terminal."""


class Progress:
    """Progress of a job's stages.

    Args:
        console: where it is shown.
        clock: returns seconds; another one in tests.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        columns = (
            TextColumn("{task.description:>12}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
        )
        self._bar = RichProgress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console)
        self._console, self._clock = console, clock

    def __enter__(self) -> "Progress":
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def start(self, name: str, total: int, unit: str = "sample steps") -> Callable[[int], None]:
        """Begin a stage.

        Args:
            name: what is shown.
            total: how many sample steps it has, or of what `unit` names; more where a pipeline samples in sections.
            unit: what is counted.

        Returns:
            A function that is told how many more of them are done.
        """
        if self._console.is_terminal:
            task = self._bar.add_task(name, total=total, unit=unit)
            return lambda count: self._advance(task, count)
        return self._lines(name, total, unit)

    def _advance(self, task: TaskID, count: int) -> None:
        self._bar.update(task, advance=count)
        shown = self._bar.tasks[task]
        self._bar.update(task, total=max(shown.total or 0, shown.completed))

    def _lines(self, name: str, total: int, unit: str) -> Callable[[int], None]:
        began = last = self._clock()
        done = 0

        def advance(count: int) -> None:
            nonlocal done, last
            done += count
            now = self._clock()
            if now - last >= EVERY and 0 != done != total:
                last = now
                left = (now - began) * (total - done) / done
                known = f" of {total} {unit}, {now - began:.0f} s, about {left:.0f} s left"
                line = f"{name}: {done}{known if done < total else f' {unit}, {now - began:.0f} s'}"
                self._console.print(line, highlight=False, soft_wrap=True)

        return advance
