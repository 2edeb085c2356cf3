"""What stands for a safety checker where a pipeline has drawn weights: pictures of such weights show nothing."""

from typing import TypeVar

Frames = TypeVar("Frames")


class UncheckedFrames:
    """Stands for Cosmos's safety checker, which its pipelines insist on and ask about decoded frames.

    Only a pipeline with drawn weights gets it (`spectrum.models.architectures.build`). One with published weights loads
    the published checker, of the package cosmos_guardrail.
    """

    def to(self, device: object) -> "UncheckedFrames":
        """Nothing is moved: there are no weights."""
        return self

    def check_video_safety(self, frames: Frames) -> Frames:
        """The frames as they are."""
        return frames
