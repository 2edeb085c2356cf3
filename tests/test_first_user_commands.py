"""What a first user met in the commands around a run: they refuse in one line, show progress, and write where told."""

import functools
import importlib
import json
import subprocess
from pathlib import Path

import bench_metrics
import conformance
import pytest
import train_tiny
from command import QUICK, ROOT, call, error_line, script

from spectrum.bench import calibration, progress
from spectrum.commands import main
from spectrum.commands.guard import guarded
from spectrum.config.compose import compose
from spectrum.models.pipelines import device_of, load_pipeline
from spectrum.records.files import write_json

NOT_HERE = "/proc/not_here"
"""A folder that nobody can make, root included."""
TOY = ["model=flux", "model.weights=tiny", "model.steps=8", "batch=2", "device=cpu", "prompts=inline"]
TOY += ["prompts.text=['a cat on blue','two pears']"]


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    """A trace of eight steps, one prompt and two seeds."""
    path = tmp_path_factory.mktemp("trace") / "t.pt"
    assert main(["trace", "model.steps=8", "prompts.limit=1", "seeds=[0,1]", f"trace={path}"]) == 0
    return path


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["method=none"], "none"),
        (["method=fewer_steps", "runs=3"], "fewer_steps"),
        (["schedule=always"], "spectrum (always)"),
        (["method=spectrum,none"], "none"),
    ],
)
def test_5_a_replay_of_a_method_that_skips_nothing(words, name, trace, capsys):
    line = error_line(call("replay", f"trace={trace}", *words, capsys=capsys))
    assert f"{name} skips no step of this trace, so there is nothing to score" in line


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["model=tiny,flux"], "made with other weights than model=flux has: type the model= that made it"),
        (["model.steps=20"], "the trace has 8 steps, not model.steps=20: leave model.steps= out"),
        (["model.steps=8,9"], "the trace has 8 steps, not model.steps=9"),
        (["seeds=range(1,3)"], "the trace is of seeds=[0, 1], not seeds=[1]: leave seeds= out"),
        (["prompts=examples"], "the trace is of 1 prompts, not of the"),
        (["prompts=calibration", "prompts.limit=2"], "not of the 2 that were typed: leave prompts= out"),
        (["~prompts"], "~prompts takes away the prompts"),
        (["method=glob(*)"], "method=glob(*) has several values, and this command takes one: type method=VALUE"),
    ],
)
def test_5_a_replay_of_what_the_trace_does_not_have(words, says, trace, capsys):
    assert says in error_line(call("replay", f"trace={trace}", *words, capsys=capsys))


def test_a_replay_takes_steps_seeds_and_prompts_from_the_trace(trace, capsys):
    """Typed as they are, or not at all; `runs=` is met on the steps of the trace and not on the model's 50."""
    same = ["model.steps=8", "seeds=[0,1]", "prompts=calibration", "prompts.limit=1"]
    for words in ([], same):
        said = call("replay", f"trace={trace}", "method=fora", "runs=4", "format=json", *words, capsys=capsys)
        (row,) = json.loads(said.out)
        assert said.code == 0 and row["runs"] == 4 and row["velocity"] > 0 and row["reference"] is None


@pytest.mark.parametrize("steps", [1, 2])
def test_5_a_polynomial_of_too_few_steps(steps, capsys):
    """Two prompts at two steps give two pairs, and one prompt at one step none."""
    words = [*TOY, f"model.steps={steps}", "method=teacache", "budgets=1"]
    line = error_line(call("calibrate", *words, capsys=capsys))
    assert f"needs 5 different changes of the signal, and {2 * (steps - 1)} were seen" in line
    assert "type a larger model.steps" in line


@pytest.mark.parametrize("method", ["magcache", "seacache"])
def test_5_a_calibration_that_meets_no_budget(method, capsys):
    line = error_line(call("calibrate", *TOY, f"method={method}", "budgets=70", capsys=capsys))
    assert f"no threshold of {method} meets budgets=70 of 8 steps: type other budgets" in line


ONE = "has several values, and this command takes one: type"


