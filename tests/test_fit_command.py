"""`spectrum fit` on the embedded model at a few steps: a plan is fitted, kept, sampled with, and refused elsewhere."""

import json
import shutil

import pytest
import torch
from command import call, error_line
from diffusers import UniPCMultistepScheduler

from spectrum import accelerate
from spectrum.commands.plan_files import card
from spectrum.config.compose import compose
from spectrum.config.methods import build_method
from spectrum.config.schema import method_from
from spectrum.core.errors import SpectrumError
from spectrum.models.identity import EMBEDDED
from spectrum.models.kept_plans import check_goes_with, plan_name, setting_of
from spectrum.models.pipelines import load_pipeline
from spectrum.records.plan_file import read_plan
from spectrum.records.record import read_record

SMALL = ["model.steps=9", "prompts.limit=2", "batch=2"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A copy of the embedded model's folder that plans can be kept beside."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    shutil.copytree(EMBEDDED, folder, ignore=shutil.ignore_patterns("plans"))
    return folder


@pytest.fixture(scope="module")
def fitted(weights, tmp_path_factory):
    """A plan of 4 of 9 steps, kept beside the weights too."""
    path = tmp_path_factory.mktemp("plans") / "p.json"
    words = [
        *SMALL,
        f"model.weights={weights}",
        "runs=4",
        "planner=path",
        f"to={path}",
        "keep=true",
        f"out={path.parent}",
    ]
    assert call("fit", *words).code == 0
    return path, words


def test_a_plan_says_what_it_is_for_and_worth(fitted, capsys):
    path, _ = fitted
    plan = read_plan(path)
    assert len(plan.run_steps) == 4 and plan.setting.steps == 9 and plan.setting.solver.startswith("FlowMatch")
    assert plan.samples == 2 and plan.expected.folds == 2 and plan.expected.psnr > 15
    assert len(plan.setting.sigmas) == 9 and plan.planner["width"] == 3 and plan.full_runs > 2


def test_the_card_beside_the_weights_names_every_plan(fitted, weights):
    path, _ = fitted
    plan, text = read_plan(path), (weights / "plans" / "README.md").read_text()
    assert f"| 4 / 9 | {' '.join(map(str, plan.run_steps))} | {plan.expected.psnr:.1f}" in text


def test_the_plans_that_ship_go_with_the_model_and_their_card():
    """Each is of the embedded model as it is, made by a command that stands in the card, from a clean checkout."""
    paths = sorted((EMBEDDED / "plans").glob("*.json"))
    plans = [read_plan(path) for path in paths]
    assert {10, 14} <= {len(plan.run_steps) for plan in plans}
    for path, plan in zip(paths, plans, strict=True):
        assert path.name == plan_name(plan.setting.steps, len(plan.run_steps))
        check_goes_with(plan, setting_of(compose([]).model), False, "")
        assert plan.setting.weights, f"{path.name} does not say which weights it was fitted on"
        assert plan.made_with["git"]["dirty"] is False, f"{path.name}: fit it again from a clean checkout"
    assert (EMBEDDED / "plans" / "README.md").read_text() == card(plans)


def test_the_same_command_comes_to_the_same_plan_also_where_it_was_broken_off(fitted, tmp_path, monkeypatch, capsys):
    from spectrum.planning import journal

    path, words = fitted
    mine = [*(word for word in words if not word.startswith(("to=", "keep="))), f"out={tmp_path}"]
    count = []

    def broken(self, *given):
        count.append(given)
        add(self, *given)
        if len(count) == 3:
            raise KeyboardInterrupt

    add = journal.Journal.add
    monkeypatch.setattr(journal.Journal, "add", broken)
    assert call("fit", *mine, f"to={tmp_path / 'again.json'}", capsys=capsys).code == 130
    assert not (tmp_path / "again.json").exists()
    (kept,) = tmp_path.glob("plans/*.journal")
    assert len(kept.read_text().splitlines()) == 4
    monkeypatch.setattr(journal.Journal, "add", add)
    said = call("fit", *mine, f"to={tmp_path / 'again.json'}", capsys=capsys)
    assert said.code == 0 and "expected: " in said.out and "cost: " in said.out
    before, after = (json.loads(p.read_text()) for p in (path, tmp_path / "again.json"))
    for one in (before, after):
        one["made_with"].pop("command")
        one.pop("digest")
    assert before == after


def test_run_samples_with_the_plan_that_is_kept_for_its_runs_and_with_a_file(fitted, weights, tmp_path, capsys):
    path, _ = fitted
    words = [*SMALL, "timing=0", "probe=1", f"model.weights={weights}", f"out={tmp_path}"]
    said = call("run", "method=planned", "runs=4", *words, capsys=capsys)
    assert said.code == 0, said.err
    (found,) = tmp_path.rglob("planned-*/record.json")
    record = json.loads(found.read_text())
    plan = read_plan(path)
    assert record["nfe"] == 4 and record["runs"]["cond"] == plan.run_steps
    assert record["method"]["forecast"]["weights"] == plan.weights
    assert record["label"] == "planned", "runs stand in a column, and weights in the plan"
    assert record["method"]["plan"] == {
        "digest": plan.digest, "steps": 9, "sigmas": plan.setting.sigmas, "differs": [],
    }  # fmt: skip
    assert record["metrics"]["psnr"]["mean"] > 15
    before = found.read_bytes()
    assert call("run", "method=planned", f"plan={path}", *words, capsys=capsys).code == 0
    assert found.read_bytes() == before, "the same plan is the same run"
    line = error_line(call("run", "method=planned", "runs=5", *words, capsys=capsys))
    assert "no plan of 5 runs in 9 steps is kept; there are plans of 4 runs" in line and "model.steps=9 runs=5" in line
    line = error_line(call("run", "method=planned", *words, capsys=capsys))
    assert "type runs= or plan=FILE" in line
    line = error_line(call("run", "method=fora", f"plan={path}", *words, capsys=capsys))
    assert "plan= goes with method=planned" in line


def test_a_plan_of_other_weights_or_steps_is_refused_unless_forced(fitted, tmp_path, capsys):
    path, _ = fitted
    quick = [*SMALL, "timing=0", "probe=0", f"out={tmp_path}"]
    steps = ["method=planned", f"plan={path}", *quick[1:]]
    line = error_line(call("run", *steps, "model.steps=10", capsys=capsys))
    assert "was made for steps 9, here 10" in line and "plan_force" not in line
    line = error_line(call("run", *steps, "model.steps=10", "plan_force=true", capsys=capsys))
    assert "was made for steps 9, here 10" in line, "no plan goes with another number of steps"
    line = error_line(call("run", "method=planned", f"plan={path}", "runs=5", *quick, capsys=capsys))
    assert "runs 4 steps: leave runs= out" in line


def test_a_record_says_what_a_plan_was_not_made_for_and_whether_it_was_forced(fitted, tmp_path, capsys):
    path, _ = fitted
    words = ["method=planned", f"plan={path}", *SMALL, "timing=0", "probe=0", f"out={tmp_path}"]
    assert call("run", *words, "model.call.true_cfg_scale=2", capsys=capsys).code == 0
    (found,) = tmp_path.rglob("planned-*/record.json")
    record = json.loads(found.read_text())
    assert record["method"]["plan"]["differs"] == ["true_cfg_scale 4.0, here 2"] and record["label"] == "planned"
    assert call("run", *words, "plan_force=true", capsys=capsys).code == 0
    (forced,) = (p for p in tmp_path.rglob("planned-*/record.json") if p != found)
    record = json.loads(forced.read_text())
    assert record["method"]["plan"]["sigmas"] is None and record["label"] == "planned (forced)"


def test_a_plan_by_branch_is_the_same_method_again_from_its_record(tmp_path, capsys):
    words = ["model.steps=9", "prompts.limit=1"]
    assert call("fit", "runs=3", "planner=given", "branches=own", *words, f"to={tmp_path / 'p.json'}").code == 0
    plan = read_plan(tmp_path / "p.json")
    assert list(plan.weights) == ["cond", "uncond"] and plan.weights["cond"] != plan.weights["uncond"]
    words += ["method=planned", f"plan={tmp_path / 'p.json'}", "timing=0", f"out={tmp_path}"]
    said = call("run", *words, capsys=capsys)
    assert said.code == 0, said.err
    record = read_record(next(tmp_path.rglob("planned-*/record.json")))
    again = build_method(method_from(record.method), record.schedule)
    assert again.by_branch and again.fitted_steps == 9 and again.fitted_sigmas == tuple(plan.setting.sigmas)
    assert again.memory == max(len(gap) for gap in plan.weights["cond"])


def test_several_budgets_are_fitted_from_the_same_uncached_runs(fitted, tmp_path, capsys):
    path, words = fitted
    words = [word for word in words if not word.startswith(("runs=", "to=", "keep=", "out="))]
    said = call("fit", *words, "runs=3,4", f"out={tmp_path}", capsys=capsys)
    assert said.code == 0 and said.out.count("written:") == 2, said.err
    three, four = (read_plan(tmp_path / "plans" / f"tiny-{plan_name(9, runs)}") for runs in (3, 4))
    assert len(three.run_steps) == 3
    assert (four.weights, four.run_steps, four.full_runs) == (
        read_plan(path).weights, read_plan(path).run_steps, read_plan(path).full_runs,
    )  # fmt: skip
    assert "to= names one file" in error_line(call("fit", "runs=3,4", f"to={path}", capsys=capsys))


def test_weights_can_be_those_of_a_method(tmp_path, capsys):
    to = tmp_path / "p.json"
    words = ["runs=4", "planner=given", "planner.run_steps=[0,1,3,6]", *SMALL, f"to={to}", f"out={tmp_path}"]
    assert call("fit", "forecast=taylorseer", *words).code == 0
    plan = read_plan(to)
    assert plan.forecast == "taylorseer" and plan.expected is None and not any(plan.ridges)
    assert plan.weights[""][2] == pytest.approx([0.0, -0.75, 1.75]), "steps 4 and 5 lie 1 and 2 behind 3, which is 2 on"
    assert "weights of taylorseer" in call("plan", f"plan={to}", capsys=capsys).out
    line = error_line(call("plan", f"plan={to}", "model=flux", capsys=capsys))
    assert "type method=planned to see what it does" in line


def sample(pipe, **call_changes):
    given = {"num_inference_steps": 9, "true_cfg_scale": 4.0, "negative_prompt": "", "height": 96, "width": 96}
    given |= {"max_sequence_length": 16, "output_type": "pt", **call_changes}
    return pipe("a cat on blue", **given, generator=torch.Generator().manual_seed(0)).images


def test_the_library_takes_a_plan_and_finds_a_kept_one(fitted, weights):
    path, _ = fitted
    pipe = load_pipeline(compose([f"model.weights={weights}"]).model, torch.device("cpu"))
    plan = read_plan(path)
    with accelerate(pipe, "planned", plan=path) as handle:
        sample(pipe)
        assert {tuple(branch["run_steps"]) for branch in handle.report().values()} == {tuple(plan.run_steps)}
        assert handle.plan(9).runs == plan.run_steps and "forced" not in repr(handle)
        with pytest.raises(SpectrumError, match="fitted for 9 steps and this run has 8"):
            sample(pipe, num_inference_steps=8)
        with pytest.raises(SpectrumError, match="another grid: at step"):
            pipe.scheduler.register_to_config(shift=3.0)
            pipe.scheduler.set_shift(3.0)
            sample(pipe)
    with accelerate(pipe, "planned", plan=path, force=True) as handle:
        sample(pipe)
        assert repr(handle).endswith("of time alone, its plan forced>")
        assert {tuple(branch["run_steps"]) for branch in handle.report().values()} == {tuple(plan.run_steps)}
    pipe.scheduler.set_shift(1.0)
    with pytest.raises(SpectrumError, match="no plan of 4 runs in 50 steps"):
        accelerate(pipe, "planned", runs=4)
    with pytest.raises(SpectrumError, match="go with the method 'planned'"):
        accelerate(pipe, "fora", plan=path)


def test_a_handle_fits_a_plan_on_its_own_pipeline_and_runs_it(tmp_path):
    pipe = load_pipeline(compose([]).model, torch.device("cpu"))
    call = {"true_cfg_scale": 4.0, "negative_prompt": "", "height": 96, "width": 96, "max_sequence_length": 16}
    with accelerate(pipe, "fora") as handle:
        plan = handle.fit(["a cat on blue"], 4, tmp_path / "p.json", steps=9, tries=1, **call)
        assert handle.method.name == "planned" and read_plan(tmp_path / "p.json").run_steps == plan.run_steps
        image = sample(pipe)
        assert {tuple(branch["run_steps"]) for branch in handle.report().values()} == {tuple(plan.run_steps)}
        with pytest.raises(SpectrumError, match="list of texts"):
            handle.fit([], 4)
        with pytest.raises(SpectrumError, match="no file that can be written"):
            handle.fit(["a cat on blue"], 4, tmp_path, steps=9, **call)
        assert torch.equal(sample(pipe), image), "what was refused leaves the method as it was"
    with pytest.raises(SpectrumError, match="taken off this pipeline"):
        handle.fit(["a cat on blue"], 4, steps=9, **call)
    with accelerate(pipe, "planned", plan=tmp_path / "p.json"):
        assert torch.equal(sample(pipe), image)


def test_steps_that_cannot_be_counted_or_disturbed_are_refused():
    pipe = load_pipeline(compose([]).model, torch.device("cpu"))
    call = {"runs": 3, "steps": 5, "height": 96, "width": 96, "max_sequence_length": 16}
    with accelerate(pipe, "fora") as handle:
        with pytest.raises(SpectrumError, match="steps its scheduler 7 times for 5 steps"):
            handle.fit(["a cat on blue"], sigmas=[1.0, 0.8, 0.6, 0.4, 0.3, 0.2, 0.1], **call)
        unipc = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
        pipe.scheduler = UniPCMultistepScheduler.from_config(pipe.scheduler.config, **unipc)
        with pytest.raises(SpectrumError, match="remembers earlier steps"):
            handle.fit(["a cat on blue"], **call)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "how many runs may a sample cost"),
        (["runs=4,x"], "runs=4,x is no whole number: type runs=10, or runs=8,10,14"),
        (["runs=1"], "runs must be at least 2, got 1"),
        (["runs=10"], "runs=10 is more than the 9 steps"),
        (["runs=4", "site=modules"], "type site=output or site=exit"),
        (["runs=4", "memory=two"], "memory=two is no whole number"),
        (["runs=4", "branches=both"], "type branches=shared or branches=own"),
        (["runs=4", "prompts=heldout"], "nothing is fitted on the heldout prompts"),
        (["runs=4", "planner.trise=5"], "trise"),
        (["runs=4", "prompts=inline", "prompts.text=[]"], "prompt"),
        (["runs=4", "keep=maybe"], "keep=maybe"),
        (["runs=4", "forecast=magic"], "forecast=magic is unknown: type forecast= with one of fitted, local, "),
        (["runs=4", "forecast=freqca"], "do not follow from the run steps"),
        (["runs=4", "forecast=planned"], "do not follow from the run steps"),
        (["runs=4", "forecast=none"], "do not follow from the run steps"),
    ],
)
def test_what_cannot_be_fitted_says_why(words, says, tmp_path, capsys):
    said = call("fit", "model.steps=9", *words, f"to={tmp_path / 'p.json'}", capsys=capsys)
    assert says in error_line(said)
    assert not (tmp_path / "p.json").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["runs=13", "planner=rule", "planner.method=fora"],
            "this schedule cannot run exactly 13 of 50 steps; type runs= one of",
        ),
        (["runs=5", "planner=given", "planner.run_steps=[0,1,3]"], "planner.run_steps has 3 steps, and runs=5"),
    ],
)
def test_a_planner_that_scores_nothing_refuses_before_anything_is_sampled(words, says, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("spectrum.bench.fitting.Fitting", lambda *given: pytest.fail("something was sampled"))
    assert says in error_line(call("fit", *words, *SMALL[1:], f"out={tmp_path}", capsys=capsys))
