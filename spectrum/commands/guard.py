"""What the commands share: one clear line for bad input, an exit code, `key=value` options and help."""

import difflib
import errno
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError

from spectrum.core.errors import SpectrumError, refuse

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS, errno.EPERM)
NO_FOLDER = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EROFS, errno.EEXIST)
MAKING = ("mkdir", "makedirs", "write_bytes")
"""The functions that fail with one of these where a folder cannot be made, or where there is one in a file's place."""


def guarded(main: Callable[[], Any]) -> int:
    """Call a command's function, and turn its errors into one line on standard error and an exit code.

    Args:
        main: the function.

    Returns:
        What `main` returns if that is an exit code, else 0; 2 for bad input, 3 for a machine that cannot go on (disk
        full, no permission), 130 for Ctrl-C, 1 or 141 where what reads the output has ended (`| head`). Any
        other error is a defect and keeps its traceback.
    """
    try:
        found = main()
        sys.stdout.flush()
        return found if isinstance(found, int) else 0
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        return _say("interrupted; finished samples are kept, the same command goes on from there", 130)
    except Exception as error:
        line = bad_input(error)
        if line is not None:
            return _say(line, 2)
        if isinstance(error, OSError) and error.errno in FULL_DISK:
            where = f" at {error.filename}" if error.filename else ""
            line = f"{error.strerror}{where}: finished samples are kept; free it, and the same command goes on"
            return _say(line, 3)
        raise


def bad_input(error: Exception) -> str | None:
    """The line that says what to type, if an error is one of bad input; None for a defect or a failing machine."""
    if isinstance(error, SpectrumError):
        return str(error)
    if isinstance(error, (HydraException, OmegaConfBaseException)) or _from_hydra(error):
        from spectrum.config.messages import config_message

        return config_message(error)
    if isinstance(error, YAMLError):
        return _bad_yaml(error)
    if isinstance(error, UnicodeDecodeError) and any("load_config" in f.name for f in _frames(error)):
        return f"a config file is no UTF-8 text ({error}): save it as UTF-8"
    if isinstance(error, OSError) and error.errno in NO_FOLDER and any(f.name in MAKING for f in _frames(error)):
        return f"{error.filename2 or error.filename} cannot be written ({error.strerror}): name another folder"
    return None


def _bad_yaml(error: YAMLError) -> str:
    """The file and the line at which YAML cannot be read, where the error says so."""
    mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
    where = f"{mark.name}, line {mark.line + 1}" if mark else "a config file"
    reason = getattr(error, "problem", None) or " ".join(str(error).split())
    return f"{where} is no YAML ({reason}): correct that line"


def _frames(error: Exception) -> list[traceback.FrameSummary]:
    return list(traceback.extract_tb(error.__traceback__))


def _from_hydra(error: Exception) -> bool:
    """Whether a ValueError was raised by Hydra itself while it composed."""
    return isinstance(error, ValueError) and f"{os.sep}hydra{os.sep}" in _frames(error)[-1].filename


def options(words: Sequence[str], known: Mapping[str, str], usage: str) -> dict[str, str]:
    """The `key=value` words of a command line.

    Args:
        words: the words.
        known: the keys that the command takes, each with what it means.
        usage: the command line to show.

    Returns:
        The values by key.

    Raises:
        SpectrumError: for a word that is no `key=value`, an unknown key, and a key that is given twice.

    Example:
        >>> options(["to=tables"], {"to": "a folder"}, "spectrum tables [to=FOLDER]")
        {'to': 'tables'}
    """
    given: dict[str, str] = {}
    for word in words:
        key, sign, value = word.partition("=")
        if not sign or key not in known:
            refuse(f"unknown option {word}{nearest(key, known)}: type {usage}")
        if key in given:
            refuse(f"{key} is given twice: type {usage}")
        given[key] = value
    return given


def split_options(words: Sequence[str], known: Mapping[str, str], usage: str) -> tuple[dict[str, str], list[str]]:
    """The options of a command that also takes a config.

    Args:
        words: the command line.
        known: the command's own keys, each with what it means.
        usage: the command line to show.

    Returns:
        (the values of its own keys, the other words, which are the config's overrides).

    Raises:
        SpectrumError: for a key of its own that is given twice.

    Example:
        >>> split_options(["format=json", "method=fora"], {"format": "text, or json"}, "spectrum plan")
        ({'format': 'json'}, ['method=fora'])
    """
    own = [word for word in words if word.partition("=")[0] in known]
    return options(own, known, usage), [word for word in words if word not in own]


def with_defaults(words: Sequence[str], *defaults: str) -> list[str]:
    """Overrides of a config, behind those of a command's defaults whose keys they do not name.

    Args:
        words: the overrides that were typed.
        *defaults: the command's own.

    Example:
        >>> with_defaults(["prompts.limit=2"], "prompts=calibration", "prompts.limit=8")
        ['prompts=calibration', 'prompts.limit=2']
    """
    typed = {word.partition("=")[0] for word in words}
    return [*(word for word in defaults if word.partition("=")[0] not in typed), *words]


def nearest(name: str, known: Collection[str]) -> str:
    """`, did you mean X?` for the nearest known name; empty if none is near."""
    found = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {found[0]}?)" if found else ""


def truth(key: str, given: Mapping[str, str], untyped: bool = False) -> bool:
    """Whether an option of a command says true.

    Args:
        key: the option.
        given: the options that were typed.
        untyped: what it is where it is not typed.

    Raises:
        SpectrumError: if it says anything else than true or false.
    """
    value = given.get(key, "true" if untyped else "false")
    if value not in ("true", "false"):
        refuse(f"{key}={value} is unknown: type {key}=true or {key}=false")
    return value == "true"


def wants_help(words: Sequence[str], text: str, known: Mapping[str, str]) -> bool:
    """Print a command's help if it is asked for.

    Args:
        words: the command line.
        text: what the command does, with its usage: its module's docstring.
        known: the options that it takes, each with what it means.

    Returns:
        Whether help was asked for.
    """
    if not any(word in ("-h", "--help", "help") for word in words):
        return False
    print(text.strip())
    if known:
        print()
        print("\n".join(f"  {key + '=':12} {meaning}" for key, meaning in known.items()))
    return True


def records_folder(folder: Path) -> Path:
    """Check that a folder has records, before anything heavy is done.

    Args:
        folder: the folder that `records=` names.

    Returns:
        The folder.

    Raises:
        SpectrumError: if it is missing, a file, or holds no record.
    """
    if folder.is_file():
        refuse(f"records={folder} is a file: type records=FOLDER")
    if not folder.is_dir():
        refuse(f"there is no folder {folder}: make records with python run.py records={folder}")
    if not any(folder.glob("*.json")):
        refuse(f"{folder} holds no record: make records with python run.py records={folder}")
    return folder


def quiet() -> None:
    """Keep the libraries' notices and progress bars out of the output; errors stay. Nothing is looked up on the hub."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler
    warnings.filterwarnings("ignore")
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def _say(line: str, code: int) -> int:
    print(f"error: {line}" if code != 130 else f"\n{line}", file=sys.stderr)
    return code


def number(given: Mapping[str, str], key: str, default: int) -> int:
    """The value of an option that counts something.

    Args:
        given: the options, see `options`.
        key: which one.
        default: its value where it was not typed.

    Raises:
        SpectrumError: for anything but a whole number of at least 1.
    """
    text = given.get(key, str(default))
    if not text.isdecimal() or int(text) == 0:
        refuse(f"{key}={text} is no number of at least 1: type {key}={default}")
    return int(text)
