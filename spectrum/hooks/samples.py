"""The samples of a batch, each with its own decisions: a data-dependent method does to each what it does to it alone.

When some samples of a batch run and others skip, the blocks run for all of them, and the forecasts take the place of
what they gave for the samples that skip. So a sample's picture does not depend on its neighbours; the time of a batch
falls only at the steps that all its samples skip.
"""

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from spectrum.core.errors import refuse
from spectrum.core.history import History, to_keep
from spectrum.core.method import Method, Site
from spectrum.hooks.signals import SignalReader
from spectrum.hooks.step import CurrentStep, DenoiserCall
from spectrum.hooks.trajectory import Branch, Trajectory

_MOST_COPIES = 3
"""Batched guidance calls the denoiser with up to so many copies of each sample."""


def batched_samples(latents: Tensor) -> int:
    """How many samples a call of the denoiser has, as against copies of them for batched guidance.

    A pipeline with batched guidance stacks equal copies of its latents. Two samples that began with equal noise differ
    from the second step on, so this is asked no earlier.

    Args:
        latents: the denoiser's latents at a trajectory's second step or later, (rows, ...).

    Example:
        >>> a, b = torch.zeros(1, 4), torch.ones(1, 4)
        >>> batched_samples(torch.cat([a, b, a, b])), batched_samples(torch.cat([a, b])), batched_samples(a)
        (2, 2, 1)
    """
    for copies in range(min(_MOST_COPIES, len(latents)), 1, -1):
        if len(latents) % copies == 0:
            first, *others = latents.chunk(copies)
            if all(torch.equal(first, other) for other in others):
                return len(first)
    return len(latents)


def split(method: Method, branch: Branch, latents: Tensor) -> None:
    """Give each sample of a CFG branch a branch of its own, if the batch has several. Called at its second step.

    Args:
        method: a method that decides sample by sample.
        branch: the branch, whose blocks have run for the whole batch so far. Sets its `samples`.
        latents: the denoiser's latents, (rows, ...).

    Raises:
        SpectrumError: where what is stored has no row for each sample.
    """
    count, total = batched_samples(latents), len(latents)
    branch.samples = []
    if count == 1:
        return
    stored = [feature for history in branch.histories.values() for feature in history.features]
    if method.site is Site.modules or any(len(feature) != total for feature in stored):
        refuse(
            f"{method.name} decides for each sample, and what is stored here has no row for each: sample one at a "
            "time, or type method.batch_decision=true to decide for the whole batch"
        )
    for number in range(count):
        rows = slice(number, None, count)
        own = Branch(branch.name, branch.origin, branch.max_features, grid=branch.grid, rows=rows)
        own.runs, own.level = list(branch.runs), branch.level
        own.signal = None if branch.signal is None else rows_of(branch.signal, rows, total)
        own.at_runs = [(_kept(s, rows, total), _kept(v, rows, total)) for s, v in branch.at_runs]
        for slot, history in branch.histories.items():
            own.histories[slot] = History(branch.max_features)
            for time, feature in zip(history.times, history.features, strict=True):
                own.histories[slot].add(time, feature[rows])
        branch.samples.append(own)
    branch.histories, branch.at_runs, branch.signal = {}, [], None


def rows_of(value: Tensor, rows: slice, total: int) -> Tensor:
    """One sample's rows of a tensor; the whole tensor where all samples share one row, as an embedding of the timestep.

    Args:
        value: (rows, ...), or (1, ...).
        rows: the sample's.
        total: rows of the whole batch.

    Raises:
        SpectrumError: for any other number of rows.
    """
    if len(value) not in (1, total):
        refuse(
            f"the signal has {len(value)} rows and the batch {total}, so it cannot be told which sample they are of: "
            "sample one at a time, or type method.batch_decision=true"
        )
    return value[rows] if len(value) == total else value


def _kept(value: Tensor, rows: slice, total: int) -> Tensor:
    """One sample's rows of a tensor, to be held for several steps."""
    return to_keep(rows_of(value, rows, total))


class SampleSteps:
    """The current step of a branch whose samples decide each for themselves. Answers as `CurrentStep` does.

    Args:
        method: the method in force.
        trajectory: the run that the call belongs to.
        branch: the CFG branch, with its samples; `branch.last` is the step.
        call: the call.
        read_signal: reads the signal of the whole batch; it is read once. None for methods of time alone.
        total: rows of the batch.
    """

    def __init__(
        self,
        method: Method,
        trajectory: Trajectory,
        branch: Branch,
        call: DenoiserCall,
        read_signal: SignalReader | None,
        total: int,
    ) -> None:
        self._samples, self._total = branch.samples or [], total
        whole = None if read_signal is None else functools.cache(lambda: read_signal(call.inputs, call.run_plain))
        self._steps = []
        for number, own in enumerate(self._samples):
            own.last = branch.last
            reader = None if whole is None else _reading(whole, own.rows or slice(None), total)
            self._steps.append(CurrentStep(method, trajectory, own, call, reader, number))

    def runs(self, front_residual: Tensor | None = None) -> bool:
        """Whether the blocks run for any sample. Asked once."""
        own = [None if front_residual is None else rows_of(front_residual, r, self._total) for r in self._rows]
        return any([step.runs(residual) for step, residual in zip(self._steps, own, strict=True)])

    @property
    def _rows(self) -> Sequence[slice]:
        return [own.rows or slice(None) for own in self._samples]

    def skipping(self) -> Tensor | None:
        """(rows,) bool, true where the row's sample skips though the blocks run; None if no sample does."""
        mask = torch.zeros(self._total, dtype=torch.bool)
        for own, rows in zip(self._samples, self._rows, strict=True):
            mask[rows] = not own.ran
        return mask if mask.any() else None

    def forecast(self, slot: str) -> Tensor:
        """The forecasts of the samples that skip, in their rows; the other rows are zero."""
        found: Tensor | None = None
        for own, step, rows in zip(self._samples, self._steps, self._rows, strict=True):
            if own.ran:
                continue
            part = step.forecast(slot)
            found = part.new_zeros((self._total, *part.shape[1:])) if found is None else found
            found[rows] = part
        assert found is not None
        return found


def _reading(whole: Callable[[], Tensor], rows: slice, total: int) -> SignalReader:
    return lambda inputs, run: rows_of(whole(), rows, total)