@pytest.mark.parametrize(
    ("command", "words", "says"),
    [
        ("plan", ["runs=13,14"], f"runs=13,14 {ONE} runs=13, or type 'runs=[13,14]' for a list"),
        ("plan", ["schedule.growth=1,2"], f"schedule.growth=1,2 {ONE} schedule.growth=1"),
        ("plan", ["seeds=range(3)"], f"seeds=range(3) {ONE} seeds=0, or type 'seeds=[0,1,2]' for a list"),
        ("plan", ["prompts.text='a b','c'"], """type "prompts.text=['a b','c']" for a list"""),
        ("plan", ["schedule.growth=interval(0,1)"], f"{ONE} schedule.growth=VALUE"),
        ("plan", ["=3"], "=3 names no setting: type key=value"),
        ("calibrate", ["method=teacache,magcache"], f"method=teacache,magcache {ONE} method=teacache"),
        ("run", ["=3"], "=3 names no setting: type key=value"),
        ("run", ["seeds=range(3)"], "add --multirun to run each, or type 'seeds=[0,1,2]' for a list"),
        ("run", ["method=fora,none"], "method=fora,none has several values: add --multirun to run each"),
        ("run", ["plugins=[nothere]"], "there is no package nothere here: install it"),
        ("run", ["plugins=[os.path]"], "plugins=os.path is no package: type plugins=[NAME]"),
        ("plan", ["plugins=3"], "plugins=3 is no package: type plugins=[NAME]"),
        ("trace", [f"out={NOT_HERE}"], f"error: out={NOT_HERE} cannot be written to"),
        ("tables", [f"to={NOT_HERE}"], f"to={NOT_HERE} cannot be written to"),
        ("figures", [f"to={NOT_HERE}"], f"to={NOT_HERE} cannot be written to"),
        ("run", [f"hydra.run.dir={NOT_HERE}"], f"{NOT_HERE} cannot be written (No such file or directory)"),
        ("run", ["hydra.run.dir=README.md"], "README.md cannot be written (File exists)"),
        ("run", ["--multirun", "method=none,fora", f"hydra.sweep.dir={NOT_HERE}"], f"{NOT_HERE} cannot be written"),
    ],
)
def test_5_error_lines_say_what_to_type(command, words, says, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    line = error_line(call(command, *words, capsys=capsys))
    assert says in line
    assert ("--multirun" in line) is (command == "run" and "several values" in line)


def test_5_a_list_of_a_group_is_never_proposed(capsys):
    for command in ("run", "plan"):
        assert "method=[" not in error_line(call(command, "method=fora,none", capsys=capsys))


def test_a_package_that_is_there_may_be_allowed_without_being_imported(tmp_path, monkeypatch):
    (tmp_path / "users_own.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert compose(["plugins=users_own"]).plugins == ["users_own"]


@pytest.mark.parametrize("command", ["replay", "study"])
def test_5_a_file_that_is_no_trace_is_not_to_be_deleted(command, trace, tmp_path, capsys):
    line = error_line(call(command, f"trace={ROOT / 'README.md'}", capsys=capsys))
    assert "delete" not in line and "type trace=FILE of one made by python scripts/trace.py" in line
    (tmp_path / "cut.pt").write_bytes(trace.read_bytes()[:1000])
    line = error_line(call(command, f"trace={tmp_path / 'cut.pt'}", capsys=capsys))
    assert "is no whole trace" in line and "run scripts/trace.py again" in line and "delete" not in line


def test_5_a_study_that_cannot_be_written(trace, tmp_path, capsys):
    line = error_line(call("study", f"trace={trace}", f"to={NOT_HERE}/a", capsys=capsys))
    assert f"to={NOT_HERE} cannot be written to" in line
    assert "is a folder: type to=FILE" in error_line(call("study", f"trace={trace}", f"to={tmp_path}", capsys=capsys))


@pytest.mark.parametrize("command", ["replay", "tables", "figures", "timing"])
def test_5_records_that_are_not_there(command, trace, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for name, says in (
        ("nope", f"there is no folder {tmp_path / 'nope'}: make records with python run.py records="),
        ("file", "is a file: type records=FOLDER"),
        ("empty", "holds no record: make records with python run.py records="),
    ):
        words = [f"records={tmp_path / name}", f"trace={trace}" if command == "replay" else f"to={tmp_path / 'to'}"]
        words += ["experiment=tiny_table"] if command == "timing" else []
        assert says in error_line(call(command, *words, capsys=capsys))
        assert not (tmp_path / "to").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["models=foo"], "models: there is no foo; type any of animatediff, "),
        (["methods=foo,fora,bar"], "methods: there is no foo, no bar; type any of adams, "),
        ([f"to={NOT_HERE}/matrix.md"], f"to={NOT_HERE} cannot be written to"),
        (["to=results"], "to=results is a folder: type to=FILE"),
    ],
)
def test_5_conformance_refuses_before_it_works(words, says, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    said = script(conformance, *words, capsys=capsys, monkeypatch=monkeypatch)
    assert says in error_line(said) and not said.out


@pytest.mark.parametrize("words", [["count=x"], ["count=0"], ["count=1"], ["side=8"], ["records=0"], ["records=-1"]])
def test_5_sizes_of_the_benchmark_of_metrics(words, capsys, monkeypatch):
    said = script(bench_metrics, *words, capsys=capsys, monkeypatch=monkeypatch)
    assert f"{words[0]} is no whole number of at least" in error_line(said) and not said.out


def test_the_help_of_the_benchmark_of_metrics_has_a_meaning_for_each_option(capsys, monkeypatch):
    said = script(bench_metrics, "--help", capsys=capsys, monkeypatch=monkeypatch)
    listed = dict(line.split("=", 1) for line in said.out.splitlines() if line.startswith("  "))
    assert said.code == 0 and {key.strip() for key in listed} == {"count", "side", "records"}
    assert all(len(meaning.split()) > 3 for meaning in listed.values())


@pytest.fixture(params=["train_tiny", "train_clip"])
def training(request):
    """A script that trains; that of the small CLIP needs open_clip."""
    if request.param == "train_clip":
        pytest.importorskip("open_clip")
    return importlib.import_module(request.param)


def test_5_a_folder_without_the_pictures_that_are_trained_on(training, tmp_path, capsys, monkeypatch):
    words = ["--emoji", tmp_path / "nope", "--work", tmp_path / "work", "--out", tmp_path / "out"]
    line = error_line(script(training, *words, capsys=capsys, monkeypatch=monkeypatch))
    assert "nope lacks 64 of the pictures" in line and "type --emoji FOLDER/" in line


def test_7_a_training_writes_into_no_tracked_folder_unless_told(training):
    given = vars(training.arguments().parse_args([]))
    written = [given[key] for key in ("out", "prompts", "work") if key in given]
    assert len(written) >= 2
    for folder in written:
        ignored = subprocess.run(["git", "check-ignore", folder], cwd=ROOT, capture_output=True, check=False)
        assert ignored.returncode == 0, folder


def test_7_the_model_card_names_the_folders_that_its_command_writes():
    card = (ROOT / "spectrum" / "assets" / "tiny" / "README.md").read_text()
    command = "python scripts/train_tiny.py --out spectrum/assets/tiny --prompts spectrum/assets/prompts"
    assert command in card and command in (train_tiny.__doc__ or "")
    assert command in (ROOT / "scripts" / "tiny" / "card.md").read_text()


@pytest.fixture
def told_at_once(monkeypatch):
    """Progress that prints its line at every step, not every 30 seconds."""
    monkeypatch.setattr(progress, "EVERY", 0.0)


def test_9_a_trace_shows_how_far_it_is(told_at_once, tmp_path, capsys):
    words = ["model.steps=4", "prompts.limit=2", f"trace={tmp_path / 't.pt'}"]
    lines = call("trace", *words, capsys=capsys).out.splitlines()
    assert [line.partition(",")[0] for line in lines[:-1]] == [f"trace: {n} of 8 sample steps" for n in (2, 4, 6)]
    assert all(line.endswith(" s left") for line in lines[:-1])


def test_9_a_study_shows_how_far_it_is(told_at_once, trace, tmp_path, capsys):
    said = call("study", f"trace={trace}", f"to={tmp_path / 's.json'}", capsys=capsys)
    assert said.code == 0, said.err
    lines = said.out.splitlines()
    assert [line.partition(",")[0] for line in lines if line.startswith("distances")] == [
        f"distances: {n} of 6 forecasters" for n in range(1, 6)
    ]
    assert sum(line.startswith("ablations: ") and " of 44 settings" in line for line in lines) == 43


def test_9_a_calibration_shows_how_far_it_is(told_at_once, capsys):
    said = call("calibrate", *TOY, "method=teacache", "budgets=4,5", capsys=capsys)
    assert said.code == 0, said.err
    for stage in ("uncached: 2 of 16 sample steps", "4 runs: 2 of 176 sample steps", "5 runs: 2 of 176 sample steps"):
        assert f"{stage}, " in said.out
    assert json.loads(said.out.splitlines()[-1])["by_runs"].keys() == {"4", "5"}


@pytest.mark.parametrize("budget", [4, 1])
def test_a_calibration_tells_what_it_is_given_and_prints_nothing(budget, capsys):
    """A bisection that ends early and one that takes more runs than its stage has: each stage is told of all of it."""
    config = compose([*TOY, "method=seacache", "schedule.warmup=2"])
    pipe = load_pipeline(config.model, device_of("cpu"))
    said: list[str] = []
    stages: dict[str, list[int]] = {}

    def begin(name, total):
        stages[name] = [total]
        return stages[name].append

    run = functools.partial(calibration.calibrate, config, pipe, (4, budget), said.append, begin)
    assert run()["by_runs"].keys() == {"4"}
    assert stages.keys() == {"4 runs", f"{budget} runs"}
    assert all(min(told) > 0 and sum(told) == total for total, *told in stages.values())
    assert any(line.startswith("threshold ") for line in said) and not capsys.readouterr().out


def test_a_folder_that_cannot_be_made_is_one_line_and_other_missing_files_are_defects(tmp_path, capsys):
    (tmp_path / "folder.json").mkdir()
    assert guarded(lambda: write_json(Path(NOT_HERE) / "x.json", {})) == 2
    assert guarded(lambda: write_json(tmp_path / "folder.json", {})) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert NOT_HERE in first and f"{tmp_path / 'folder.json'} cannot be written" in second
    with pytest.raises(FileNotFoundError):
        guarded(lambda: (tmp_path / "nope").read_text())


def test_8_a_sweep_still_runs_lists(tmp_path, capsys):
    words = ["--multirun", *QUICK, "model.steps=4", "method=none", "seeds=range(2)", f"out={tmp_path}"]
    assert call("run", *words, capsys=capsys).code == 0
    assert len(list(tmp_path.rglob("record.json"))) == 2
