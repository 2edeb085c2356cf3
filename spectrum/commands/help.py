"""The help of commands that take a config: every group with its choices, every key with its type and meaning."""

import inspect
import re
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from spectrum.config import schema
from spectrum.config.messages import group_help
from spectrum.config.reader import GROUPS

WIDTH = 80


def field_comments(kind: type) -> dict[str, str]:
    """The comment behind each field of a structured config."""
    found = dict(re.findall(r"^    (\w+): .*?  # (.*)$", inspect.getsource(kind), re.MULTILINE))
    return {entry.name: found.get(entry.name, "") for entry in fields(kind)}


def wants_config_help(words: Sequence[str], text: str, keys: dict[str, str] | None = None) -> bool:
    """Print the help of a command that takes a config, if it is asked for.

    Args:
        words: the command line.
        text: see `config_help`.
        keys: see `config_help`.

    Returns:
        Whether help was asked for.
    """
    if not any(word in ("-h", "--help") for word in words):
        return False
    print(config_help(text, keys))
    return True


def config_help(text: str, keys: dict[str, str] | None = None) -> str:
    """The help of a command.

    Args:
        text: what the command does, with examples.
        keys: options of its own, each with what it means.
    """
    lines = [text.strip(), ""]
    if keys:
        lines += ["Options of this command:", *(_entry(f"{key}=", meaning) for key, meaning in keys.items()), ""]
    lines.append("Groups, each with its choices (group=choice):")
    for group in GROUPS:
        lines.append(f"  {group}=")
        lines += [_entry(f"  {name}", meaning) for name, meaning in group_help(group).items()]
    lines += ["", "Keys:"]
    named = {kind: field_comments(kind) for kind in (schema.RunConfig, schema.ModelConfig, schema.PromptsConfig)}
    for kind, prefix in ((schema.RunConfig, ""), (schema.PromptsConfig, "prompts."), (schema.ModelConfig, "model.")):
        lines += [_entry(f"{prefix}{key}=", meaning) for key, meaning in named[kind].items() if meaning]
    lines += [_entry(f"method.{key}=", meaning) for key, meaning in field_comments(schema.MethodConfig).items()]
    lines.append(_entry("method.forecast.NAME=", "a parameter of the method's forecaster: degree, ridge, blend, order"))
    lines.append(_entry("schedule.NAME=", "a parameter of the schedule: growth, interval, threshold, run_steps"))
    lines.append(_entry("eval.METRIC.NAME=", "a parameter of a metric; +eval.kid.weights=FILE adds one"))
    return "\n".join(lines)


def _entry(key: str, meaning: Any) -> str:
    """One line of help, cut at the width of a terminal and continued under itself."""
    import textwrap

    start = f"  {key:26} "
    return textwrap.fill(f"{start}{meaning}", WIDTH, subsequent_indent=" " * len(start), break_long_words=False)
