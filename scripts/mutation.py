"""Plant a small change in every line of the core, one at a time, and list those that no test notices.

python scripts/mutation.py folder=/tmp/mutants                        # all of it: hours
python scripts/mutation.py folder=/tmp/mutants only="baselines.*"     # what one pattern names
python scripts/mutation.py folder=/tmp/mutants report=true            # write tests/mutation.md from what has been run

mutmut (`pip install mutmut==3.8.1`) makes the changes and runs the tests that reach each of them, of those marked
`fast` or `hooks`, in a copy of the committed files. It leaves functions with a decorator alone, so in the copy each
decorator is written as the call that it stands for. Error messages are not changed: what they say is a matter of words.
"""

import ast
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from spectrum.commands.guard import guarded, options, wants_help
from spectrum.core.errors import refuse

USAGE = "python scripts/mutation.py folder=FOLDER [only=PATTERN] [tests=FILES] [report=true]"
OPTIONS = {
    "folder": "where the copy and its changed files go; a second call goes on there. For a report, several with commas",
    "only": "mutmut's patterns of functions to change, with commas, such as spectrum.core.*; all by default",
    "tests": "names of test files, with commas; all that are marked by default. Fewer are quicker, and notice less",
    "report": "true writes tests/mutation.md from the results there are, without running anything",
}
SUBJECTS = (
    "spectrum/core/*", "spectrum/hooks/*", "baselines/*", "spectrum/bench/timing.py", "eval/statistics.py",
    "eval/metrics/*", "eval/tables/*",
)  # fmt: skip
UNAWARE = (
    "tests/test_imports.py",
    "tests/test_private_api.py::test_private_names_are_imported_and_read_in_one_place_only",
    "tests/test_tables.py::test_torch_is_not_imported",
    "tests/test_machines.py::test_ranks_that_share_a_denoiser_each_keep_their_part",
    "tests/test_composition.py::test_15_a_denoiser_compiled_whole_has_a_graph",
    "tests/test_composition.py::test_15_what_decides_by_data_before_the_blocks_works_on_a_compiled",
)
"""Tests that see no change made within one process: they read source files, start processes, or compile a denoiser,
which the wrappers that mutmut puts around functions prevent."""
REPORT = ROOT / "tests/mutation.md"
KILLED, NOT_RUN, OPEN = "noticed", "not run", "not explained yet"
VERDICTS = {0: "survived", 5: "not reached", 33: "not reached", None: NOT_RUN}
"""mutmut's exit codes; any other is a test run that failed, broke down, or never ended."""


def main() -> None:
    """Make the changes, run the tests, write the report."""
    words = sys.argv[1:]
    if wants_help(words, __doc__ or "", OPTIONS):
        return
    given = options(words, OPTIONS, USAGE)
    if "folder" not in given:
        refuse(f"in which folder? type {USAGE}")
    folders = [Path(name).resolve() for name in given["folder"].split(",")]
    folder = folders[0]
    if not (folder / "pyproject.toml").exists():
        prepare(folder, given.get("tests", "").split(","))
    mutmut = Path(sys.executable).parent / "mutmut"
    if not mutmut.exists():
        refuse("mutmut is not installed: pip install mutmut==3.8.1")
    if given.get("report") != "true":
        pattern = given["only"].split(",") if "only" in given else []
        subprocess.run([mutmut, "run", "--max-children", "2", *pattern], cwd=folder, check=False)
    write_report(folders, mutmut)


def prepare(folder: Path, tests: list[str]) -> None:
    """Copy the committed files, decorators written as calls, with mutmut's settings."""
    subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
    tracked = subprocess.run(["git", "ls-files"], cwd=folder, check=True, capture_output=True, text=True).stdout.split()
    for pattern in SUBJECTS:
        for path in folder.glob(pattern):
            if path.suffix == ".py":
                path.write_text(plain_messages(without_decorators(path.read_text())))
    packages = ("spectrum", "baselines", "eval")
    chosen = [f"tests/{name}" if name else "tests" for name in tests]
    settings = {
        "source_paths": packages,
        "only_mutate": SUBJECTS,
        "also_copy": sorted({name.partition("/")[0] for name in tracked} - {*packages, "tests"}),
        "pytest_add_cli_args": ["-n", "0", "-p", "no:cacheprovider", "--strict-markers"],
        "pytest_add_cli_args_test_selection": [
            *chosen,
            "-m",
            "fast or hooks",
            *(f"--deselect={test}" for test in UNAWARE),
        ],
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    lines += ["use_git_change_detection = false", "track_dependencies = false"]
    with (folder / "pyproject.toml").open("a") as file:
        file.write("\n[tool.mutmut]\n" + "\n".join(lines) + "\n")


def without_decorators(source: str) -> str:
    r"""The source with `@d` above `def f` written as `f = d(f)` after it, but for static and class methods.

    Example:
        >>> print(without_decorators("@cache\\ndef f():\n    return 1\n"))
        def f():
            return 1
        f = cache(f)
        <BLANKLINE>
    """
    lines = source.splitlines()
    found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef) and node.decorator_list]
    for node in sorted(found, key=lambda node: -node.lineno):
        names = [ast.unparse(decorator) for decorator in node.decorator_list]
        if any(name in ("staticmethod", "classmethod") or name.endswith(".setter") for name in names):
            continue
        call = node.name
        for name in reversed(names):
            call = f"{name}({call})"
        lines.insert(node.end_lineno or 0, f"{' ' * node.col_offset}{node.name} = {call}")
        del lines[node.decorator_list[0].lineno - 1 : node.lineno - 1]
    return "\n".join(lines) + "\n"


