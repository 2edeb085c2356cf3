"""The package as a user installs it: built, put into an environment of its own, and used from another folder."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from spectrum.config.code import method_code
from spectrum.named_methods import load_method

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("spectrum", "eval", "baselines", "configs", "setup.py", "pyproject.toml", "README.md", "LICENSE")
pytestmark = [pytest.mark.slow, pytest.mark.wheel]

USE = """
import json, sys
import diffusers, torch
from spectrum import accelerate
assert not {"matplotlib", "hydra", "eval", "baselines", "spectrum.eval"} & sys.modules.keys()
from spectrum.config.code import method_code
from spectrum.models.identity import EMBEDDED
pipe = diffusers.FluxPipeline.from_pretrained(EMBEDDED)
pipe.set_progress_bar_config(disable=True)

def sample():
    call = dict(num_inference_steps=8, height=48, width=48, output_type="latent")
    return pipe("a red drum", generator=torch.Generator().manual_seed(0), **call).images

plain, found = sample(), {}
for name, words in (("spectrum", []), ("teacache", ["method.drift.coefficients=[1.0,0.0]", "schedule.threshold=0.4"])):
    with accelerate(pipe, name, *words) as handle:
        image = sample()
        (branch,) = handle.report().values()
        found[name] = {"runs": branch["run_steps"], "error": (image - plain).abs().mean().item(),
                       "code": method_code(handle.method)}
assert torch.equal(sample(), plain)
assert not {"eval", "baselines"} & sys.modules.keys()
print(json.dumps({"found": found, "from": sys.modules["spectrum"].__file__}))
"""


def checked(words, cwd, **variables):
    """What a process prints; it has to end well. It sees neither the checkout nor the packages of the user."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | {"HF_HUB_OFFLINE": "1", "COLUMNS": "80"}
    ended = subprocess.run(list(map(str, words)), cwd=cwd, env=env | variables, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of what the package is built of, so that nothing is written into the checkout."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def wheel(checkout, tmp_path_factory):
    """The wheel, built of the source distribution as a package index would get it."""
    to = tmp_path_factory.mktemp("wheel")
    build = f"from setuptools import build_meta; build_meta.build_sdist({str(to)!r})"
    checked([sys.executable, "-c", build], checkout)
    (source,) = to.glob("*.tar.gz")
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    checked([*pip, "-w", to, source], to)
    (built,) = to.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """The `bin` folder of a new environment that holds the wheel, and finds its needs where this one has them."""
    folder = tmp_path_factory.mktemp("environment")
    checked([sys.executable, "-m", "venv", "--without-pip", folder], folder)
    python = folder / "bin" / "python"
    (packages,) = (folder / "lib").glob("python*/site-packages")
    (packages / "needs.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index"]
    checked([*pip, wheel], folder)
    return folder / "bin"


@pytest.fixture
def elsewhere(tmp_path):
    """A folder that has nothing to do with the checkout."""
    return tmp_path


def test_the_wheel_holds_one_package_with_all_it_needs(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.partition("/")[0] for name in names} == {"spectrum", wheel.name.rpartition("-py3")[0] + ".dist-info"}
    kept = {
        "spectrum": "spectrum",
        "eval": "spectrum/eval",
        "baselines": "spectrum/baselines",
        "configs": "spectrum/configs",
    }
    for room, inside in kept.items():
        files = [path for path in (ROOT / room).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        assert files
        assert {f"{inside}/{path.relative_to(ROOT / room).as_posix()}" for path in files} <= names


def test_an_earlier_build_leaves_nothing_in_the_wheel(checkout, tmp_path):
    stale = checkout / "build" / "lib" / "spectrum" / "deleted.py"
    stale.parent.mkdir(parents=True)
    stale.write_text("")
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    checked([*pip, "-w", tmp_path, checkout], tmp_path)
    (built,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(built).namelist()
    assert "spectrum/api.py" in names and "spectrum/deleted.py" not in names


def test_an_editable_install_puts_the_checkout_on_the_path(checkout, tmp_path):
    build = f"from setuptools import build_meta; build_meta.build_editable({str(tmp_path)!r})"
    checked([sys.executable, "-c", build], checkout)
    (built,) = tmp_path.glob("*.whl")
    files = zipfile.ZipFile(built)
    assert not [name for name in files.namelist() if name.endswith(".py")]
    (path,) = (name for name in files.namelist() if name.endswith(".pth"))
    assert files.read(path).decode().strip() == str(checkout)


def test_an_installed_library_accelerates_the_embedded_model(environment, elsewhere):
    said = json.loads(checked([environment / "python", "-c", USE], elsewhere).splitlines()[-1])
    assert Path(said["from"]).is_relative_to(environment.parent)
    for found in said["found"].values():
        assert 1 <= len(found["runs"]) < 8 and 0 < found["error"] < 1
    for name, words in (
        ("spectrum", []),
        ("teacache", ["method.drift.coefficients=[1.0,0.0]", "schedule.threshold=0.4"]),
    ):
        own = method_code(load_method(name, words))
        assert said["found"][name]["code"] == own, f"{name} has another code digest where it is installed"


def test_the_installed_command_plans_and_lists(environment, elsewhere):
    plan = checked([environment / "spectrum", "plan", "method=freqca", "format=json"], elsewhere)
    assert json.loads(plan)["nfe"] > 1
    models = checked([environment / "spectrum", "models"], elsewhere)
    assert "hunyuan_video" in models and "results/conformance.md" in models
    assert "sample a model" in checked([environment / "spectrum", "--help"], elsewhere)


def test_the_installed_command_samples_measures_and_makes_tables(environment, elsewhere):
    words = ["model.steps=7", "prompts.limit=2", "timing=0", "probe=0", "batch=2", "out=runs", "records=records"]
    checked([environment / "spectrum", "run", *words], elsewhere)
    records = [json.loads(path.read_text()) for path in (elsewhere / "records").glob("*.json")]
    (record,) = (record for record in records if record["method"]["name"] == "spectrum")
    assert record["metrics"]["psnr"]["mean"] > 10 and record["git"]["commit"] is None
    assert list((elsewhere / "runs").rglob("sheet.png"))
    assert "written" in checked([environment / "spectrum", "tables", "records=records", "to=tables"], elsewhere)
    assert (elsewhere / "tables" / "tiny_table.md").exists()


@pytest.mark.parametrize("command", ["tables", "figures"])
def test_the_installed_command_says_which_records_it_looks_for(environment, elsewhere, command):
    ended = subprocess.run([environment / "spectrum", command], cwd=elsewhere, capture_output=True, text=True)
    assert ended.returncode == 2 and ended.stderr.startswith("error: there is no folder results/records")
    assert "Traceback" not in ended.stderr
