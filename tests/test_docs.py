"""The documentation: each "add a ..." page is followed word by word, and what the pages quote exists.

On those pages a block with a file name is written to that file, a `bash` block is typed, and a `text` block behind it
says what is printed. A person who follows a page does the same.
"""

import importlib
import json
import re
import shlex
import shutil
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path

import pytest
from toys import aura_flow, toy_flux
from typed import Said, typed

import spectrum
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


def type_commands(commands: str, folder: Path) -> Said:
    """Type commands in a folder, with `python` the one that runs the tests; the first that fails ends them."""
    said = Said(0, "", "")
    for line in commands.splitlines():
        program, *words = shlex.split(line)
        shell = [*shlex.shlex(line, posix=True, punctuation_chars=True)]
        assert not {"(", ")", ";", "<", ">", "|", "&"} & {mark for word in shell for mark in word[:1]}, line
        if program == "cat":
            now = Said(0, (folder / words[0]).read_text(), "")
        else:
            assert program == "python", f"only `python` and `cat` can be typed here, and not {line}"
            now = typed(*words, folder=folder, COLUMNS="80")
        said = Said(now.code, said.out + now.out, said.err + now.err)
        if now.code:
            break
    return said


def flat(text: str) -> str:
    """A text on one line, so that it does not matter where a terminal breaks it."""
    return " ".join(text.split())


def check_printed(block: Block, done: Said) -> None:
    """Check that each line of a `text` block was printed, in this order, and whether the command had to fail."""
    refused = block.title == "is refused with"
    assert done.code == (2 if refused else 0), done.out + done.err
    rest = flat(done.err if refused else done.out)
    for line in block.body.splitlines():
        assert flat(line) in rest, f"{line!r} was not printed after what the page says came before: {done.out}"
        rest = rest.partition(flat(line))[2]


def follow(page: str, folder: Path) -> int:
    """Do what a page says; the number of commands that were typed."""
    shutil.copytree(ROOT, folder, ignore=LEFT_OUT)
    blocks, count = blocks_of(page), 0
    for number, block in enumerate(blocks):
        if block.language == "bash":
            told = blocks[number + 1]
            assert told.language == "text", f"{page} does not say what {block.body} prints"
            check_printed(told, type_commands(block.body, folder))
            count += 1
        elif block.title is not None and block.language != "text":
            write_block(block, folder)
    return count


@pytest.mark.docs
@pytest.mark.parametrize(
    ("page", "commands"),
    [("add-a-method.md", 4), ("add-a-model.md", 4), ("add-a-metric.md", 2), ("add-a-table.md", 2)],
)
def test_a_page_that_adds_something_works_word_by_word(page, commands, tmp_path):
    assert follow(page, tmp_path / "project") == commands


@pytest.mark.docs
@pytest.mark.parametrize("page", ["add-a-method.md", "add-a-model.md"])
def test_what_a_page_says_of_your_own_code_works(page):
    (example,) = [b for b in blocks_of(page) if b.language == "python" and "from spectrum import" in b.body]
    pipe = toy_flux().pipe if page == "add-a-method.md" else aura_flow()
    try:
        scope: dict = {"pipe": pipe}
        exec(example.body, scope)
        assert scope["handle"].plan(50).nfe == 14
    finally:
        restore(pipe)


def test_the_metric_page_shows_the_keys_of_a_record():
    (example,) = [b for b in blocks_of("add-a-metric.md") if b.language == "json"]
    shown = json.loads(f"{{{example.body}}}")["mae"]
    own = {entry.name for entry in fields(MetricEntry)}
    assert own - set(shown) == {"warning"} and not set(shown) - own


SKIPPING = "how-a-step-is-skipped.md"
NOT_OURS = {
    "cond", "uncond", "name", "norm_out", "times", "target", "span", "exit", "output", "modules", "probe",
}  # fmt: skip
"""What the page quotes that is no name of the code: values, arguments, names of diffusers."""


def quoted(page: str) -> list[str]:
    """What a page has in single backticks."""
    prose = FENCE.sub("", (DOCS / page).read_text())
    return re.findall(r"`([^`\n]+)`", prose)


def test_the_excerpts_of_the_way_of_a_tensor_are_the_code():
    excerpts = [block for block in blocks_of(SKIPPING) if block.title is not None]
    assert len(excerpts) >= 8
    for excerpt in excerpts:
        lines = [line.strip() for line in (ROOT / excerpt.title).read_text().splitlines()]
        wanted = [line.strip() for line in excerpt.body.splitlines()]
        starts = [n for n, line in enumerate(lines) if line == wanted[0]]
        assert any(lines[n : n + len(wanted)] == wanted for n in starts), f"{excerpt.title} has no {excerpt.body}"


def test_every_name_on_the_way_of_a_tensor_exists():
    found = quoted(SKIPPING)
    files = [name for name in found if re.fullmatch(r"[\w/]+\.py", name)]
    modules = [importlib.import_module(name.removesuffix(".py").replace("/", ".")) for name in files]
    names = [name for name in found if re.fullmatch(r"[A-Za-z_][\w.]*", name) and name not in {*files, *NOT_OURS}]
    assert len(modules) > 10 and len(names) > 30
    for name in names:
        head, *rest = name.split(".")
        things = [vars(module)[head] for module in modules if head in vars(module)]
        assert things, f"no module that the page names has {name}"
        for part in rest:
            assert has_part(things[0], part), f"{head} has no {part}"


def has_part(thing, part: str) -> bool:
    return hasattr(thing, part) or (is_dataclass(thing) and part in {entry.name for entry in fields(thing)})


FOLDERS = ("spectrum/", "eval/", "baselines/", "configs/", "scripts/", "tests/", "results/", "docs/")
NOT_YET = {"results/records/ID.json", "configs/method/NAME.yaml"}
"""Patterns of names, which no file has."""


@pytest.mark.parametrize(
    "page", [*sorted(path.name for path in DOCS.glob("*.md")), "../README.md", "../CONTRIBUTING.md"]
)
def test_every_path_that_a_page_names_exists(page):
    made = {block.title.partition(" (")[0] for block in blocks_of(page) if block.title}
    paths = {name for name in quoted(page) if name.startswith(FOLDERS) and re.fullmatch(r"[\w./-]+", name)}
    missing = {path for path in paths - made - NOT_YET if not (ROOT / path).exists()}
    assert not missing


def test_every_page_is_in_the_navigation():
    listed = re.findall(r": ([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M)
    assert sorted(listed) == sorted(path.name for path in DOCS.glob("*.md"))


def test_the_documentation_fetches_nothing():
    """Web fonts, a repository's star count and mermaid are what the theme would fetch when a page is read."""
    settings = (ROOT / "mkdocs.yml").read_text()
    assert re.search(r"^  font: false$", settings, re.M) and not re.search(r"^repo_url", settings, re.M)
    for path in DOCS.rglob("*"):
        if path.suffix in (".md", ".css", ".svg"):
            text = path.read_text()
            assert "```mermaid" not in text and "@import" not in text
            assert not re.search(r"(src=|url\(|!\[[^]]*\]\()\W*https?:", text), path


def test_the_public_names_of_the_api_page_are_those_of_the_package():
    named = set(re.findall(r"`spectrum\.(\w+)`", (DOCS / "api.md").read_text().partition("## ")[0]))
    assert named == set(spectrum.__all__)