def plain_messages(source: str) -> str:
    """The source with every statement that raises an error marked as not to be changed."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        value = getattr(node, "value", None)
        refuses = isinstance(value, ast.Call) and ast.unparse(value.func) in ("refuse", "warnings.warn")
        if isinstance(node, ast.Raise) or (refuses and isinstance(node, (ast.Expr, ast.Return))):
            for number in range(node.lineno - 1, node.end_lineno or 0):
                lines[number] += "  # pragma: no mutate"
    return "\n".join(lines) + "\n"


@dataclass
class Part:
    """What came of the changes of one file.

    Attributes:
        changes: how many were run.
        noticed: how many of them a test noticed.
        left: (function, line as written, line as changed, reason) of each of the others.
    """

    changes: int
    noticed: int
    left: list[tuple[str, str, str, str]]


def write_report(folders: list[Path], mutmut: Path) -> None:
    """Bring `tests/mutation.md` up to date with what has been run: the counts, and each change that no test noticed.

    Files that were not run keep their lines, and a reason that the report gives already stays. A change without one is
    listed as `not explained yet`.
    """
    known = read_report(REPORT.read_text()) if REPORT.exists() else {}
    reasons = {(source, *row[:3]): row[3] for source, part in known.items() for row in part.left}
    parts = dict(sorted({**known, **results(folders, mutmut, reasons)}.items()))
    REPORT.write_text(rendered(parts))
    unexplained = sum(row[3].startswith(OPEN) for part in parts.values() for row in part.left)
    print(f"{share_noticed(parts)}, {unexplained} of those that stay are not explained")


def results(folders: list[Path], mutmut: Path, reasons: dict[tuple[str, ...], str]) -> dict[str, Part]:
    """What came of the changes that were run in some folders, by file; one that any of them noticed was noticed."""
    verdicts: dict[str, dict[str, tuple[str, Path]]] = {}
    for folder in folders:
        for meta in (folder / "mutants").rglob("*.py.meta"):
            source = str(meta.relative_to(folder / "mutants")).removesuffix(".meta")
            for name, code in json.loads(meta.read_text())["exit_code_by_key"].items():
                verdict = VERDICTS.get(code, KILLED)
                if verdict != NOT_RUN and verdicts.get(source, {}).get(name, ("", folder))[0] != KILLED:
                    verdicts.setdefault(source, {})[name] = verdict, folder
    parts = {}
    for source, found in verdicts.items():
        left = []
        for name, (verdict, folder) in found.items():
            if verdict != KILLED:
                row = change(name, folder, mutmut)
                left.append((*row, reasons.get((source, *row), f"{OPEN} ({verdict})")))
        parts[source] = Part(len(found), len(found) - len(left), left)
    return parts


def share_noticed(parts: dict[str, Part]) -> str:
    """How many changes of all files were noticed, as text."""
    changes, noticed = sum(part.changes for part in parts.values()), sum(part.noticed for part in parts.values())
    return f"{noticed} of {changes} changes noticed ({100 * noticed / max(changes, 1):.1f} %)"


def rendered(parts: dict[str, Part]) -> str:
    """The report as Markdown."""
    lines = [
        "# Changes that no test notices",
        "",
        "`python scripts/mutation.py folder=FOLDER` makes this file. mutmut changes one operator, number, name,",
        "argument or string at a time and runs the tests that reach it, of those marked fast or hooks; error messages",
        "are left as they are. A change after which the tests never end counts as noticed.",
        "",
        f"**{share_noticed(parts)}.**",
        "",
        "| file | changes | noticed | share |",
        "| --- | ---: | ---: | ---: |",
    ]
    for source, part in parts.items():
        lines.append(f"| {source} | {part.changes} | {part.noticed} | {100 * part.noticed / part.changes:.0f} % |")
    lines += ["", "## Those that stay"]
    for source, part in parts.items():
        if part.left:
            lines += [
                "",
                f"### {source}",
                "",
                "| function | written | changed to | why it stays |",
                "| --- | --- | --- | --- |",
            ]
            lines += [f"| `{function}` | `{old}` | `{new}` | {reason} |" for function, old, new, reason in part.left]
    return "\n".join(lines) + "\n"


def read_report(text: str) -> dict[str, Part]:
    """The parts of a report, as `rendered` wrote it."""
    parts: dict[str, Part] = {}
    source = ""
    for line in text.splitlines():
        if line.startswith("### "):
            source = line[4:]
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if not source and len(cells) == 4 and cells[1].isdecimal():
            parts[cells[0]] = Part(int(cells[1]), int(cells[2]), [])
        elif source and len(cells) == 4 and cells[0].startswith("`"):
            function, old, new = (cell.strip("`") for cell in cells[:3])
            parts[source].left.append((function, old, new, cells[3]))
    return parts


def change(name: str, folder: Path, mutmut: Path) -> tuple[str, str, str]:
    """The function of a change, the line as it is written, and the line that it becomes; of several lines all."""
    shown = subprocess.run([mutmut, "show", name], cwd=folder, check=True, capture_output=True, text=True).stdout
    body = [line for line in shown.splitlines() if not line.startswith(("---", "+++"))]
    old, new = (
        " ".join(line[1:].strip() for line in body if line.startswith(sign))
        .replace("  # pragma: no mutate", "")
        .replace("|", "\\|")
        .replace("`", "'")
        for sign in "-+"
    )
    function = re.sub(r"^x_|^xǁ|__mutmut_\d+$", "", name.rpartition(".")[2]).replace("ǁ", ".")
    return function, old, new


if __name__ == "__main__":
    guarded(main)
