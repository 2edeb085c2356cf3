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
KILLED, SURVIVED = "killed", "survived"
VERDICTS = {0: SURVIVED, 5: "not reached", 33: "not reached", 1: KILLED, 3: KILLED, None: "not run"}
"""mutmut's exit codes; any other is a test run that never ended or that broke down."""


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


def write_report(folders: list[Path], mutmut: Path) -> None:
    """Write `tests/mutation.md`: how many changes each part had, and each that no test noticed, with its reason.

    A reason that the file gives already stays; a change without one is listed as `not explained yet`.
    """
    reasons = known_reasons(REPORT.read_text()) if REPORT.exists() else {}
    parts: dict[str, list[int]] = {}
    lines: list[str] = []
    metas = {(str(m.relative_to(f / "mutants")), f): m for f in folders for m in (f / "mutants").rglob("*.py.meta")}
    for (name, folder), meta in sorted(metas.items()):
        source = name.removesuffix(".meta")
        codes: dict[str, int | None] = json.loads(meta.read_text())["exit_code_by_key"]
        verdicts = {name: VERDICTS.get(code, "timeout") for name, code in codes.items()}
        ran = {name: verdict for name, verdict in verdicts.items() if verdict != "not run"}
        if not ran:
            continue
        left = [name for name, verdict in ran.items() if verdict in (SURVIVED, "not reached")]
        parts[source] = [len(ran), len(ran) - len(left)]
        rows = [(*change(name, folder, mutmut), ran[name]) for name in left]
        if rows:
            lines += [
                f"\n### {source}\n",
                "| function | written | changed to | why it stays |",
                "| --- | --- | --- | --- |",
            ]
        for function, old, new, verdict in rows:
            reason = reasons.get((source, function, old, new)) or f"not explained yet ({verdict})"
            lines.append(f"| `{function}` | `{old}` | `{new}` | {reason} |")
    REPORT.write_text(heading(parts) + "\n".join(lines) + "\n")
    total, killed = (sum(counts[i] for counts in parts.values()) for i in (0, 1))
    open_ones = sum("not explained yet" in line for line in lines)
    print(f"{killed} of {total} changes noticed ({100 * killed / max(total, 1):.1f} %), {open_ones} not explained")


def heading(parts: dict[str, list[int]]) -> str:
    """The top of the report, with its table of counts."""
    total, killed = (sum(counts[i] for counts in parts.values()) for i in (0, 1))
    rows = [f"| {name} | {many} | {kill} | {100 * kill / many:.0f} % |" for name, (many, kill) in parts.items()]
    return "\n".join([
        "# Changes that no test notices\n",
        "`python scripts/mutation.py folder=FOLDER` makes this file. mutmut changes one operator, number, name, "
        "argument or string at a time and runs the tests that reach it, of those marked fast or hooks; "
        "error messages are left as they are. "
        f"Of {total} changes the tests noticed {killed}: {100 * killed / max(total, 1):.1f} %. "
        "A change after which the tests never end counts as noticed.\n",
        "| file | changes | noticed | share |", "| --- | ---: | ---: | ---: |", *rows,
        f"| all | {total} | {killed} | {100 * killed / max(total, 1):.1f} % |", "", "## Those that stay\n",
    ])  # fmt: skip


def change(name: str, folder: Path, mutmut: Path) -> tuple[str, str, str]:
    """The function of a change, the first line that it changes, and the line that it becomes."""
    shown = subprocess.run([mutmut, "show", name], cwd=folder, check=True, capture_output=True, text=True).stdout
    body = [line for line in shown.splitlines() if not line.startswith(("---", "+++"))]
    old, new = (
        " ".join(line[1:].strip() for line in body if line.startswith(sign))
        .replace("|", "\\|")
        .replace("  # pragma: no mutate", "")
        for sign in "-+"
    )
    function = re.sub(r"^x_|__mutmut_\d+$", "", name.rpartition(".")[2]).strip("xǁ").replace("ǁ", ".")
    return function, old, new


def known_reasons(text: str) -> dict[tuple[str, str, str, str], str]:
    """The reasons that a report gives, by file, function and change."""
    found, source = {}, ""
    for line in text.splitlines():
        if line.startswith("### "):
            source = line[4:]
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if source and len(cells) == 4 and not cells[3].startswith(("not explained", "why", "---")):
            function, old, new = (cell.strip("`") for cell in cells[:3])
            found[source, function, old, new] = cells[3]
    return found


if __name__ == "__main__":
    guarded(main)
