"""Change the code in one place at a time, run the tests on each changed version, and list the changes none notices.

python scripts/mutation.py folder=/tmp/mutants                        # all of it: hours
python scripts/mutation.py folder=/tmp/mutants only="baselines.*"     # the functions that a pattern names
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
    "tests": "names of test files, with commas, for a new folder; by default all. Fewer are quicker, and notice less",
    "report": "true writes tests/mutation.md from the results there are, and runs nothing",
}
SUBJECTS = (
    "spectrum/core/*", "spectrum/hooks/*", "baselines/*", "spectrum/bench/timing.py", "eval/statistics.py",
    "eval/metrics/*", "eval/tables/*",
)  # fmt: skip
UNAWARE = (
    "tests/test_imports.py",
    "tests/test_forecast.py::test_every_forecaster_declares_its_exact_degree",
    "tests/test_private_api.py::test_private_names_are_imported_and_read_in_one_place_only",
    "tests/test_tables.py::test_torch_is_not_imported",
    "tests/test_machines.py::test_ranks_that_share_a_denoiser_each_keep_their_part",
    "tests/test_composition.py::test_case_15_a_denoiser_compiled_whole_has_a_graph",
    "tests/test_composition.py::test_case_15_what_decides_by_data_before_the_blocks_works_on_a_compiled",
)
"""Tests that are left out. mutmut changes functions in memory: tests that read source files or start processes see no
change; and torch cannot compile a denoiser through the functions that mutmut wraps."""
REPORT = ROOT / "tests/mutation.md"
KILLED, NOT_RUN, OPEN = "noticed", "not run", "not explained yet"
FAILED = (1, 3, -11, 24, -24, 36, 152, 255)
VERDICTS = {0: "survived", 5: "not reached", 33: "not reached", **dict.fromkeys(FAILED, KILLED)}
"""mutmut's exit codes: a test failed (1), pytest or Python broke down (3, -11), the tests did not end (the others of
`FAILED`). A run that was interrupted or skipped counts as not run."""


def main() -> None:
    """Make the changes, run the tests, write the report."""
    words = sys.argv[1:]
    if wants_help(words, __doc__ or "", OPTIONS):
        return
    given = options(words, OPTIONS, USAGE)
    folders = _folders(given)
    mutmut = Path(sys.executable).parent / "mutmut"
    if not mutmut.exists():
        refuse("mutmut is not installed: pip install mutmut==3.8.1")
    known = read_report(REPORT.read_text()) if REPORT.exists() else {}
    if given.get("report") == "true":
        parts = merged(known, results(folders, mutmut))
        REPORT.write_text(rendered(parts))
        unexplained = sum(row[3].startswith(OPEN) for part in parts.values() for row in part.left)
        print(f"{REPORT}: {share_noticed(parts)}, {unexplained} of those that stay are not explained")
        return
    if not (folders[0] / "pyproject.toml").exists():
        prepare(folders[0], given.get("tests", "").split(","))
    pattern = given["only"].split(",") if "only" in given else []
    if subprocess.run([mutmut, "run", "--max-children", "2", *pattern], cwd=folders[0], check=False).returncode:
        refuse("mutmut broke off: type the command again, and it goes on where it stopped")
    print(f"to write tests/mutation.md: python scripts/mutation.py folder={given['folder']} report=true")


def _folders(given: dict[str, str]) -> list[Path]:
    """The folders that are named, checked together with the other options."""
    if "folder" not in given:
        refuse(f"in which folder? type {USAGE}")
    if given.get("report", "true") != "true":
        refuse(f"report={given['report']} is unknown: type report=true, or leave it out")
    folders = [Path(name).resolve() for name in given["folder"].split(",")]
    if "report" not in given and len(folders) > 1:
        refuse("changes are run in one folder: several are for report=true")
    for folder in folders:
        settings = folder / "pyproject.toml"
        there = settings.is_file() and "[tool.mutmut]" in settings.read_text()
        if folder.is_relative_to(ROOT):
            refuse(f"folder={folder} lies in the project, whose files are copied there: type one outside of it")
        if "report" in given and not there:
            refuse(f"folder={folder} holds no results: type the folder of an earlier call")
        if folder.exists() and not there and (not folder.is_dir() or any(folder.iterdir())):
            refuse(f"folder={folder} has something else in it: type a new one")
        if "tests" in given and there:
            refuse(f"folder={folder} has its tests chosen already: leave tests= out, or type a new folder")
    return folders


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


def results(folders: list[Path], mutmut: Path) -> dict[str, Part]:
    """What came of the changes that were run in some folders, by file; one that any of them noticed was noticed.

    A file of which a change was not run in any of the folders is left out, with a line that says so.
    """
    verdicts: dict[str, dict[str, tuple[str, Path]]] = {}
    for folder in folders:
        for meta in (folder / "mutants").rglob("*.py.meta"):
            found = verdicts.setdefault(str(meta.relative_to(folder / "mutants")).removesuffix(".meta"), {})
            for name, code in json.loads(meta.read_text())["exit_code_by_key"].items():
                before = found.get(name, (NOT_RUN, folder))[0]
                verdict = VERDICTS.get(code, NOT_RUN)
                if before == NOT_RUN or verdict == KILLED:
                    found[name] = verdict, folder
    parts = {}
    for source, found in verdicts.items():
        lacking = sum(verdict == NOT_RUN for verdict, _ in found.values())
        if found and not lacking:
            left = [(*change(name, folder, mutmut), f"{OPEN} ({verdict})")
                    for name, (verdict, folder) in found.items() if verdict != KILLED]  # fmt: skip
            parts[source] = Part(len(found), len(found) - len(left), left)
        elif lacking < len(found):
            print(f"{source}: {lacking} of {len(found)} changes were not run, so its lines stay as they are")
    return parts


def merged(known: dict[str, Part], found: dict[str, Part]) -> dict[str, Part]:
    """A report brought up to date: files that were not run keep their lines, and changes that stay their reasons.

    Args:
        known: the parts of the report that there is, by file.
        found: those of the files that were run.
    """
    reasons = {(source, *row[:3]): row[3] for source, part in known.items() for row in part.left}
    for source, part in found.items():
        part.left = [(*row[:3], reasons.get((source, *row[:3]), row[3])) for row in part.left]
    return dict(sorted({**known, **found}.items()))


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
    sys.exit(guarded(main))
