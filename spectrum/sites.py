"""Where a method stores and forecasts: the exit of the block stacks, the denoiser's output, or every module in a block.

A site runs the denoiser's own forward. At a step that runs it reports what is to be stored, by place; at a skipped one
it asks `recall(place)` for the forecast of each place and puts it where it belongs.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from spectrum.call import EXIT, OUTPUT, Call, Decide, Forward, Place, Recall, hidden_of, latents_of, tensor, with_tensor
from spectrum.context import (
    attach,
    detach,
    empty_stacks,
    gated_stacks,
    hidden_output,
    in_place_of,
    site_modules,
)
from spectrum.denoisers import Denoiser
from spectrum.errors import refuse
from spectrum.method import Method, Site, Space


def site_of(model: nn.Module, layout: Denoiser, method: Method) -> Place:
    """The site that a method asks for, on one denoiser."""
    kinds: Mapping[Site, Callable[..., Place]] = {Site.exit: Exit, Site.output: Output, Site.modules: Modules}
    return kinds[method.site](model, layout, method)


class Exit:
    """The last block's output, at the module that it enters. With `method.front` the first blocks always run.

    Its hooks on modules do no more than set attributes, so that they can be traced with a denoiser compiled whole.
    """

    def __init__(self, model: nn.Module, layout: Denoiser, method: Method) -> None:
        self._model, self._stacks, self._front = model, layout.stacks, method.front
        self._residual, self._name = method.space is Space.residual, layout.exit
        self._open = False
        self._put: Tensor | None = None
        self._runs: bool | None = None
        self._asked: tuple[Decide, Recall] | None = None
        self._clear()
        first = model.get_submodule(layout.stacks[0])
        blocks = list(first) if isinstance(first, nn.ModuleList) else [first]
        if self._front >= len(blocks):
            refuse(f"method.front={self._front} must be below the {len(blocks)} blocks of {layout.stacks[0]}")
        make = functools.partial(gated_stacks, front=self._front, ask=self._ask) if self._front else empty_stacks
        self._stand_ins = make(model, layout.stacks)
        exit_module = model.get_submodule(layout.exit)
        self._handles = [
            exit_module.register_forward_pre_hook(self._exit_hook, with_kwargs=True),
            blocks[0].register_forward_pre_hook(self._start_hook, with_kwargs=True),
        ]
        if self._front:
            self._handles.append(blocks[self._front - 1].register_forward_hook(self._front_hook))

    def remove(self) -> None:
        """See `Place`."""
        for handle in self._handles:
            handle.remove()
        self._clear()

    def _clear(self) -> None:
        self._start = self._entry = self._arrived = self._used = None

    def call(self, forward: Forward, args: Any, kwargs: Any, decide: Decide, recall: Recall) -> Call:
        """See `Place`."""
        if self._front:
            return self._gated(forward, args, kwargs, decide, recall)
        if decide(None):
            return self.full(forward, args, kwargs)
        with in_place_of(self._model, self._stand_ins):
            return self._skipped(self._through(forward, args, kwargs, recall(EXIT)))

    def full(self, forward: Forward, args: Any, kwargs: Any) -> Call:
        """See `Place`."""
        return self._ran(self._through(forward, args, kwargs, None))

    def _ran(self, output: Any) -> Call:
        entry, feature = self._entry, self._arrived
        self._clear()
        if entry is None or feature is None:
            refuse(f"{type(self._model).__name__} ran no block: nothing could be stored")
        feature = feature.to(entry.dtype)
        if self._residual and entry.shape != feature.shape:
            refuse(
                f"{type(self._model).__name__}: {tuple(entry.shape)} goes into the blocks and {tuple(feature.shape)} "
                "leaves them, so there is no residual: type method.space=feature"
            )
        return Call(True, output, entry, {EXIT: feature}, {EXIT: feature - entry if self._residual else feature})

    def _skipped(self, output: Any) -> Call:
        arrived, used = self._arrived, self._used
        assert used is not None
        self._clear()
        return Call(False, output, arrived, {EXIT: used})

    def _gated(self, forward: Forward, args: Any, kwargs: Any, decide: Decide, recall: Recall) -> Call:
        self._asked, self._runs = (decide, recall), None
        with in_place_of(self._model, self._stand_ins):
            output = self._through(forward, args, kwargs, None)
        return self._ran(output) if self._runs else self._skipped(output)

    def _ask(self) -> bool:
        """Whether the blocks behind the front run, decided once a call, when the front has run."""
        if self._runs is None:
            assert self._entry is not None and self._start is not None and self._asked is not None
            decide, recall = self._asked
            self._runs = decide(self._entry - self._start)
            self._put = None if self._runs else recall(EXIT)
        return self._runs

    def _through(self, forward: Forward, args: Any, kwargs: Any, put: Tensor | None) -> Any:
        """The denoiser's output, with `put`, if it is given, in the place of what arrives at the exit."""
        self._clear()
        self._open, self._put = True, put
        try:
            output = forward(*args, **kwargs)
        except BaseException:
            self._clear()
            raise
        finally:
            self._open, self._put, self._asked = False, None, None
        if self._arrived is None:
            refuse(
                f"{type(self._model).__name__} did not pass through {self._name}, so nothing could be stored: if it "
                "was compiled and called before the method was put on it, call torch.compiler.reset()"
            )
        return output

    def _start_hook(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if self._open:
            self._start = hidden_of(args, kwargs)
            self._entry = self._start

    def _front_hook(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._open and self._start is not None:
            self._entry = hidden_output(module, output, self._start)

    def _exit_hook(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        if not self._open:
            return None
        name = None if args else next(iter(kwargs))
        self._arrived = value = args[0] if name is None else kwargs[name]
        if self._put is None:
            return None
        self._used = value.to(self._put.dtype) + self._put if self._residual else self._put
        replaced = self._used.to(value.dtype)
        return ((replaced, *args[1:]), kwargs) if name is None else (args, {**kwargs, name: replaced})


class Output:
    """The denoiser's output: nothing of it runs at a skipped step. A residual is relative to the latents."""

    def __init__(self, model: nn.Module, layout: Denoiser, method: Method) -> None:
        self._model, self._residual = model, method.space is Space.residual
        self._like: Any = None
        self._signature = inspect.signature(type(model).forward)
        if method.front:
            refuse("method.front goes with method.site=exit")

    def _latents(self, args: Any, kwargs: Any) -> Tensor:
        return latents_of(self._signature.bind(self._model, *args, **kwargs).arguments)

    def remove(self) -> None:
        """See `Place`."""
        self._like = None

    def call(self, forward: Forward, args: Any, kwargs: Any, decide: Decide, recall: Recall) -> Call:
        """See `Place`."""
        if decide(None):
            return self.full(forward, args, kwargs)
        entry, forecast = self._latents(args, kwargs), recall(OUTPUT)
        guess = entry.to(forecast.dtype) + forecast if self._residual else forecast
        return Call(False, with_tensor(self._like, guess), entry, {OUTPUT: guess})

    def full(self, forward: Forward, args: Any, kwargs: Any) -> Call:
        """See `Place`."""
        output, entry = forward(*args, **kwargs), self._latents(args, kwargs)
        sample = tensor(output)
        self._like = with_tensor(output, sample[:0])
        if self._residual and entry.shape != sample.shape:
            refuse(
                f"{type(self._model).__name__} takes {tuple(entry.shape)} and returns {tuple(sample.shape)}, so there "
                "is no residual: type method.space=feature"
            )
        value = sample - entry.to(sample.dtype) if self._residual else sample
        return Call(True, output, entry, {OUTPUT: sample}, {OUTPUT: value})


class Modules:
    """Every attention and MLP output, before its gate: the blocks run on, with the forecasts in their places."""

    def __init__(self, model: nn.Module, layout: Denoiser, method: Method) -> None:
        if method.space is Space.residual or method.front:
            refuse("method.site=modules stores what each module gives: type method.space=feature and method.front=0")
        self._values: dict[str, Tensor] | None = None
        self._recall: Recall | None = None
        self._lengths: dict[str, int] = {}
        self._turns: dict[str, int] = {}
        self._empty: dict[str, Any] = {}
        stored, idle = site_modules(model, layout.stacks)
        if not stored:
            refuse(f"{type(model).__name__} has no attention or MLP that could be told: type method.site=exit")
        self._modules = [*stored.values(), *idle.values()]
        for name, module in stored.items():
            attach(module, self._storing(name), lambda: None)
        for name, module in idle.items():
            attach(module, self._idling(name), lambda: None)

    def remove(self) -> None:
        """See `Place`."""
        for module in self._modules:
            detach(module)

    def call(self, forward: Forward, args: Any, kwargs: Any, decide: Decide, recall: Recall) -> Call:
        """See `Place`."""
        if decide(None):
            return self.full(forward, args, kwargs)
        used: dict[str, Tensor] = {}

        def once(place: str) -> Tensor:
            used[place] = recall(place)
            return used[place]

        self._recall, self._turns = once, {}
        try:
            return Call(False, forward(*args, **kwargs), None, used)
        finally:
            self._recall = None

    def full(self, forward: Forward, args: Any, kwargs: Any) -> Call:
        """See `Place`."""
        self._values = values = {}
        self._turns = {}
        try:
            output = forward(*args, **kwargs)
        finally:
            self._values = None
        return Call(True, output, None, values, values)

    def _storing(self, name: str) -> Any:
        """What goes around a module whose output is stored.

        There is a place for each tensor that it returns and each of its turns: CogView4 puts image and text through
        one MLP, one after the other.
        """

        def around(forward: Forward, branch: str | None, args: Any, kwargs: Any) -> Any:
            self._turns[name] = self._turns.get(name, 0) + 1
            turn = f"{name}.{self._turns[name]}"
            if self._recall is not None:
                parts = tuple(self._recall(f"{turn}.{part}") for part in range(self._lengths[turn]))
                return parts if self._lengths[turn] > 1 else parts[0]
            output = forward(*args, **kwargs)
            if self._values is not None:
                parts = output if isinstance(output, tuple) else (output,)
                self._lengths[turn] = len(parts)
                self._values |= {f"{turn}.{part}": value for part, value in enumerate(parts)}
            return output

        return around

    def _idling(self, name: str) -> Any:
        """What goes around a module whose output only feeds one that is forecast: it gives tensors of no width."""

        def around(forward: Forward, branch: str | None, args: Any, kwargs: Any) -> Any:
            if self._recall is not None:
                return self._empty[name]
            output = forward(*args, **kwargs)
            parts = output if isinstance(output, tuple) else (output,)
            empty = tuple(part.new_empty((*part.shape[:-1], 0)) for part in parts)
            self._empty[name] = empty if isinstance(output, tuple) else empty[0]
            return output

        return around
