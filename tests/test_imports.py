"""What an import loads, seen from a process of its own: the library stays light; plans and errors wait for no torch."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from setup import moved_imports

ROOT = Path(__file__).resolve().parent.parent
LOADED = "; import sys; print('LOADED', *sorted({name.partition('.')[0] for name in sys.modules}))"


def python(*words, code=0):
    """What a Python process prints, from the root of the checkout; it has to end with `code`."""
    ended = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == code, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def loaded_by(statement):
    """The top-level packages that are loaded once a statement has run."""
    line = next(line for line in python("-c", statement + LOADED).splitlines() if line.startswith("LOADED"))
    return set(line.split()[1:])


def loaded_by_command(command, words, code=0):
    """The top-level packages that a script has loaded when it ends, and what it printed."""
    report = "import atexit, sys; atexit.register(lambda: print('LOADED', *{n.partition('.')[0] for n in sys.modules}))"
    run = f"{report}; import runpy; sys.argv = {[command, *words]}; runpy.run_path({command!r}, run_name='__main__')"
    text = python("-c", run, code=code)
    line = next(line for line in text.splitlines() if line.startswith("LOADED"))
    return set(line.split()[1:]), text


@pytest.mark.fast
def test_the_library_is_imported_without_the_bench():
    loaded = loaded_by("import spectrum; spectrum.accelerate; spectrum.Method; spectrum.restore")
    assert "torch" in loaded and "diffusers" in loaded
    assert not loaded & {"matplotlib", "eval", "hydra", "rich", "torchmetrics", "pydantic"}


@pytest.mark.fast
def test_importing_the_package_alone_loads_nothing():
    assert not loaded_by("import spectrum; spectrum.SpectrumError") & {"torch", "diffusers", "numpy", "hydra"}


@pytest.mark.fast
def test_a_method_is_planned_without_torch():
    statement = (
        "from spectrum import Method, plan_method; from spectrum.core.forecast import newton;"
        "from spectrum.core.schedule import growing_window;"
        "assert plan_method(Method('mine', newton, growing_window), 50).nfe == 14"
    )
    loaded = loaded_by(statement)
    assert "numpy" in loaded and not loaded & {"torch", "diffusers", "hydra"}


@pytest.mark.fast
def test_every_public_name_is_there():
    import spectrum

    calls = {"accelerate", "plan_method", "restore", "SpectrumError"}
    assert set(spectrum.__all__) == calls | {
        "Accelerated",
        "Clock",
        "Denoiser",
        "Method",
        "Plan",
        "Signal",
        "Site",
        "Space",
    }
    assert set(spectrum.__all__) <= set(dir(spectrum))
    assert all(getattr(spectrum, name).__name__ == name for name in spectrum.__all__)
    with pytest.raises(AttributeError, match="no attribute 'acelerate'"):
        spectrum.acelerate  # noqa: B018


@pytest.mark.fast
@pytest.mark.parametrize(
    ("command", "words", "code", "says"),
    [
        ("scripts/plan.py", ["method=spectrum"], 0, "run steps (14): 0 1 2"),
        ("scripts/tables.py", ["--help"], 0, "records="),
        ("run.py", ["--help"], 0, "model="),
        ("run.py", ["metod=fora"], 2, "method"),
        ("run.py", ["method.forecast.degre=3"], 2, "method.forecast.degree"),
    ],
)
def test_plans_help_and_errors_do_not_load_torch(command, words, code, says):
    loaded, text = loaded_by_command(command, words, code)
    assert says in text
    assert "hydra" in loaded and not loaded & {"torch", "diffusers", "transformers", "matplotlib"}


@pytest.mark.fast
def test_a_build_moves_import_statements_and_nothing_else():
    given = (
        '"""From eval.metrics: import eval."""\n'
        "import json, baselines, eval.figures as f\n"
        "from eval import (\n    statistics,\n)\n"
        "from  baselines.teacache import drift  # from eval.x import y\n"
        "def f(é='é'): from eval.metrics import columns; return 'from eval.metrics import x'\n"
        "from evaluate import eval\nfrom .eval import name\n"
    )
    assert moved_imports(given) == (
        '"""From eval.metrics: import eval."""\n'
        "import json, spectrum.baselines as baselines, spectrum.eval.figures as f\n"
        "from spectrum.eval import (\n    statistics,\n)\n"
        "from  spectrum.baselines.teacache import drift  # from eval.x import y\n"
        "def f(é='é'): from spectrum.eval.metrics import columns; return 'from eval.metrics import x'\n"
        "from evaluate import eval\nfrom .eval import name\n"
    )
    assert moved_imports(moved_imports(given)) == moved_imports(given)
    with pytest.raises(ValueError, match="line 2"):
        moved_imports("import json\nimport eval.metrics\n")


@pytest.mark.fast
def test_the_lowest_versions_to_try_are_those_that_pyproject_allows():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    allowed = [Requirement(line) for line in (*project["dependencies"], *project["optional-dependencies"]["bench"])]
    lines = (ROOT / "requirements-lowest.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    lowest = {need.name: next(bound.version for bound in need.specifier if bound.operator == ">=") for need in allowed}
    assert pins.keys() == lowest.keys()
    assert {name: Version(pin) for name, pin in pins.items()} == {name: Version(low) for name, low in lowest.items()}
