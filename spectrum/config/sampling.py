"""How a pipeline is called: the part of a config that sampling needs."""

from dataclasses import dataclass
from typing import Any

from spectrum.config.schema import BUILT, RunConfig


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
            `spectrum.models.architectures.prompt_inputs`.
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
            given = {"labels", "picture"}
            embeds = {name: spec for name, spec in embeds.items() if isinstance(spec, dict) and given & spec.keys()}
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
