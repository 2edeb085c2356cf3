"""The parameters that are fitted along uncached runs: TeaCache's polynomial, MagCache's ratios."""

import functools
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from baselines.teacache import relative_l1
from spectrum.core.errors import refuse
from spectrum.core.method import Signal
from spectrum.hooks.signals import signal_reader
from spectrum.hooks.trajectory import Observation
from spectrum.models.layouts import denoiser_of

DEGREE = 4
"""Of TeaCache's polynomial."""


class Fit(Protocol):
    """Fits a method's parameters; the hook calls it with every step of uncached runs."""

    def __call__(self, observed: Observation) -> None:
        """Take in one step."""
        ...

    def found(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """(the method's parameters, facts about the fit)."""
        ...


class Polynomial:
    """TeaCache's: from the relative change of the signal to that of the stacks' output, sample by sample."""

    def __init__(self, model: Any) -> None:
        self.pairs: list[tuple[float, float]] = []
        self._forward = functools.partial(type(model).forward, model)
        self._model, self._read_signal = model, None
        self._last: dict[str, tuple[Tensor, Tensor]] = {}

    def __call__(self, observed: Observation) -> None:
        """Pair this step with the one before it in the same branch and trajectory."""
        if self._read_signal is None:
            layout = denoiser_of(self._model, observed.inputs)
            self._read_signal = signal_reader(Signal.teacache, self._model, layout)
        now = self._read_signal(observed.inputs, functools.partial(self._forward, **observed.inputs)), observed.feature
        if observed.step:
            signals, features = (each(a, b) for a, b in zip(now, self._last[observed.branch], strict=True))
            self.pairs += zip(signals, features, strict=True)
        self._last[observed.branch] = now

    def found(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The coefficients, highest power first, and the share of the variance that they explain.

        Raises:
            SpectrumError: if fewer pairs than coefficients were seen.
        """
        seen = len({signal for signal, _ in self.pairs})
        if seen <= DEGREE:
            refuse(
                f"a polynomial of degree {DEGREE} needs {DEGREE + 1} different changes of the signal, and {seen} were "
                "seen from step to step: type a larger model.steps or prompts.limit"
            )
        x, y = np.array(self.pairs).T
        coefficients = np.polyfit(x, y, DEGREE)
        explained = float(1 - np.var(y - np.polyval(coefficients, x)) / np.var(y))
        return {"coefficients": coefficients.tolist()}, {"pairs": len(self.pairs), "r_squared": explained}


class Ratios:
    """MagCache's: by step the mean over samples and tokens of `|r_s| / |r_{s-1}|`, `r` the stacks' residual."""

    def __init__(self, model: Any) -> None:
        self._by_step: dict[int, list[float]] = {}
        self._last: dict[str, Tensor] = {}

    def __call__(self, observed: Observation) -> None:
        """Compare this step's residual with that of the step before."""
        entry, feature = observed.entry, observed.feature
        if entry.shape != feature.shape:
            refuse(
                f"{tuple(entry.shape)} goes into the blocks and {tuple(feature.shape)} leaves them, so there is no "
                "residual to fit magcache to: type another method"
            )
        residual = (feature - entry).float()
        size = residual.norm(dim=1 if residual.ndim == 4 else -1)
        if observed.step:
            self._by_step.setdefault(observed.step, []).append((size / self._last[observed.branch]).mean().item())
        self._last[observed.branch] = size

    def found(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """One ratio a step, the first of them 1."""
        steps = sorted(self._by_step)
        return {"ratios": [1.0, *(round(float(np.mean(self._by_step[s])), 5) for s in steps)]}, {}


FITS: dict[str, Callable[[Any], Fit]] = {"teacache": Polynomial, "magcache": Ratios}


def each(current: Tensor, previous: Tensor) -> list[float]:
    """`relative_l1` sample by sample.

    Args:
        current: a signal or a feature at one step, shape (batch, ...).
        previous: the same at the step before.

    Returns:
        One number a sample; where all samples share a signal, the same number for each.

    Raises:
        SpectrumError: if the two have different batches.
    """
    if len(current) != len(previous):
        refuse("the batch changed between two steps: calibrate with prompts that fill whole batches")
    return [relative_l1(a, b) for a, b in zip(current, previous, strict=True)]
