"""Builds the package, in which the checkout's folders `eval`, `baselines` and `configs` lie inside `spectrum`.

In a checkout they are top-level folders, which a reader finds at once. In a user's environment top-level packages with
such common names would collide with others, so a build copies them to `spectrum/eval`, `spectrum/baselines` and
`spectrum/configs`, and changes the import statements of the copies. An editable install (`pip install -e .`) leaves the
folders where they are and adds the checkout to the path.
"""

import ast
import shutil
from pathlib import Path
from typing import Any

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

ROOMS = ("eval", "baselines")
"""The top-level packages of the checkout that become subpackages of `spectrum`."""
DATA = ["assets/**/*", "*.html", "*.j2", "*.css", "*.js"]


def moved_imports(source: str) -> str:
    """A module's source with its imports of the rooms turned into imports from inside `spectrum`.

    Only import statements change, at the positions that the syntax tree gives; strings and comments stay.

    Args:
        source: the module's text.

    Raises:
        ValueError: for `import eval.metrics` without `as`: it binds the name `eval`, which moves.

    Example:
        >>> moved_imports("from eval.metrics import metric")
        'from spectrum.eval.metrics import metric'
        >>> moved_imports("import baselines")
        'import spectrum.baselines as baselines'
    """
    lines = source.encode().splitlines(keepends=True)
    insertions: list[tuple[int, int, str]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and _root(node.module) in ROOMS:
            behind = lines[node.lineno - 1][node.col_offset :].removeprefix(b"from")
            start = node.col_offset + len(b"from") + len(behind) - len(behind.lstrip())
            insertions.append((node.lineno - 1, start, "spectrum."))
        elif isinstance(node, ast.Import):
            for name in node.names:
                if _root(name.name) in ROOMS:
                    insertions += _around(name)
    for line, column, text in sorted(insertions, reverse=True):
        lines[line] = lines[line][:column] + text.encode() + lines[line][column:]
    return b"".join(lines).decode()


def _root(module: str | None) -> str:
    return (module or "").partition(".")[0]


def _around(name: ast.alias) -> list[tuple[int, int, str]]:
    """The insertions that move one name of an `import` statement: (line, column, text)."""
    found = [(name.lineno - 1, name.col_offset, "spectrum.")]
    if name.asname is None:
        if "." in name.name:
            raise ValueError(
                f"line {name.lineno}: import {name.name} binds {_root(name.name)}: type from ... import ..."
            )
        found.append(((name.end_lineno or name.lineno) - 1, name.end_col_offset or 0, f" as {name.name}"))
    return found


class BuildWithRooms(build_py):
    """Copies the modules as usual, then changes the imports of the copies."""

    def run(self) -> None:
        """Build into a folder that holds nothing of an earlier build: what was deleted since would be packed too."""
        if not self.editable_mode:
            shutil.rmtree(Path(self.build_lib) / "spectrum", ignore_errors=True)
        super().run()

    def build_module(self, module: str, module_file: str, package: Any) -> Any:
        """Copy one module and change its imports."""
        built, copied = super().build_module(module, module_file, package)
        path = Path(built)
        path.write_bytes(moved_imports(path.read_bytes().decode()).encode())
        return built, copied


class EditableCheckout(editable_wheel):
    """Adds the checkout to the path as it is, rooms at its top."""

    def finalize_options(self) -> None:
        """Take the layout of the checkout instead of that of the wheel."""
        self.distribution.packages = ["spectrum", *ROOMS]
        self.distribution.package_dir = {"": "."}
        super().finalize_options()


def packages() -> list[str]:
    """Every package as it is called where it is installed."""
    inside = [name for name in find_packages() if _root(name) in ROOMS]
    own = [name for name in find_packages() if _root(name) == "spectrum"]
    return [*own, *(f"spectrum.{name}" for name in inside), "spectrum.configs"]


if __name__ == "__main__":
    setup(
        packages=packages(),
        package_dir={f"spectrum.{room}": room for room in (*ROOMS, "configs")},
        package_data={"": DATA, "spectrum.configs": ["**/*.yaml"]},
        include_package_data=False,
        cmdclass={"build_py": BuildWithRooms, "editable_wheel": EditableCheckout},
    )
