"""The exit site: stores the last block's output and forecasts it; the final norm and projection run at every step."""

from typing import Any

from torch import Tensor, nn

from spectrum.core.errors import refuse
from spectrum.core.method import Method, Space
from spectrum.hooks.discovery import hidden_output
from spectrum.hooks.layout import Denoiser
from spectrum.hooks.site import SiteResult, Step, in_rows
from spectrum.hooks.stand_ins import front_blocks, in_place_of_stacks, no_blocks
from spectrum.hooks.step import DenoiserCall
from spectrum.hooks.tensors import hidden_states_of

EXIT = "exit"
"""The one slot of this site."""


class ExitSite:
    """Stores what enters the exit module.

    At a skipped step the stacks are replaced by stand-ins without blocks, so what arrives at the exit module is the
    stacks' input, and the forecast replaces it: `F` in feature space, `input + sum_k w_k r_k` in residual space.

    The hooks on the modules only set attributes, so they can be traced with a fully compiled denoiser.

    Args:
        model: the denoiser, uncompiled.
        layout: its layout, the stacks named.
        method: the method in force.
    """

    def __init__(self, model: nn.Module, layout: Denoiser, method: Method) -> None:
        self._model, self._exit_name = model, layout.exit
        self._residual = method.space is Space.residual
        self._active = False
        self._replacement: Tensor | None = None
        self._skipping: Tensor | None = None
        self._forget_tensors()
        first = model.get_submodule(layout.stacks[0])
        self._first_stack = list(first) if isinstance(first, nn.ModuleList) else [first]
        self._stand_ins = self._make_stand_ins(layout, method)
        self._handles = [
            model.get_submodule(layout.exit).register_forward_pre_hook(self._at_exit, with_kwargs=True),
            self._first_stack[0].register_forward_pre_hook(self._at_first_block, with_kwargs=True),
        ]

    def _make_stand_ins(self, layout: Denoiser, method: Method) -> Any:
        return no_blocks(self._model, layout.stacks)

    def remove(self) -> None:
        """See `CacheSite`."""
        for handle in self._handles:
            handle.remove()
        self._forget_tensors()

    def evaluate(self, call: DenoiserCall, step: Step) -> SiteResult:
        """See `CacheSite`."""
        if step.runs():
            self._skipping = step.skipping()
            if self._skipping is None:
                return self.run_blocks(call)
            return self._ran(self._run_forward(call, step.forecast(EXIT)))
        with in_place_of_stacks(self._model, self._stand_ins):
            return self._skipped(self._run_forward(call, replacement=step.forecast(EXIT)))

    def run_blocks(self, call: DenoiserCall) -> SiteResult:
        """See `CacheSite`."""
        return self._ran(self._run_forward(call))

    def _run_forward(self, call: DenoiserCall, replacement: Tensor | None = None) -> Any:
        """The denoiser's output, with `replacement` (if it is given) in the place of what arrives at the exit."""
        self._forget_tensors()
        self._active, self._replacement = True, replacement
        try:
            output = call.run()
        except BaseException:
            self._forget_tensors()
            raise
        finally:
            self._active, self._replacement, self._skipping = False, None, None
        if self._exit_input is None:
            refuse(
                f"{type(self._model).__name__} did not pass through {self._exit_name}, so nothing could be stored: if "
                "it was compiled and called before the method was put on it, call torch.compiler.reset()"
            )
        return output

    def _ran(self, output: Any) -> SiteResult:
        entry, feature, used = self._stacks_input, self._exit_input, self._used
        self._forget_tensors()
        if entry is None or feature is None:
            refuse(f"{type(self._model).__name__} ran no block: nothing could be stored")
        feature = feature.to(entry.dtype)
        if self._residual and entry.shape != feature.shape:
            refuse(
                f"{type(self._model).__name__}: {tuple(entry.shape)} goes into the blocks and {tuple(feature.shape)} "
                "leaves them, so there is no residual: type method.space=feature"
            )
        stored = feature - entry if self._residual else feature
        return SiteResult(True, output, entry, {EXIT: feature if used is None else used}, {EXIT: stored})

    def _skipped(self, output: Any) -> SiteResult:
        entry, used = self._exit_input, self._used
        assert used is not None
        self._forget_tensors()
        return SiteResult(False, output, entry, {EXIT: used})

    def _forget_tensors(self) -> None:
        self._first_input = self._stacks_input = self._exit_input = self._used = None

    def _at_first_block(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if self._active:
            self._first_input = hidden_states_of(args, kwargs)
            self._stacks_input = self._first_input

    def _at_exit(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        if not self._active:
            return None
        name = None if args else next(iter(kwargs))
        self._exit_input = value = args[0] if name is None else kwargs[name]
        if self._replacement is None:
            return None
        entry = value if self._skipping is None else self._stacks_input
        assert entry is not None
        self._used = entry.to(self._replacement.dtype) + self._replacement if self._residual else self._replacement
        if self._skipping is not None:
            self._used = in_rows(self._skipping, self._used, value)
        replaced = self._used.to(value.dtype)
        return ((replaced, *args[1:]), kwargs) if name is None else (args, {**kwargs, name: replaced})


class FrontExitSite(ExitSite):
    """The exit site of methods whose first blocks run at every step and decide about the others.

    First-Block-Cache and DBCache. A residual is relative to the output of the front blocks.
    """

    _step: Step | None = None
    _decision: bool | None = None

    def _make_stand_ins(self, layout: Denoiser, method: Method) -> Any:
        count, blocks = method.front_blocks, self._first_stack
        if count >= len(blocks):
            refuse(f"method.front_blocks={count} must be below the {len(blocks)} blocks of {layout.stacks[0]}")
        stand_ins = front_blocks(self._model, layout.stacks, count, self._rest_runs)
        self._front_handle = blocks[count - 1].register_forward_hook(self._at_front_output)
        return stand_ins

    def remove(self) -> None:
        """See `CacheSite`."""
        self._front_handle.remove()
        super().remove()

    def evaluate(self, call: DenoiserCall, step: Step) -> SiteResult:
        """See `CacheSite`. The decision is taken inside the forward, when the front blocks have run."""
        self._step, self._decision = step, None
        try:
            with in_place_of_stacks(self._model, self._stand_ins):
                output = self._run_forward(call)
        finally:
            self._step = None
        return self._ran(output) if self._decision else self._skipped(output)

    def _rest_runs(self) -> bool:
        """Whether the blocks behind the front run; decided once a call."""
        if self._decision is None:
            assert self._stacks_input is not None and self._first_input is not None and self._step is not None
            self._decision = self._step.runs(front_residual=self._stacks_input - self._first_input)
            self._skipping = self._step.skipping() if self._decision else None
            some = not self._decision or self._skipping is not None
            self._replacement = self._step.forecast(EXIT) if some else None
        return self._decision

    def _at_front_output(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._active and self._first_input is not None:
            self._stacks_input = hidden_output(module, output, self._first_input)
