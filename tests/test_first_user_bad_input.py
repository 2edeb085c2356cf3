"""Item 5 of what a first user met: what is typed wrong is answered by one line that says what to type."""

import importlib.util
import json
import shutil
import sys

import pytest
from command import QUICK, ROOT, call, error_line
from typed import typed

from spectrum.bench.ledger import finished_samples, whole_ledger
from spectrum.bench.prompts import numbered_samples
from spectrum.config.compose import compose
from spectrum.models.identity import EMBEDDED

TYPED = [
    (["batch=2.0"], "batch=2.0 is no whole number: type batch=2"),
    (["model.steps=4.0"], "model.steps=4.0 is no whole number: type model.steps=4"),
    (["out=null"], "out cannot be null"),
    (["out="], "out is empty: type out=FOLDER"),
    (["model=null"], "model=null names no model: type model=NAME"),
    (["~prompts"], "~prompts takes away the prompts"),
    (["eval.psnr=3"], "type eval.psnr.NAME=VALUE"),
    (["eval.psnr=null"], "type ~eval.psnr to leave it out"),
    (["eval.lpips.net=vgg"], "type +eval.lpips.net=VALUE"),
    (["+model.call.foo=3"], "model.call.foo is no argument of FluxPipeline: take it out"),
    (["model.call.foo=3"], "type +model.call.foo=VALUE"),
    (["model.call.true_cfg_scale=high"], "model.call.true_cfg_scale must be a number, got 'high'"),
    (["model.call.true_cfg_scale=nan"], "model.call.true_cfg_scale must be finite"),
    (["model.call.max_sequence_length=0"], "model.call.max_sequence_length must be at least 1"),
    (["method.forecast=3"], "type method.forecast.NAME=VALUE"),
    (["seeds=[0,0]"], "has a seed twice"),
    (["steps=0"], "there is no key steps: did you mean model.steps?"),
    (["model.height=97"], "must be a multiple of 8: type 96 or 104"),
    (["model.frames=3"], "FluxPipeline makes pictures"),
    (["device=gpu"], "type device=cpu"),
    (["device=quantum"], "device=quantum cannot be used here (torch knows no such device)"),
    (["prompts.text='a\0b'"], "prompt 0 has a NUL character in it"),
    (["prompts.text='\ufeffa cat'"], "prompt 0 has a byte order mark"),
    (["prompts.text={a: 1}"], "is no prompt"),
    (["method.site=nowhere"], "method.site=nowhere is unknown: type one of exit, output, modules"),
    (["method.sitee=exit"], "did you mean method.site?"),
    (["metod=fora"], "there is no key metod: did you mean method?"),
    (["method=fora", "method.forecast.degree=3"], "it belongs to method=spectrum, method=spectrum_blend"),
    (["method=fora", "schedule.growth=3"], "it belongs to schedule=growing_window"),
    (["prompts.file=/not/here.txt"], "there is no prompt file /not/here.txt: write one prompt a line to it"),
    (["fresh=timing"], "there is no key fresh: it is called redo"),
    (["redo=tming"], "redo=tming is unknown: type any of samples, metrics, timing"),
    (["schedule=accumulated_distance"], "spectrum measures no drift"),
    (["method=teacache"], "calibrate.py model=tiny model.steps=7 method=teacache"),
    (["experiment.name=mine"], "needs experiment=NAME beside it"),
    (["+method.foo=3"], "there is no key method.foo"),
    (["++foo=3"], "there is no key foo"),
    (["fora"], "fora is no setting: type key=value"),
    (["a=b=c"], "cannot be read: type key=value"),
    (["method=fora,spectrum"], "add --multirun to run each"),
    (["--multrun"], "there is no option --multrun: type --multirun"),
    (["--multirun", "hydra/launcher=slurmm"], "there is no hydra/launcher=slurmm; there are basic"),
]


@pytest.mark.parametrize(("words", "says"), TYPED, ids=[" ".join(words).encode("unicode_escape") for words, _ in TYPED])
def test_5_typed_wrong(words, says, tmp_path, capsys):
    line = error_line(call("run", *QUICK, f"out={tmp_path / 'out'}", *words, capsys=capsys))
    assert says in line
    assert not list(tmp_path.rglob("*.png")) and not list(tmp_path.rglob("*.json*"))


