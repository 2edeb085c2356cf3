"""Commands as a user types them, run in this process."""

import sys

from hydra.core.global_hydra import GlobalHydra
from typed import ROOT as ROOT
from typed import Said

from spectrum.commands import main
from spectrum.commands.guard import guarded

QUICK = ["model.steps=7", "batch=2", "prompts.limit=2", "timing=0", "probe=0"]
"""What makes `run` sample two pictures of the embedded model in seconds."""

UNREAD = "not read: give `capsys` to see what the command printed"


def call(name, *words, capsys=None) -> Said:
    """Run `spectrum NAME WORDS` as `run.py` and `scripts/*.py` do. What it printed can be read with `capsys` alone."""
    argv = list(sys.argv)
    try:
        code = main([name, *map(str, words)])
    finally:
        sys.argv = argv
        GlobalHydra.instance().clear()
    printed = capsys.readouterr() if capsys else (UNREAD, UNREAD)
    return Said(code, *printed)


def script(module, *words, capsys, monkeypatch) -> Said:
    """Run a script that is no command of `spectrum`, as it runs itself."""
    monkeypatch.setattr(sys, "argv", [f"{module.__name__}.py", *map(str, words)])
    code = guarded(module.main)
    printed = capsys.readouterr()
    return Said(code, printed.out, printed.err)


def error_line(said: Said) -> str:
    """The one line on standard error with which a command refused its input."""
    assert said.code == 2, said
    (line,) = said.err.splitlines()
    assert line.startswith("error: ") and "Traceback" not in said.out
    return line
