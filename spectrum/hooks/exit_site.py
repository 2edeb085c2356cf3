"""The exit site: stores the last block's output and forecasts it; the final norm and projection run at every step."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from spectrum.core.errors import refuse
from spectrum.core.method import Method, Space
from spectrum.hooks.block_stand_ins import BlockStandIn, block_stand_ins, blocks_named
from spectrum.hooks.discovery import hidden_output
from spectrum.hooks.layout import Denoiser, Exit
from spectrum.hooks.site import SiteResult, Step, in_rows
from spectrum.hooks.stand_ins import StandIn, front_blocks, in_place_of_stacks, no_blocks
from spectrum.hooks.step import DenoiserCall
from spectrum.hooks.tensors import argument_at, hidden_states_of, latents_of, with_argument

EXIT = "exit"
"""The slot of the first exit; further ones are `exit 2`, `exit 3`."""


class ExitSite:
    """Stores what enters the exit modules.

    At a skipped step stand-ins take the place of the stacks, so no block runs, and the forecast replaces what arrives
    at the exit: `F` in feature space, `input + sum_k w_k r_k` in residual space.

    The hooks on the modules only set attributes, so they can be traced with a fully compiled denoiser.

    Args:
        model: the denoiser, uncompiled.
        layout: its layout, the stacks named.
        method: the method in force.

    Attributes:
        ways: the values of `by_block` that it can take.
        by_block: whether each block has a stand-in of its own, for denoisers that do not iterate their lists.
        residual: whether residuals are stored.
        slots: the slots of its exits.
        modules: the stacks, the first block and the exit modules, by name.
        narrow: whether features are stored in the dtype of the blocks' input. Wan makes them float32 in front of the
            exit, and nothing is lost; where it would be, this is False.
        narrowed: whether the newest feature was converted so.
        idle: by `kind_of_call` the stand-ins, by name, for modules that nothing depends on at a skipped step.
    """

    ways: tuple[bool, ...] = (False, True)

    def __init__(self, model: nn.Module, layout: Denoiser, method: Method) -> None:
        self._model, self._layout = model, layout
        self.by_block, self.narrow, self.narrowed = False, True, False
        self.idle: dict[Any, dict[str, StandIn]] = {}
        names = [EXIT, *(f"{EXIT} {number}" for number in range(2, len(layout.exits) + 1))]
        self._exits = [(names[number if e.same_as is None else e.same_as], e) for number, e in enumerate(layout.exits)]
        self.slots = tuple(dict.fromkeys(slot for slot, _ in self._exits))
        self.residual = method.space is Space.residual
        if self.residual and len(self.slots) > 1:
            refuse(
                f"{type(model).__name__} has several exits ({', '.join(map(str, layout.exits))}), and only one follows "
                "from the blocks' input: type method.space=feature"
            )
        self._active = self._whole = False
        self._replacements: Mapping[str, Tensor] | None = None
        self._skipping: Tensor | None = None
        self._forget_tensors()
        first, self._first_block = next(iter(blocks_named(model, layout.stacks[:1]).items()))
        self.modules = {first: self._first_block}
        self.modules |= {e.module: model.get_submodule(e.module) for e in layout.exits}
        self.modules |= {name: model.get_submodule(name) for name in (*layout.stacks, *layout.feeders)}
        self._stand_ins = no_blocks(model, layout.stacks)
        self._feeders = block_stand_ins(model, layout.feeders)
        self._handles: list[Any] = [self._first_block.register_forward_pre_hook(self._at_first_block, with_kwargs=True)]
        for name in dict.fromkeys(e.module for e in layout.exits):
            hook = _exit_hook(self, [(slot, e) for slot, e in self._exits if e.module == name])
            self._handles.append(model.get_submodule(name).register_forward_pre_hook(hook, with_kwargs=True))
        self._by_block: list[BlockStandIn] = []
        self._watch(self._feeders)

    def remove(self) -> None:
        """See `CacheSite`."""
        for handle in self._handles:
            handle.remove()
        self._forget_tensors()

    def stand_in_by_block(self) -> None:
        """Give each block a stand-in of its own from now on; what each returns is learnt at the next run step."""
        self.by_block = True
        self._stand_ins = block_stand_ins(self._model, self._layout.stacks, self._enter)
        self._watch(self._stand_ins)

    def _watch(self, stand_ins: Sequence[StandIn]) -> None:
        """Let stand-ins for single blocks learn what their blocks return."""
        for own in stand_ins:
            stand_in, block = own.module, own.table[own.key]
            assert isinstance(stand_in, nn.Module) and block is not None
            self._by_block.append(stand_in)  # pyright: ignore[reportArgumentType]
            self._handles.append(block.register_forward_hook(stand_in.watch, with_kwargs=True))  # pyright: ignore

    def evaluate(self, call: DenoiserCall, step: Step) -> SiteResult:
        """See `CacheSite`."""
        if step.runs():
            self._skipping = step.skipping()
            if self._skipping is None:
                return self.run_blocks(call)
            return self._ran(self._run_forward(call, self._forecasts(step)))
        return self.skip_blocks(call, self._forecasts(step))

    def _forecasts(self, step: Step) -> dict[str, Tensor]:
        return {slot: step.forecast(slot) for slot in self.slots}

    def run_blocks(self, call: DenoiserCall) -> SiteResult:
        """See `CacheSite`."""
        return self._ran(self._run_forward(call))

    def skip_blocks(self, call: DenoiserCall, replacements: Mapping[str, Tensor], whole: bool = False) -> SiteResult:
        """Call the denoiser with stand-ins for its blocks.

        Args:
            call: the call.
            replacements: by slot what takes the place of what arrives at the exit, in residual space less its input.
            whole: whether they are features whatever the method's space.
        """
        self._whole = whole
        try:
            idle = self.idle.get(kind_of_call(call), {})
            with in_place_of_stacks([*self._stand_ins, *self._feeders, *idle.values()]):
                return self._skipped(self._run_forward(call, replacements))
        finally:
            self._whole = False

    def _run_forward(self, call: DenoiserCall, replacements: Mapping[str, Tensor] | None = None) -> Any:
        """The denoiser's output, with `replacements` (if given) in the place of what arrives at the exits."""
        self._forget_tensors()
        self._active, self._replacements = True, replacements
        for stand_in in self._by_block:
            stand_in.begin()
        try:
            output = call.run()
        except BaseException:
            self._forget_tensors()
            raise
        finally:
            self._active, self._replacements, self._skipping = False, None, None
        missing = [str(e) for slot, e in self._exits if slot not in self._arrived]
        if missing:
            refuse(
                f"{type(self._model).__name__} did not pass through {missing[0]}, so nothing could be stored: if "
                "it was compiled and called before the method was put on it, call torch.compiler.reset()"
            )
        return output

    def _ran(self, output: Any) -> SiteResult:
        entry, arrived, used = self._stacks_input, self._arrived, self._used
        self._forget_tensors()
        if entry is None:
            refuse(f"{type(self._model).__name__} ran no block: nothing could be stored")
        self.narrowed = self.narrow and arrived[EXIT].dtype != entry.dtype
        features = {**arrived, EXIT: arrived[EXIT].to(entry.dtype)} if self.narrowed else arrived
        if self.residual and entry.shape != features[EXIT].shape:
            refuse(
                f"{type(self._model).__name__}: {tuple(entry.shape)} goes into the blocks and "
                f"{tuple(features[EXIT].shape)} leaves them, so there is no residual: type method.space=feature"
            )
        stored = {EXIT: features[EXIT] - entry} if self.residual else features
        return SiteResult(True, output, entry, {**features, **used}, stored)

    def _skipped(self, output: Any) -> SiteResult:
        entry, used = self._arrived[EXIT] if self._stacks_input is None else self._stacks_input, self._used
        self._forget_tensors()
        return SiteResult(False, output, entry, used)

    def _forget_tensors(self) -> None:
        self._first_input = self._stacks_input = None
        self._arrived: dict[str, Tensor] = {}
        self._used: dict[str, Tensor] = {}
        self._calls: dict[str, int] = {}

    def _at_first_block(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if self._active:
            self._enter(args, kwargs)

    def _enter(self, args: Any, kwargs: Any) -> None:
        """The first block is called, or its stand-in."""
        if self._stacks_input is None:
            place = self._layout.entry
            self._first_input = hidden_states_of(args, kwargs) if place is None else argument_at(args, kwargs, place)
            self._stacks_input = self._first_input

    def at_exit(self, exits: Sequence[tuple[str, Exit]], args: Any, kwargs: Any) -> Any:
        """An exit module is called: note what arrives, and put the forecast in its place."""
        if not self._active:
            return None
        name = exits[0][1].module
        number = self._calls.get(name, 0)
        self._calls[name] = number + 1
        for slot, exit_ in exits:
            if exit_.call not in (None, number):
                continue
            place = exit_.place or ((0,) if args else (next(iter(kwargs)),))
            self._arrived[slot] = value = argument_at(args, kwargs, place)
            if self._replacements is not None:
                args, kwargs = with_argument(args, kwargs, place, self._replaced(slot, value))
        return args, kwargs

    def _replaced(self, slot: str, value: Tensor) -> Tensor:
        """What takes the place of the value that arrives at an exit."""
        assert self._replacements is not None
        forecast = self._replacements[slot]
        if self.residual and not self._whole:
            entry = value if self._stacks_input is None else self._stacks_input
            forecast = entry.to(forecast.dtype) + forecast
        self._used[slot] = forecast if self._skipping is None else in_rows(self._skipping, forecast, value)
        return self._used[slot].to(value.dtype)


def _exit_hook(site: ExitSite, exits: Sequence[tuple[str, Exit]]) -> Any:
    """The hook on one exit module."""
    return lambda module, args, kwargs: site.at_exit(exits, args, kwargs)


def kind_of_call(call: DenoiserCall) -> Any:
    """What has to be alike in two calls for the same modules to be idle in both."""
    latents = latents_of(call.inputs)
    return call.kinds, latents.dtype, latents.device


class FrontExitSite(ExitSite):
    """The exit site of methods whose first blocks run at every step and decide about the others.

    First-Block-Cache and DBCache. A residual is relative to the output of the front blocks.
    """

    ways = (False,)
    _step: Step | None = None
    _decision: bool | None = None

    def __init__(self, model: nn.Module, layout: Denoiser, method: Method) -> None:
        count, blocks = method.front_blocks, list(blocks_named(model, layout.stacks[:1]).values())
        if count >= len(blocks):
            refuse(f"method.front_blocks={count} must be below the {len(blocks)} blocks of {layout.stacks[0]}")
        self._front = front_blocks(model, layout.stacks, count, self._rest_runs)
        super().__init__(model, layout, method)
        self._handles.append(blocks[count - 1].register_forward_hook(self._at_front_output))

    def evaluate(self, call: DenoiserCall, step: Step) -> SiteResult:
        """See `CacheSite`. The decision is taken inside the forward, when the front blocks have run."""
        self._step, self._decision = step, None
        try:
            with in_place_of_stacks(self._front):
                output = self._run_forward(call)
        finally:
            self._step = None
        return self._ran(output) if self._decision else self._skipped(output)

    def _rest_runs(self) -> bool:
        """Whether the blocks behind the front run; decided once a call."""
        if self._decision is None:
            first, behind, step = self._first_input, self._stacks_input, self._step
            if first is None or behind is None or behind is first or behind.shape != first.shape:
                refuse(
                    f"{type(self._model).__name__} does not run its front blocks before the others, or they change the "
                    "shape of the hidden states: leave method.front_blocks=0"
                )
            assert step is not None
            self._decision = step.runs(front_residual=behind - first)
            self._skipping = step.skipping() if self._decision else None
            some = not self._decision or self._skipping is not None
            self._replacements = self._forecasts(step) if some else None
        return self._decision

    def _at_front_output(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._active and self._first_input is not None:
            self._stacks_input = hidden_output(module, output, self._first_input)