@pytest.mark.parametrize(
    ("command", "words", "says"),
    [
        ("plan", ["format=xml"], "type format=text or format=json"),
        ("plan", ["--multirun"], "there is no option --multirun"),
        ("models", ["format=xml"], "type format=text or format=json"),
        ("replay", ["trace=x.pt", "format=xml"], "type format=text or format=json"),
        ("replay", ["trace=x.pt"], "there is no trace x.pt: make it with python scripts/trace.py"),
        ("tables", ["format=xml"], "unknown option format=xml"),
        ("calibrate", ["method=teacache", "budgets=some"], "type budgets=14,10"),
        ("calibrate", ["method=teacache", "write=maybe"], "type write=true or write=false"),
        ("trade", [], "there is no command trade (did you mean trace?)"),
    ],
)
def test_5_typed_wrong_to_the_other_commands(command, words, says, capsys):
    assert says in error_line(call(command, *words, capsys=capsys))


def test_5_one_value_stands_for_a_list_of_one():
    config = compose(["prompts.text=fox", "seeds=3", "redo=timing", "plugins=yaml", "model.vae=slicing"])
    assert (config.prompts.text, config.prompts.file, config.seeds) == (["fox"], None, [3])
    assert (config.redo, config.plugins, config.model.vae) == (["timing"], ["yaml"], ["slicing"])
    assert compose(["schedule=explicit", "schedule.run_steps=0"]).schedule["run_steps"] == [0]


def test_5_a_prompt_file_may_begin_with_a_byte_order_mark(tmp_path, capsys):
    (tmp_path / "p.txt").write_bytes(b"\xef\xbb\xbffox\r\na cat\n")
    words = [f"prompts.file={tmp_path / 'p.txt'}", f"out={tmp_path / 'out'}"]
    assert call("run", *QUICK, *words, "method=none", capsys=capsys).code == 0
    (ledger,) = tmp_path.rglob("samples.jsonl")
    assert [json.loads(line)["prompt"] for line in ledger.read_text().splitlines()] == ["fox", "a cat"]


@pytest.mark.skipif(
    importlib.util.find_spec("hydra_plugins.hydra_submitit_launcher") is None or shutil.which("srun") is not None,
    reason="needs the submitit launcher, and no Slurm",
)
def test_5_submitit_without_slurm(tmp_path, capsys):
    words = ["--multirun", "hydra/launcher=submitit_slurm", f"out={tmp_path}"]
    assert "this machine has no srun: type submitit_local or basic" in error_line(call("run", *words, capsys=capsys))


FORECASTS = """
import numpy as np

def as_list(times, target, span):
    return [0.0] * (len(times) - 1) + [1.0]

def short(times, target, span):
    return np.ones(1)

def nan(times, target, span):
    return np.full(len(times), np.nan)

def text(times, target, span):
    return "much"

def ragged(times, target, span):
    return [[1.0], [1.0, 2.0]]

def few_arguments(times):
    return np.ones(len(times))

def breaks(times, target, span):
    return 1 / 0

class Callable:
    pass
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of a user's own, called `users_package`, that is gone after the test."""
    (tmp_path / "users_package").mkdir()
    (tmp_path / "users_package" / "__init__.py").write_text(FORECASTS)
    monkeypatch.syspath_prepend(tmp_path)
    yield "users_package"
    sys.modules.pop("users_package", None)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("short", "must return 2 weights, one for each time it is given, got the shape (1,)"),
        ("nan", "the forecast of fora returned NaN or infinite weights for times [0, 1] and target 2"),
        ("text", "must return one weight for each stored feature, got 'much'"),
        ("ragged", "must return one weight for each stored feature"),
        ("few_arguments", "takes 1 positional argument but 3 were given"),
        ("breaks", "the forecast of fora failed at time 2: ZeroDivisionError"),
        ("Callable", "is no function of users_package"),
        ("absent", "cannot be imported"),
    ],
)
def test_5_a_forecast_of_one_s_own_that_is_wrong(name, says, package, capsys):
    words = ["method=fora", f"plugins={package}", f"method.forecast._target_={package}.{name}"]
    assert says in error_line(call("plan", *words, capsys=capsys))


def test_5_a_forecast_of_one_s_own_may_return_a_list_and_its_package_has_to_be_allowed(package, capsys):
    words = ["method=fora", f"method.forecast._target_={package}.as_list", "format=json"]
    said = call("plan", *words, f"plugins={package}", capsys=capsys)
    assert said.code == 0 and json.loads(said.out)["weights"]["48"][-2:] == [0.0, 1.0]
    assert f"allow its package with plugins=[{package}]" in error_line(call("plan", *words, capsys=capsys))
    away = ["plugins=not_here", "method.forecast._target_=not_here.f"]
    assert "put the folder that holds it into PYTHONPATH" in error_line(call("plan", *away, capsys=capsys))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    shutil.copytree(EMBEDDED, folder)
    return folder


