"""The documentation: each "add a ..." page is followed word by word, and what the pages quote exists.

On those pages a block with a file name is written to that file, a `bash` block is typed, and a `text` block behind it
says what is printed. A person who follows a page does the same.
"""

import ast
import importlib  # noqa
import inspect
import os
import re
import shutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path

import diffusers
import pytest
from toys import toy_flux

from spectrum import restore
from spectrum.records.record import MetricEntry

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
FENCE = re.compile(
    r"^```(?P<language>\w+)(?: title=(?P<quote>[\"'])(?P<title>.*?)(?P=quote))?\n(?P<body>.*?)^```$", re.M | re.S
)
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "outputs", "multirun", "__pycache__", ".*_cache")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    title: str | None
    body: str


def blocks_of(page: str) -> list[Block]:
    text = (DOCS / page).read_text()
    return [Block(found["language"], found["title"], found["body"]) for found in FENCE.finditer(text)]


def write_block(block: Block, folder: Path) -> None:
    """Write a block to the file that its title names, as the title says."""
    name, _, how = (block.title or "").partition(" (")
    path, how = folder / name, how.removesuffix(")")
    if not how:
        assert not path.exists(), f"{name} is there already"
        path.write_text(block.body)
        return
    text = path.read_text()
    if how == "add at the end":
        path.write_text(f"{text}\n\n{block.body}")
        return
    line = how.removeprefix("add below the line: ")
    assert line != how, f"the title {block.title} says nothing that can be done"
    lines = text.splitlines(keepends=True)
    (number,) = [n for n, found in enumerate(lines) if line in found]
    path.write_text("".join([*lines[: number + 1], block.body, *lines[number + 1 :]]))


def type_commands(commands: str, folder: Path) -> subprocess.CompletedProcess:
    """Type commands in a folder, with `python` the one that runs the tests; the first that fails ends them."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "PYTHON"))}
    environment |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "80"}
    environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        ["bash", "-ec", commands], cwd=folder, env=environment, text=True, capture_output=True, timeout=300
    )


def flat(text: str) -> str:
    """A text on one line, so that it does not matter where a terminal breaks it."""
    return " ".join(text.split())


def check_printed(block: Block, done: subprocess.CompletedProcess) -> None:
    """Check that each line of a `text` block was printed, in this order, and whether the command had to fail."""
    refused = block.title == "is refused with"
    assert done.returncode == (2 if refused else 0), done.stdout + done.stderr
    rest = flat(done.stderr if refused else done.stdout)
    for line in block.body.splitlines():
        assert flat(line) in rest, f"{line!r} was not printed after what the page says came before: {done.stdout}"
        rest = rest.partition(flat(line))[2]


def follow(page: str, folder: Path) -> int:
    """Do what a page says; the number of commands that were typed."""
    shutil.copytree(ROOT, folder, ignore=LEFT_OUT)
    blocks, typed = blocks_of(page), 0
    for number, block in enumerate(blocks):
        if block.language == "bash":
            told = blocks[number + 1]
            assert told.language == "text", f"{page} does not say what {block.body} prints"
            check_printed(told, type_commands(block.body, folder))
            typed += 1
        elif block.title is not None and block.language != "text":
            write_block(block, folder)
    return typed


@pytest.mark.docs
@pytest.mark.parametrize(
    ("page", "commands"),
    [("add-a-method.md", 4), ("add-a-model.md", 3), ("add-a-metric.md", 2), ("add-a-table.md", 2)],
)
def test_a_page_that_adds_something_works_word_by_word(page, commands, tmp_path):
    assert follow(page, tmp_path / "project") == commands
