"""The layout of image tokens, for methods that look at frequencies over the picture."""

import math

from spectrum.core.errors import refuse


def check_grid(tokens: int, grid: tuple[int, ...] | None, name: str) -> tuple[int, ...]:
    """Check that a token grid covers all the tokens that a method works on.

    Args:
        tokens: number of tokens in the tensor.
        grid: (height, width) or (frames, height, width) in tokens; None where the denoiser's inputs do not tell it.
        name: the method, for the message.

    Returns:
        `grid`.

    Raises:
        SpectrumError: if the grid is unknown, or other tokens (text, a given picture) are among these.

    Example:
        >>> check_grid(12, (3, 4), "method=freqca")
        (3, 4)
    """
    if grid is None:
        refuse(f"{name} has to know the layout of the tokens, and this denoiser does not tell it: type another method")
    if math.prod(grid) != tokens:
        sides = "x".join(map(str, grid))
        refuse(
            f"{name} works on frequencies over a picture, and the {tokens} tokens here are not those of {sides} alone "
            "(text or a given picture is among them): type another method"
        )
    return grid
