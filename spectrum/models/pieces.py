"""Lets the VAE of a pipeline decode in pieces, which takes less memory: sample by sample, tile by tile."""

from typing import Any

from spectrum.config.schema import ModelConfig
from spectrum.core.errors import refuse


def in_pieces(pipe: Any, model: ModelConfig) -> Any:
    """A pipeline, with its VAE decoding in the pieces that a config asks for.

    Args:
        pipe: the pipeline.
        model: the model's config; `vae` lists `slicing` and `tiling`.

    Raises:
        SpectrumError: for what the VAE cannot do.
    """
    for piece in model.vae:
        try:
            getattr(pipe.vae, f"enable_{piece}")()
        except (AttributeError, NotImplementedError):
            refuse(f"model.vae={piece} is nothing that {type(getattr(pipe, 'vae', None)).__name__} can do")
    return pipe