@pytest.mark.parametrize(
    "text", ["{torn", "[]", '{"teacache": 3}', '{"teacache": {"fitted_on": {}, "by_runs": {"few": {}}}}', "\udcff"]
)
def test_5_a_broken_calibration(text, weights, capsys):
    (weights / "calibration.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    said = call("plan", f"model.weights={weights}", "method=teacache", capsys=capsys)
    assert "calibration.json is no whole calibration: delete it" in error_line(said)


@pytest.mark.parametrize("text", ["{torn", "[]", "{}"])
def test_5_a_broken_digest(text, weights, tmp_path, capsys):
    (weights / "calibration.json").unlink(missing_ok=True)
    (weights / "digest.json").write_text(text)
    said = call("run", *QUICK, f"model.weights={weights}", f"out={tmp_path}", capsys=capsys)
    assert "digest.json is damaged: restore the folder, or delete the file" in error_line(said)
    assert not list(tmp_path.rglob("*.png"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The words of a run, and the folder that it wrote."""
    out = tmp_path_factory.mktemp("finished")
    words = [*QUICK, "method=none", f"out={out}"]
    assert call("run", *words).code == 0
    (record,) = out.rglob("record.json")
    return words, record.parent


def changed(**changes):
    return lambda text: json.dumps({**json.loads(text), **changes})


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda text: text[:200], "cannot be read"),
        (lambda text: "", "cannot be read"),
        (lambda text: "[]", "is no record of run.py"),
        (changed(format=1), "has format 1, and this version"),
        (changed(nfe="few"), "is damaged at nfe"),
        (changed(metrics={"psnr": 3}), "is damaged at metrics.psnr"),
    ],
)
def test_5_a_broken_record(damage, says, finished, capsys):
    words, folder = finished
    path = folder / "record.json"
    whole = path.read_text()
    path.write_text(damage(whole))
    try:
        line = error_line(call("run", *words, capsys=capsys))
    finally:
        path.write_text(whole)
    assert says in line and str(path) in line


@pytest.mark.parametrize(
    "line", ["", "{torn", "[]", "3", '{"file": 3, "sha256": 3}', '{"file": "../../x", "sha256": "a"}', "\udcff"]
)
def test_5_a_broken_ledger_counts_as_no_samples(line, finished, tmp_path):
    shutil.copytree(finished[1] / "images", tmp_path / "images")
    whole = (finished[1] / "samples.jsonl").read_text()
    first, second = whole.splitlines(keepends=True)
    (tmp_path / "samples.jsonl").write_text(whole)
    assert len(finished_samples(tmp_path)) == 2
    (tmp_path / "samples.jsonl").write_bytes((first + line + "\n" + second).encode("utf-8", "surrogateescape"))
    assert list(finished_samples(tmp_path)) == [json.loads(first)["file"]]


@pytest.mark.parametrize("key", ["index", "seed", "prompt", "file", "sha256", "runs", "calls"])
def test_5_a_ledger_that_lacks_something_is_made_again(key, finished):
    _, folder = finished
    path = folder / "samples.jsonl"
    whole = path.read_text()
    samples = numbered_samples([json.loads(line)["prompt"] for line in whole.splitlines()], [0])
    path.write_text(whole.replace(f'"{key}"', '"other"'))
    assert whole_ledger(folder, samples) is None
    path.write_text(whole)
    assert whole_ledger(folder, samples) is not None


def test_5_a_broken_ledger_is_mended_by_the_same_command(finished, capsys):
    words, folder = finished
    path = folder / "samples.jsonl"
    whole = path.read_text()
    path.write_text('{"file": 3}\n')
    said = call("run", *words, "redo=metrics", capsys=capsys)
    assert said.code == 0 and path.read_text() == whole, said.err


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the project with two model files that cannot be read."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("spectrum", "baselines", "eval", "configs", "scripts"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "run.py", folder)
    (folder / "configs" / "model" / "broken.yaml").write_text("# A model.\nname: [oops\n")
    (folder / "configs" / "model" / "empty.yaml").write_text("name: empty\n")
    return folder


def test_5_a_model_file_that_is_no_yaml_hides_no_other(checkout):
    code, out, err = typed("scripts/models.py", "format=json", folder=checkout)
    assert code == 2 and len(err.splitlines()) == 1
    assert "broken.yaml, line 3 is no YAML" in err and "empty: the model cannot be read: it has no pipeline" in err
    assert {"tiny", "flux", "z_image"} <= {row["model"] for row in json.loads(out)}
    code, out, err = typed("run.py", "model=broken", folder=checkout)
    assert code == 2 and not out and len(err.splitlines()) == 1
    assert err.startswith("error: ") and "broken.yaml, line 3 is no YAML" in err
