"""The commands: arguments in, one call, text out. `spectrum COMMAND` and the files in `scripts/` both end here."""

import importlib
import sys
from typing import Any

COMMANDS = {
    "run": "sample a model in full and with a caching method, and compare",
    "plan": "print what a method will do on a model: run steps, weights, bytes",
    "models": "list the model families",
    "probe": "try the hook on toys of all denoiser classes of the installed diffusers",
    "calibrate": "fit what a method needs on a model",
    "fit": "find the run steps and weights for a number of block runs",
    "plans": "fit the plans of a study, and sample held-out prompts with each",
    "trace": "keep every step of one full run",
    "replay": "score forecasts and schedules on a trace",
    "study": "error against distance, and ablations, from a trace",
    "bench": "measure this machine, and estimate what models would take on it",
    "timing": "time all rows of tables together, into their records",
    "tables": "make the tables from records",
    "figures": "draw the figures from records",
    "submit": "check a method by others, and put it on the leaderboard",
    "dashboard": "build the W&B workspace and report",
    "fetch": "download a model's weights, a prompt list or a metric's files",
}
"""Every command with what it does. Each is a module here with a function `main(words)`."""


OWN = ("spectrum", "baselines", "eval")
"""The project's packages: one that is missing is a defect, and keeps its traceback."""


def main(words: list[str] | None = None) -> int:
    """Run a command.

    Args:
        words: the command's name and its arguments; by default those of the process.

    Returns:
        The exit code: 0, 2 for bad input, 3 for a machine that cannot go on, 130 for Ctrl-C.
    """
    from spectrum.commands.guard import guarded

    words = sys.argv[1:] if words is None else words
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    name, rest = words[0], words[1:]
    return guarded(lambda: _call(name, rest))


def _call(name: str, words: list[str]) -> Any:
    """Import a command's module and run it.

    Raises:
        SpectrumError: for an unknown command, and for a package that the light installation leaves out.
    """
    from spectrum.commands.guard import nearest
    from spectrum.core.errors import SpectrumError, refuse

    if name not in COMMANDS:
        refuse(f"there is no command {name}{nearest(name, COMMANDS)}: type spectrum --help")
    try:
        return importlib.import_module(f"spectrum.commands.{name}").main(words)
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        if package in OWN:
            raise
        extra, lock = ("wandb", "requirements-eval.lock") if "wandb" in package else ("bench", "requirements.lock")
        raise SpectrumError(
            f"spectrum {name} needs the package {package}, which is not installed: type pip install '.[{extra}]' or "
            f"pip install -r {lock} in the project's checkout"
        ) from None


def overview() -> str:
    """The help text of the console command."""
    lines = [f"  {name:10} {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        ["spectrum COMMAND [key=value ...]", "", *lines, "", "spectrum COMMAND --help says what a command takes."]
    )
