"""The examples in docstrings run and print what they say."""

import doctest
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = [path for room in ("spectrum", "baselines", "eval") for path in sorted((ROOT / room).rglob("*.py"))]
MODULES = [
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
    for path in [ROOT / "setup.py", *FILES]
    if re.search(r"^\s*>>> ", path.read_text(), re.MULTILINE)
]


@pytest.mark.fast
@pytest.mark.parametrize("module", MODULES)
def test_examples_in_docstrings_print_what_they_say(module, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    found = doctest.testmod(importlib.import_module(module))
    assert found.attempted and not found.failed, capsys.readouterr().out


@pytest.mark.fast
def test_what_a_user_calls_first_has_an_example():
    assert {"spectrum", "spectrum.api", "spectrum.core.forecast", "spectrum.core.method"} <= set(MODULES)
