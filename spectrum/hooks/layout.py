"""The layout of a denoiser family: what the hook has to know of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import nn

from spectrum.core.errors import refuse
from spectrum.hooks.discovery import block_stacks


@dataclass(frozen=True)
class Denoiser:
    """Layout of a denoiser family.

    Attributes:
        exit: name of the module that the last block's output enters; its first argument is the feature.
        stacks: names of the block lists (or single blocks) in the order they run. If empty, they are the lists of
            blocks that diffusers' own caching hooks find.
        signal: name of the module whose output TeaCache looks at, where that is an embedding of the timestep. None
            where it is the modulated input: what the first block's first attention is given.
        condition: the forward argument that tells CFG branches apart where the pipeline does not name them. None where
            all branches are denoised in one call.
        refused: forward arguments that reach the blocks from outside, each with why a skipped step cannot honour it.

    Example:
        >>> Denoiser(exit="norm_out").condition
        'encoder_hidden_states'
    """

    exit: str
    stacks: tuple[str, ...] = ()
    signal: str | None = None
    condition: str | None = "encoder_hidden_states"
    refused: Mapping[str, str] = field(default_factory=dict)

    def with_stacks(self, model: nn.Module) -> "Denoiser":
        """The layout with its stacks named, found in `model` where they are left empty.

        Raises:
            SpectrumError: if the model has no list of blocks that diffusers knows.
        """
        return self if self.stacks else replace(self, stacks=block_stacks(model))

    def check(self, model: nn.Module) -> None:
        """Check that a model has the modules that this layout names.

        Raises:
            SpectrumError: if it lacks one.
        """
        modules = dict(model.named_modules())
        for name in (self.exit, *self.stacks, *([] if self.signal is None else [self.signal])):
            if name not in modules:
                children = ", ".join(child for child, _ in model.named_children())
                refuse(f"{type(model).__name__} has no module {name}, which its layout names; it has {children}")
