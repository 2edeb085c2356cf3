"""What the commands share: one clear line for bad input, and an exit code."""

import errno
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from spectrum.errors import SpectrumError, refuse
from spectrum.files import known_keys, names, unknown_key


def guarded(main: Callable[[], Any], models: bool = True) -> int:
    """Call `main`; 0, or the exit code after one line on standard error. `models`: it loads some, so `quiet` them.

    2 for bad input, 3 for a machine that cannot go on (disk full, no permission), 130 for Ctrl-C. Anything else is a
    defect and keeps its traceback.
    """
    if models:
        quiet()
    try:
        main()
    except SpectrumError as error:
        return _say(str(error), 2)
    except (HydraException, OmegaConfBaseException) as error:
        return _say(_config_line(error), 2)
    except KeyboardInterrupt:
        return _say("interrupted; finished samples are kept, the same command goes on from there", 130)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS, errno.EPERM):
            raise
        where = f" at {error.filename}" if error.filename else ""
        return _say(f"{error.strerror}{where}: finished samples are kept; free it, and the same command goes on", 3)
    return 0


def pairs(words: Iterable[str], known: Sequence[str], usage: str) -> dict[str, str]:
    """The `key=value` words of a command line as a dict. Refuses a key that is not `known`, with the `usage`."""
    given = {key: value for key, _, value in (word.partition("=") for word in words)}
    for key in given:
        if key not in known:
            refuse(f"unknown option {key}: type {usage}")
    return given


def quiet() -> None:
    """Keep the libraries' notices out of the output; errors stay."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
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


def _config_line(error: Exception) -> str:
    text = str(error)
    key = re.search(r"Could not override '([^']+)'", text) or re.search(r"full_key: (\S+)", text)
    if key:
        return unknown_key(key[1], known_keys())
    choice = re.search(r"Could not find '(\w+)/([^']+)'", text)
    if choice:
        return f"there is no {choice[1]}={choice[2]}; there are {', '.join(names(choice[1]))}"
    return " ".join(text.split())[:300]
