"""How a pipeline is called: the part of a config that sampling needs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spectrum.config.schema import BUILT, RunConfig

GIVEN = {"labels", "picture", "alone"}
"""The kinds of inputs that are no embeddings of a prompt, so that a pipeline with text encoders needs them too."""


def takes_one(embeds: Mapping[str, Any] | None) -> bool:
    """Whether a pipeline takes one sample a call: something that it is given can be given for one alone."""
    return any(isinstance(spec, Mapping) and "alone" in spec for spec in (embeds or {}).values())


@dataclass(frozen=True)
class Sampling:
    """How a pipeline is called.

    Attributes:
        steps: denoising steps; a control has fewer than its model.
        solver: scheduler class of diffusers that takes the place of the pipeline's own; None leaves it.
        height: pixels.
        width: pixels.
        call: the pipeline's own arguments.
        batch: samples per call.
        frames: frames of a video, layers of a picture in layers; None for a picture.
        fps: frames per second of a video.
        embeds: what stands for prompts where a pipeline has no text encoder, or takes class numbers; see
            `spectrum.models.inputs.prompt_inputs`.
    """

    steps: int
    solver: str | None
    height: int
    width: int
    call: dict[str, Any]
    batch: int
    frames: int | None = None
    fps: int | None = None
    embeds: dict[str, Any] | None = None

    @classmethod
    def of(cls, config: RunConfig) -> "Sampling":
        """The sampling that a config asks for; a method may set its own `steps` and `solver`."""
        model = config.model
        embeds: dict[str, Any] = (model.architecture or {}).get("embeds", {})
        if model.weights not in BUILT:
            embeds = {name: spec for name, spec in embeds.items() if isinstance(spec, dict) and GIVEN & spec.keys()}
        return cls(
            steps=config.method.steps or model.steps,
            solver=config.method.solver,
            height=model.height,
            width=model.width,
            call=model.call,
            batch=config.batch or 1,
            frames=model.frames,
            fps=model.fps,
            embeds=embeds or None,
        )
