"""One line for each error of Hydra and OmegaConf: what is wrong with the config and what to type."""

import contextlib
import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException

from spectrum.config.overrides import listed_values
from spectrum.config.reader import CONFIGS, GROUPS, choices, group_file, group_files, method_file, method_files
from spectrum.config.schema import MethodConfig, ModelConfig, PromptsConfig, RunConfig

RENAMED = {
    "fresh": "redo",
    "method.watch": "method.signal",
    "method.follow": "method.shared_decision",
    "method.front": "method.front_blocks",
    "method.mend": "method.correct",
}
"""Keys of earlier versions, with what they are called now."""


def config_message(error: Exception) -> str:
    """What to show for an error that Hydra or OmegaConf raised.

    Args:
        error: the error.

    Returns:
        One line.
    """
    text = str(error)
    if isinstance(error, OverrideParseException):
        return _unreadable(error, text)
    missing = re.search(r"Could not find '([\w/]+)/([^/']+)'", text)
    if missing:
        return _no_choice(missing[1], missing[2], text)
    several = several_values(error)
    if several:
        word, values = several
        return f"{word} has several values: add --multirun to run each{_as_list(word, values)}"
    bad_value = re.search(r"Error merging override (.*)", text)
    if bad_value:
        return _bad_value(bad_value[1], str(error.__cause__ or text).splitlines()[0])
    unknown = re.search(r"Could not override '([^']+)'", text) or re.search(r"full_key: (\S+)", text)
    if unknown and ("not in struct" in text or "not in '" in text or "Could not override" in text):
        return unknown_key(unknown[1])
    return " ".join(text.split())[:300]


def several_values(error: Exception) -> tuple[str, list[str]] | None:
    """The word of a sweep that stands where one value is taken.

    Args:
        error: what Hydra raised.

    Returns:
        (the word, its values, none where they are not listed one by one); None for another error.
    """
    ambiguous, sweep = r"Ambiguous value for argument '(.*)'$", r"Sweep parameters '(.*)' requires --multirun"
    found = re.search(ambiguous, str(error), re.MULTILINE) or re.search(sweep, str(error))
    if not found:
        return None
    (override,) = OverridesParser.create().parse_overrides([found[1]])
    return found[1], listed_values(override)


def one_value(word: str, values: Sequence[str]) -> str:
    """What to say of a sweep typed to a command that takes one value of each setting.

    Args:
        word: the sweep.
        values: its values.
    """
    first = f"{word.partition('=')[0]}={values[0] if values else 'VALUE'}"
    return f"{word} has several values, and this command takes one: type {first}{_as_list(word, values)}"


def _as_list(word: str, values: Sequence[str]) -> str:
    """`, or type 'KEY=[...]' for a list`; empty where no list can stand."""
    key = word.partition("=")[0]
    if not values or key in GROUPS:
        return ""
    typed = f"{key}=[{','.join(values)}]"
    quote = '"' if "'" in typed else "'"
    return f", or type {quote}{typed}{quote} for a list"


def _unreadable(error: OverrideParseException, text: str) -> str:
    """For a word that is no override."""
    word = error.override
    if "missing EQUAL" in text:
        return f"{word} is no setting: type key=value; python run.py --help lists the keys"
    return f"{word} cannot be read: type key=value, with quotes around what is not plain: \"prompts.text='a, b'\""


def _bad_value(word: str, reason: str) -> str:
    """For a value that a key cannot have."""
    key, _, value = word.partition("=")
    name = key.lstrip("+~")
    choices_of = re.search(r"expected one of \[(.*)\]", reason)
    if choices_of:
        return f"{word} is unknown: type one of {choices_of[1]}"
    if "could not be converted to Integer" in reason:
        whole = value[:-2] if re.fullmatch(r"-?\d+\.0", value) else "N"
        return f"{word} is no whole number: type {name}={whole}"
    if "could not be converted to" in reason:
        return f"{word} is no {reason.rpartition(' ')[2].lower()}"
    if "is not Optional" in reason:
        instead = f"type ~{name} to leave it out" if name.startswith("eval.") else f"type {name}=VALUE, or leave it out"
        return f"{word}: {name} cannot be null; {instead}"
    if "Cannot assign" in reason:
        return f"{word}: {name} holds settings of its own and is no single value; type {name}.NAME=VALUE"
    if "is not a ListConfig" in reason:
        return f"{word} is no list: type {name}=[{value}]"
    if "does not support deletion" in reason:
        return f"{word}: a setting cannot be taken away; type {name}=VALUE, or leave it out"
    return f"{word} cannot be: {reason}"


