"""Plays a pipeline's call again with what its denoiser gave at run steps, so that a gap's weights can be tried cheaply.

The pipeline itself is called, so guidance, solver and everything else that it does between two calls of the denoiser
are its own. A step that ran before costs nothing, a step that is forecast what it costs the method.
"""

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from spectrum.core.clock import Clock
from spectrum.core.errors import refuse
from spectrum.core.forecast import reuse
from spectrum.core.history import History, to_keep
from spectrum.core.method import Method, Site, Space
from spectrum.core.planned import SHARED
from spectrum.hooks.hook import CacheHook
from spectrum.hooks.layout import Denoiser
from spectrum.hooks.replaced import replaced
from spectrum.hooks.scheduler import readings
from spectrum.hooks.site import SiteResult
from spectrum.hooks.step import CurrentStep, DenoiserCall
from spectrum.hooks.trajectory import Branch, Trajectory
from spectrum.models.attached import attached

Features = dict[tuple[str, int], dict[str, Tensor]]
"""By CFG branch and run step, what the site stored, by slot."""
GapWeights = Mapping[str, Sequence[float]]
"""By CFG branch, or under `""` for all: the weights of the newest features in one gap, oldest first."""


class _StopError(BaseException):
    """Ends a pipeline's call; a BaseException, so that no pipeline takes it for an error of its own."""


@dataclass
class Play:
    """What a rollout does at each step.

    Attributes:
        features: what was stored at the steps that ran before.
        weights: by the run step at which a gap begins, the gap's weights.
        runs: the steps at which the blocks run, and what they give is stored.
        made: what is stored there.
        keeps: the only step at which it is; None for all.
        forced: by step, the latents that it is given whatever the sampler came to, (samples, elements).
    """

    features: Features = field(default_factory=dict)
    weights: Mapping[int, GapWeights] = field(default_factory=dict)
    runs: Collection[int] = ()
    made: Features = field(default_factory=dict)
    keeps: int | None = None
    forced: Mapping[int, Tensor] = field(default_factory=dict)


class _PlayedStep(CurrentStep):
    """A step of a rollout: what was stored at a step that ran, and the weighted sum at one that is skipped."""

    play: Play

    def runs(self, front_residual: Tensor | None = None) -> bool:
        return self.branch.last in self.play.runs

    def forecast(self, slot: str) -> Tensor:
        name, step, features = self.branch.name, self.branch.last, self.play.features
        if (name, step) in features:
            return features[name, step][slot]
        past = sorted(at for branch, at in features if branch == name and self.branch.origin <= at < step)
        if not past:
            refuse(f"the CFG branch {name} does not run at step 0: a plan is for branches that run from there on")
        own = self.play.weights[past[-1]]
        weights = own[name if name in own else SHARED]
        history = History()
        for at in past[len(past) - len(weights) :]:
            history.add(at, features[name, at][slot])
        return history.combine(weights)


class _PlayingHook(CacheHook):
    """The hook of a rollout."""

    play: Play

    def step_of(self, trajectory: Trajectory, branch: Branch, call: DenoiserCall) -> _PlayedStep:
        step = _PlayedStep(self.method, trajectory, branch, call, None)
        step.play = self.play
        return step

    def store(self, trajectory: Trajectory, branch: Branch, call: DenoiserCall, result: SiteResult) -> None:
        if self.play.keeps in (None, branch.last):
            self.play.made[branch.name, branch.last] = {slot: to_keep(value) for slot, value in result.stored.items()}


class Player:
    """A pipeline with the hook of rollouts on it, until the `with` block ends.

    Args:
        pipe: a diffusers pipeline.
        site: where features are stored.
        space: what is stored.
        denoiser: the layout of a family that is not registered.

    Attributes:
        site: see above.
    """

    def __init__(self, pipe: Any, site: Site, space: Space = Space.feature, denoiser: Denoiser | None = None) -> None:
        self._pipe, self.site = pipe, site
        self._hooks = attached(pipe, Method("rollout", reuse, site=site, space=space), _PlayingHook, denoiser)
        if len(self._hooks) > 1:
            self.__exit__()
            refuse(f"{type(pipe).__name__} has {len(self._hooks)} denoisers, and a plan is fitted for one")
        self._prompts: dict[str, Any] = {}

    def __enter__(self) -> "Player":
        return self

    def __exit__(self, *error: Any) -> None:
        for hook in self._hooks:
            hook.remove()

    @property
    def remembers(self) -> bool:
        """See `Rollouts.remembers`."""
        return any(hasattr(self._pipe.scheduler, name) for name in ("model_outputs", "ets"))

    def moves(self, steps: int) -> NDArray[np.float64]:
        """By how much the sigma changes at each of the steps that were sampled last; at the last it falls to 0."""
        sigmas = readings(self._pipe.scheduler, Clock.sigma)[0][:steps]
        return np.diff([*sigmas, 0.0])

    def played(self, call: Callable[[], Any], play: Play, before: int | None) -> tuple[list[Tensor], Any]:
        """Play a call of the pipeline.

        Args:
            call: calls the pipeline, always with the same noise.
            play: what is done at each step; what runs is noted there.
            before: the step before which the call ends; None to play it whole.

        Returns:
            The latents that each step is given, and those at the end, each (samples, elements) float32 on the CPU, and
            what the call returned; None where it was ended.
        """
        latents: list[Tensor] = []
        returned = None
        for hook in self._hooks:
            hook.reset()
            hook.play = play
        kept = _kept_latents(self._pipe.scheduler, latents, play, before)
        with contextlib.suppress(_StopError), self._encoded_once(), kept:
            returned = call()
        return latents, returned

    @contextlib.contextmanager
    def _encoded_once(self) -> Iterator[None]:
        """Encode the same prompts at the first call alone."""
        if not hasattr(self._pipe, "encode_prompt"):
            yield
            return

        def once(encode: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            key = repr((args, sorted(kwargs.items())))
            if key not in self._prompts:
                self._prompts[key] = encode(*args, **kwargs)
            return self._prompts[key]

        with replaced(self._pipe, "encode_prompt", once):
            yield


def _kept_latents(
    scheduler: Any, latents: list[Tensor], play: Play, before: int | None
) -> AbstractContextManager[None]:
    """Keep the latents that a scheduler steps from and to, and stop the pipeline once those of step `before` are there.

    Args:
        scheduler: the pipeline's.
        latents: is given them.
        play: has the latents that are forced.
        before: see `Player.played`.

    Raises:
        SpectrumError: at a second loop over the steps in one call.
    """
    begun: list[Any] = []

    def keep(sample: Tensor) -> None:
        latents.append(sample.detach().float().flatten(1).cpu())

    def step(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if not latents:
            begun.append(scheduler.timesteps)
            keep(kwargs["sample"] if "sample" in kwargs else args[2])
        elif scheduler.timesteps is not begun[0]:
            refuse(
                "the pipeline sets its scheduler anew in one call, section after section, and a plan is fitted for one "
                "loop over the steps: type a method that needs none, for example method=spectrum"
            )
        result = original(*args, **kwargs)
        if len(latents) in play.forced:
            result = _forced(result, play.forced[len(latents)])
        keep(result[0])
        if len(latents) - 1 == before:
            raise _StopError
        return result

    return replaced(scheduler, "step", step)


def _forced(result: Any, latents: Tensor) -> Any:
    """What a scheduler's step returned, with other latents."""
    own = latents.repeat(len(result[0]) // len(latents), 1).to(result[0]).view_as(result[0])
    if isinstance(result, tuple):
        return (own, *result[1:])
    result.prev_sample = own
    return result
