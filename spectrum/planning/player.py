"""Plays a pipeline's call again with what its denoiser gave at run steps, so that a gap's weights can be tried cheaply.

The pipeline itself is called, so guidance, solver and everything else that it does between two calls of the denoiser
are its own. A step that ran before costs nothing, a step that is forecast what it costs the method.
"""

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
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
from spectrum.hooks.scheduler import readings, steps_again
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
        self._calls: list[int] = []

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
        returned = None
        for hook in self._hooks:
            hook.reset()
            hook.play = play
        kept = _Kept(self._pipe.scheduler, play, before, self._calls)
        with contextlib.suppress(_StopError), self._encoded_once(), replaced(self._pipe.scheduler, "step", kept.step):
            returned = call()
            self._calls = kept.calls
        return kept.latents, returned

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


class _Kept:
    """The latents that a scheduler steps from and to, in one call of a pipeline.

    Args:
        scheduler: the pipeline's.
        play: has the latents that are forced.
        before: see `Player.played`.
        calls: how often the pipeline steps its scheduler at each step, where that is known; once where it is not.

    Attributes:
        latents: see above, those at the end last.
        calls: how often it did; Cosmos 1 takes each step twice, of which the second counts.
    """

    def __init__(self, scheduler: Any, play: Play, before: int | None, calls: Sequence[int]) -> None:
        self._scheduler, self._play, self._before, self._known = scheduler, play, before, calls
        self._left_at: int | None = None
        self._timesteps: Any = None
        self.latents: list[Tensor] = []
        self.calls: list[int] = []

    def step(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Called in the place of the scheduler's `step`.

        Raises:
            _StopError: once the latents of step `before` are there.
            SpectrumError: at a second loop over the steps in one call.
        """
        if not self.latents:
            self._timesteps = self._scheduler.timesteps
            self._keep(kwargs["sample"] if "sample" in kwargs else args[2])
        elif self._scheduler.timesteps is not self._timesteps:
            refuse(
                "the pipeline sets its scheduler anew in one call, section after section, and a plan is fitted for one "
                "loop over the steps: type a method that needs none, for example method=spectrum"
            )
        if steps_again(self._scheduler, self._left_at):
            self.latents.pop()
        else:
            self.calls.append(0)
        self.calls[-1] += 1
        result = original(*args, **kwargs)
        self._left_at = getattr(self._scheduler, "step_index", None)
        if len(self.latents) in self._play.forced:
            result = _forced(result, self._play.forced[len(self.latents)])
        self._keep(result[0])
        steps = len(self.calls)
        if steps == self._before and self.calls[-1] == (self._known[steps - 1] if len(self._known) >= steps else 1):
            raise _StopError
        return result

    def _keep(self, sample: Tensor) -> None:
        self.latents.append(sample.detach().float().flatten(1).cpu())


def _forced(result: Any, latents: Tensor) -> Any:
    """What a scheduler's step returned, with other latents."""
    own = latents.repeat(len(result[0]) // len(latents), 1).to(result[0]).view_as(result[0])
    if isinstance(result, tuple):
        return (own, *result[1:])
    result.prev_sample = own
    return result