def _no_choice(group: str, name: str, text: str) -> str:
    """For a name that a group does not have."""
    if group in GROUPS:
        known: Sequence[str] = choices(group)
    else:
        known = [line.strip() for line in text.splitlines() if line.startswith("\t") and "=" not in line]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {group}={near[0]}? There are" if near else "there are"
    return f"there is no {group}={name}; {hint} {', '.join(known)}"


def unknown_key(key: str) -> str:
    """One line for a key that does not exist, with the nearest one that does.

    Args:
        key: the dotted key that was typed.
    """
    if key in RENAMED:
        return f"there is no key {key}: it is called {RENAMED[key]}"
    if key.startswith("model.call."):
        return f"there is no key {key}: type +{key}=VALUE to add an argument of the pipeline's call"
    known = known_keys()
    metric = ".".join(key.split(".")[:2])
    if metric.startswith("eval.") and metric in known and metric != key:
        return f"there is no key {key}: type +{key}=VALUE to add a parameter of {metric.removeprefix('eval.')}"
    if known.get(key):
        return f"there is no key {key} in what was chosen: it belongs to {', '.join(known[key])}"
    near = max(known, key=lambda name: _likeness(key, name))
    hint = f"did you mean {near}?" if _likeness(key, near) >= 0.7 else "python run.py --help lists them"
    return f"there is no key {key}: {hint}"


def _likeness(typed: str, known: str) -> float:
    """How alike two dotted keys are, 1 for equal ones. Within one group only their last words count."""
    group, _, last = typed.rpartition(".")
    if group and known.partition(".")[0] == group.partition(".")[0]:
        return difflib.SequenceMatcher(None, last, known.rpartition(".")[2]).ratio()
    return difflib.SequenceMatcher(None, typed, known if group else known.rpartition(".")[2]).ratio()


def known_keys() -> dict[str, list[str]]:
    """Every dotted key that some config has, with the choices that have it: none for keys that are always there."""
    kinds = {"": RunConfig, "model.": ModelConfig, "method.": MethodConfig, "prompts.": PromptsConfig}
    found: dict[str, list[str]] = {group: [] for group in GROUPS}
    found |= {f"{prefix}{entry.name}": [] for prefix, kind in kinds.items() for entry in fields(kind)}
    for name, own in _readable("method").items():
        for node in ("forecast", "drift", "correct"):
            for key in (key for key in own[node] or {} if not key.startswith("_")):
                found.setdefault(f"method.{node}.{key}", []).append(f"method={name}")
    for group in ("schedule", "eval", "logger"):
        for name, own in _readable(group).items():
            for key in (key for key in own if not key.startswith("_")):
                found.setdefault(f"{group}.{key}", []).append(f"{group}={name}")
    return found


def _readable(group: str) -> Mapping[str, Mapping[str, Any]]:
    """What the files of a group say, by name. Files that cannot be read are left out."""
    found: dict[str, Mapping[str, Any]] = {}
    with contextlib.suppress(Exception):
        return {name: own for name, (own, _) in method_files().items()} if group == "method" else group_files(group)
    for name in choices(group):  # one of them is broken: find the others one by one
        with contextlib.suppress(Exception):
            found[name] = method_file(name)[0] if group == "method" else group_file(group, name)
    return found


def help_line(text: str) -> str:
    r"""The first sentence of a file's leading comment.

    Example:
        >>> help_line("# @package _global_\n# FORA, arXiv 2407.01425. At the\n# exit.\nmethod:")
        'FORA, arXiv 2407.01425.'
    """
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            lines.append(line.lstrip("# ").strip())
    return re.split(r"(?<=[\w)])(?<![A-Z])[.;] ", " ".join(lines) + " ")[0].strip().rstrip(".:;") + (
        "." if lines else ""
    )


def group_help(group: str) -> dict[str, str]:
    """What each choice of a group is, from the first comment in its file."""
    return {name: help_line((CONFIGS / group / f"{name}.yaml").read_text(errors="replace")) for name in choices(group)}
