"""Caching by the order of calls alone, written without the hook: what a hook is compared with in whole pipelines."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from spectrum.models.attached import named_denoisers


@dataclass
class _Loop:
    """Where a sampling loop is, as seen from outside: told by the steps of its scheduler and the order of calls.

    Attributes:
        runs: given a step, the number of steps (0 here) and no run steps, whether to run.
        step: steps so far at which a denoiser was called.
        moved: whether a scheduler made a step since a denoiser was called.
        calls: by denoiser how many calls of it there were at this step.
        memory: by denoiser and number of the call at its step, the first such step and the newest output.
        skipped: the steps of the calls that were skipped.
    """

    runs: Callable[..., bool]
    step: int = 0
    moved: bool = False
    calls: dict[str, int] = field(default_factory=dict)
    memory: dict[tuple[str, int], tuple[int, Any]] = field(default_factory=dict)
    skipped: list[int] = field(default_factory=list)

    def around_step(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """A scheduler's step that is noticed."""

        def noticed(*args: Any, **kwargs: Any) -> Any:
            self.moved = True
            return step(*args, **kwargs)

        return noticed

    def around_forward(self, name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        """A denoiser's forward that returns its last output where the call is skipped."""

        def kept(*args: Any, **kwargs: Any) -> Any:
            if self.moved:
                self.step, self.moved, self.calls = self.step + 1, False, {}
            place = name, self.calls.get(name, 0)
            self.calls[name] = place[1] + 1
            first, output = self.memory.get(place, (self.step, None))
            if output is not None and not self.runs(self.step - first, 0, []):
                self.skipped.append(self.step)
                return output
            output = forward(*args, **kwargs)
            self.memory[place] = first, output
            return output

        return kept


@contextmanager
def by_order(pipe: Any, runs: Callable[..., bool]) -> Iterator[list[int]]:
    """Let a pipeline keep its denoisers' outputs by the order of calls alone.

    A call is told by the denoiser and by how many calls of it there were since a scheduler made a step. It runs where
    `runs` says so of the step, counted from the first one at which there was such a call; else its last output is
    returned.

    Args:
        pipe: a pipeline.
        runs: given a step, the number of steps (0 here) and no run steps, whether to run.

    Yields:
        The steps of the calls that were skipped.
    """
    loop = _Loop(runs)
    with ExitStack() as undo:
        for scheduler in (part for part in pipe.components.values() if hasattr(part, "set_timesteps")):
            scheduler.step = loop.around_step(scheduler.step)
            undo.callback(vars(scheduler).pop, "step")
        for name, model in named_denoisers(pipe).items():
            model.forward = loop.around_forward(name, model.forward)
            undo.callback(vars(model).pop, "forward")
        yield loop.skipped
