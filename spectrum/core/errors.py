"""The one error that bad input raises. Its message is a single line that says what to type or change."""

from typing import NoReturn


class SpectrumError(ValueError):
    """Bad input. `str(error)` is one line that can be shown without a traceback."""


def refuse(message: str) -> NoReturn:
    """Raise `SpectrumError` with `message` on one line.

    Args:
        message: what is wrong and what to type instead; line breaks become spaces.

    Raises:
        SpectrumError: always.
    """
    raise SpectrumError(" ".join(message.split()))


def check_number(name: str, value: float, low: float | None = None, integer: bool = False) -> None:
    """Check that a setting is a finite number in its range.

    Args:
        name: the key as it is typed, for the message: `schedule.warmup`.
        value: what was given.
        low: the smallest value allowed; None for no limit.
        integer: whether only whole numbers are allowed.

    Raises:
        SpectrumError: if `value` is no finite number, below `low`, or not whole where it has to be.

    Example:
        >>> check_number("schedule.warmup", 5, low=1, integer=True)
        >>> check_number("schedule.warmup", 0, low=1)
        Traceback (most recent call last):
        spectrum.core.errors.SpectrumError: schedule.warmup must be at least 1, got 0
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        refuse(f"{name} must be a number, got {value!r}")
    if value != value or value in (float("inf"), float("-inf")):
        refuse(f"{name} must be finite, got {value}")
    if integer and value != int(value):
        refuse(f"{name} must be a whole number, got {value}")
    if low is not None and value < low:
        refuse(f"{name} must be at least {low}, got {value}")
