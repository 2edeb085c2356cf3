"""The project's one error for bad input: its message is a single line that says what to type or change."""

from typing import NoReturn


class SpectrumError(ValueError):
    """Bad input. `str(error)` is one line, fit to be shown without a traceback."""


def refuse(message: str) -> NoReturn:
    """Raise `SpectrumError(message)`."""
    raise SpectrumError(" ".join(message.split()))


def check_number(name: str, value: float, low: float | None = None, integer: bool = False) -> None:
    """Refuse a value that is not a finite number, is below `low`, or is not whole where `integer` asks for it."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        refuse(f"{name} must be a number, got {value!r}")
    if value != value or value in (float("inf"), float("-inf")):
        refuse(f"{name} must be finite, got {value}")
    if integer and value != int(value):
        refuse(f"{name} must be a whole number, got {value}")
    if low is not None and value < low:
        refuse(f"{name} must be at least {low}, got {value}")
