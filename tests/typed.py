"""Commands as processes of their own, without the seconds in which each would import what all of them import.

A process that has imported torch, diffusers and what else takes long waits for commands, and forks for each. The fork
has imported nothing of this project: it finds the code in the folder in which the command is typed.

Forks of one process share what processes of their own would not: the seed of string hashes, the modules that are
imported, and what was read from the environment at import (`PYTHON*`, `OMP_NUM_THREADS`, `HF_*`). A test of one of
these starts an interpreter of its own.
"""

import contextlib
import functools
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

IMPORTED = ("torch", "torch._dynamo", "diffusers.hooks", "diffusers.pipelines.flux.pipeline_flux", "transformers",
            "transformers.models.clip.modeling_clip", "peft", "scipy.stats", "matplotlib.pyplot", "matplotlib.image",
            "hydra.main", "rich.console", "rich.table")  # fmt: skip
ROOT = Path(__file__).resolve().parent.parent
LIMIT = 600
"""Seconds after which a command is ended by SIGALRM."""


class Said(NamedTuple):
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str


def typed(*words: object, folder: Path = ROOT, **environment: str) -> Said:
    """Type `python WORDS` in a folder.

    Args:
        words: a script and its arguments, or `-m`, a module and its arguments.
        folder: where it is typed.
        environment: variables that are set beside those of this process.

    Raises:
        RuntimeError: if the process that forks has ended.
    """
    with tempfile.TemporaryDirectory() as texts:
        out, err = Path(texts) / "out", Path(texts) / "err"
        variables = {**os.environ, **environment}
        asked = {"words": [str(word) for word in words], "folder": str(folder), "environment": variables,
                 "out": str(out), "err": str(err)}  # fmt: skip
        server = _server()
        assert server.stdin is not None and server.stdout is not None
        server.stdin.write(json.dumps(asked) + "\n")
        server.stdin.flush()
        code = server.stdout.readline()
        if not code:
            _server.cache_clear()
            raise RuntimeError(f"the process that forks has ended with exit code {server.wait()}")
        return Said(int(code), out.read_text(), err.read_text())


@functools.cache
def _server() -> subprocess.Popen[str]:
    """The process that forks, one for each that runs tests; it ends with the pipe to it."""
    own = [sys.executable, __file__]
    return subprocess.Popen(own, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def serve() -> None:
    """Fork for each line of standard input, wait for the fork, and print its exit code."""
    sys.path[:] = [path for path in sys.path if path and Path(path).resolve() != Path(__file__).resolve().parent]
    for name in IMPORTED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            become(**json.loads(line))
            return
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


def become(words: list[str], folder: str, environment: dict[str, str], out: str, err: str) -> None:
    """Run a command in this process, as `python WORDS` would."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, (path, how) in enumerate(((os.devnull, os.O_RDONLY), (out, os.O_WRONLY), (err, os.O_WRONLY))):
        opened = os.open(path, how | os.O_CREAT)
        os.dup2(opened, number)
        os.close(opened)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    signal.alarm(LIMIT)
    sys.path[:0] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    if words[0] == "-m":
        sys.argv, run = words[1:], functools.partial(runpy.run_module, words[1], alter_sys=True)
        sys.path.insert(0, folder)
    else:
        sys.argv, run = words, functools.partial(runpy.run_path, words[0])
        sys.path.insert(0, str(Path(words[0]).resolve().parent))
    run(run_name="__main__")


if __name__ == "__main__":
    serve()
