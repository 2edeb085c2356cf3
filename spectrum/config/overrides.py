"""Checks command-line overrides that Hydra would refuse with a message that does not say what to type."""

import re
from collections.abc import Sequence
from dataclasses import fields

from hydra.core.override_parser.types import Override, ValueType

from spectrum.config.schema import RunConfig
from spectrum.core.errors import refuse

NEEDED = ("model", "method", "schedule", "prompts", "eval")
"""The groups without which nothing can be run."""
_OPTIONAL = ("experiment", "logger")
_NO_NAME = re.compile(r"null|true|false|[-+.\d]+|\{.*\}|", re.IGNORECASE)


def check_overrides(words: Sequence[str]) -> None:
    """Refuse overrides that name no choice of a group, or take away what every run needs.

    Args:
        words: the words of a command line.

    Raises:
        SpectrumError: for the first such word.

    Example:
        >>> check_overrides(["model=flux", "schedule.growth=3.0"])
        >>> check_overrides(["model=null"])
        Traceback (most recent call last):
        spectrum.core.errors.SpectrumError: model=null names no model: type model=NAME; python run.py --help lists them
    """
    chosen = {word.partition("=")[0].lstrip("+") for word in words}
    for word in words:
        key, sign, value = word.partition("=")
        name = key.lstrip("+~").partition("@")[0]
        group = name.partition(".")[0]
        if sign and not name:
            refuse(f"{word} names no setting: type key=value; python run.py --help lists the keys")
        if key.startswith("~") and name in NEEDED:
            refuse(f"{word} takes away the {name}, and every run has one: type {name}=NAME in its place")
        if key.startswith("~") and name in {entry.name for entry in fields(RunConfig)} - {*NEEDED, *_OPTIONAL}:
            refuse(f"{word}: a setting cannot be taken away; type {name}=VALUE, or leave it out")
        if sign and name in NEEDED and _NO_NAME.fullmatch(value):
            refuse(f"{word} names no {name}: type {name}=NAME; python run.py --help lists them")
        if group in _OPTIONAL and "." in name and not key.startswith("~") and group not in chosen:
            refuse(f"{word} needs {group}=NAME beside it: there is no {group} to set {name.partition('.')[2]} of")


def listed_values(override: Override) -> list[str]:
    """The values of a sweep that names them: `1,2`, `choice(1,2)`, `range(3)`.

    Args:
        override: a word of the command line, parsed by Hydra.

    Returns:
        The values as they are typed; none for `glob(*)`, `interval(0,1)`, and what is no sweep.
    """
    kinds = (ValueType.SIMPLE_CHOICE_SWEEP, ValueType.CHOICE_SWEEP, ValueType.RANGE_SWEEP)
    return list(override.sweep_string_iterator()) if override.value_type in kinds else []
