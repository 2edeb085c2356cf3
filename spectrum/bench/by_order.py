"""Caching by the order of calls alone, written without the hook: what a hook is compared with in whole pipelines."""

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import MethodType
from typing import Any

from torch import Tensor

from spectrum.models.attached import named_denoisers


@dataclass
class _Loop:
    """Where a sampling loop is, as seen from outside: told by the steps of its scheduler and the order of calls.

    Attributes:
        runs: given a step, the number of steps (0 here) and no run steps, whether to run.
        step: steps so far at which a denoiser was called.
        moved: whether a scheduler made a step since a denoiser was called.
        calls: by denoiser and kind of call how many there were at this step.
        memory: by these and the number of the call at its step, the first such step and the newest output.
        skipped: the steps of the calls that were skipped.
    """

    runs: Callable[..., bool]
    step: int = 0
    moved: bool = False
    calls: dict[Any, int] = field(default_factory=dict)
    memory: dict[Any, tuple[int, Any]] = field(default_factory=dict)
    skipped: list[int] = field(default_factory=list)

    def noticed(self, scheduler: Any, method: str, then: Callable[[], None]) -> Callable[..., Any]:
        """A method of a scheduler that tells when it is called; a deep copy of the scheduler has its own."""
        plain = getattr(type(scheduler), method)

        @functools.wraps(plain)
        def told(own: Any, *args: Any, **kwargs: Any) -> Any:
            then()
            return plain(own, *args, **kwargs)

        return MethodType(told, scheduler)

    def has_moved(self) -> None:
        """A scheduler made a step."""
        self.moved = True

    def is_undone(self) -> None:
        """A scheduler went back a step (RePaint), which is an entry of its timesteps without a call."""
        self.step += 1

    def begins(self) -> None:
        """A scheduler was set anew: nothing is remembered."""
        self.step, self.moved = 0, False
        self.calls.clear()
        self.memory.clear()

    def around_forward(self, name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        """A denoiser's forward that returns its last output where the call is skipped."""

        @functools.wraps(forward)  # modular pipelines look at its arguments' names
        def kept(*args: Any, **kwargs: Any) -> Any:
            if self.moved:
                self.step, self.moved = self.step + 1, False
                self.calls.clear()
            kind = name, *_kind((args, kwargs))
            place = kind, self.calls.get(kind, 0)
            self.calls[kind] = place[1] + 1
            first, output = self.memory.get(place, (self.step, None))
            if output is not None and not self.runs(self.step - first, 0, []):
                self.skipped.append(self.step)
                return _laid_out(output)
            output = forward(*args, **kwargs)
            self.memory[place] = first, output
            return output

        return kept


@contextmanager
def by_order(pipe: Any, runs: Callable[..., bool]) -> Iterator[list[int]]:
    """Let a pipeline keep its denoisers' outputs by the order of calls alone.

    A call is told by the denoiser, the shapes and settings that it is given, and how many such calls there were since a
    scheduler made a step. It runs where
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
        named = (getattr(pipe, name, None) for name in pipe.config)  # components leave out those that may be None
        parts = {id(part): part for part in (*pipe.components.values(), *named)}
        for scheduler in (part for part in parts.values() if hasattr(part, "set_timesteps")):
            events = ("step", loop.has_moved), ("undo_step", loop.is_undone), ("set_timesteps", loop.begins)
            for method, then in events:
                if hasattr(scheduler, method):
                    _put(undo, scheduler, method, loop.noticed(scheduler, method, then))
        for name, model in named_denoisers(pipe).items():
            _put(undo, model, "forward", loop.around_forward(name, model.forward))
        yield loop.skipped


def _put(undo: ExitStack, owner: Any, name: str, value: Any) -> None:
    """Set an attribute of an object until the stack is left."""
    own = vars(owner)
    undo.callback(functools.partial(own.__setitem__, name, own[name]) if name in own else lambda: own.pop(name))
    own[name] = value


def _laid_out(output: Any) -> Any:
    """An output with its tensors in memory as a cache keeps them: sums over another layout round otherwise."""
    if isinstance(output, Tensor):
        return output.contiguous()
    if isinstance(output, (list, tuple)):
        return type(output)(map(_laid_out, output))
    if not isinstance(output, dict):
        return output
    parts = {name: _laid_out(part) for name, part in output.items()}
    return parts if type(output) is dict else type(output)(**parts)


def _kind(value: Any) -> Iterator[Any]:
    """The shapes of the tensors and the words and switches in nested arguments."""
    if isinstance(value, Tensor):
        yield tuple(value.shape)
    elif isinstance(value, (str, bool)) or value is None:
        yield value
    elif isinstance(value, (list, tuple)):
        yield from (part for one in value for part in _kind(one))
    elif isinstance(value, dict):
        yield from (part for key, one in value.items() for part in (key, *_kind(one)))
