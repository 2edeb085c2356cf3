"""Studies of plans: rows are products, each is what the commands give, what is kept is not measured again."""

import dataclasses
import json

import numpy as np
import pytest
from auditing.findings import Findings
from auditing.plan_studies import check_plan_studies
from command import call, error_line

from eval.figures.plan_figures import budget_figure, plan_study_figure
from eval.figures.plotting import pyplot
from eval.tables.plan_studies import csv_table, markdown, name_of
from spectrum.bench import plan_study
from spectrum.bench.plan_study import Trial, trials_of
from spectrum.config.reader import choices
from spectrum.core.errors import SpectrumError
from spectrum.records.study_file import Study, StudyRow, read_study, write_study

SAMPLED = {"prompts": "heldout", "prompts.limit": 2, "seeds": [0], "batch": 2, "model.steps": 7}
FIT = {"runs": 3, "model.steps": 7, "prompts.limit": 2, "batch": 2}
ABOUT = {
    "title": "A small one",
    "across": "forecast",
    "sampled": SAMPLED,
    "rows": [{**FIT, "forecast": ["fora", "fitted"]}],
}


def row(runs, planner, forecast, values):
    return StudyRow(
        {"runs": runs, "planner": planner, "forecast": forecast}, [0, 2], 2.0, values, None, 3.0, None, {"git": {}}
    )


STUDY = Study(
    format=1, name="planner", model="tiny", model_kind="embedded, trained", model_identity="x", prompts="y", samples=3,
    seeds=[0], batch=8,
    rows=[
        row(14, "traced", "fora", [30.0, 31.0, 32.0]), row(14, "traced", "fitted", [40.0, 41.0, 42.0]),
        row(10, "lemica", "fora", [20.0, 21.0, 25.0]),
    ],
)  # fmt: skip


def test_rows_are_the_products_of_the_lists_in_each_block():
    trials = trials_of("planner")
    assert len({trial.text for trial in trials}) == len(trials)
    assert sum(trial.keys["planner"] == "traced" for trial in trials) == 5
    judged = {"elsewhere": "prompts=classes", "branches": "prompts=development"}
    for name in choices("plan_study"):
        for trial in trials_of(name):
            assert not trial.fitted or trial.asked.runs
            assert judged.get(name, "prompts=heldout") in trial.sample_words
            assert not {*trial.fit_words} & {judged.get(name, "prompts=heldout")}, "fitted on what it is judged by"


def test_a_row_that_was_not_fitted_is_called_by_its_method_alone():
    kept = dataclasses.replace(STUDY.rows[0], keys={"method": "meancache", "schedule": "meancache_10"})
    given = dataclasses.replace(STUDY.rows[0], keys={"planner": "given", "planner.run_steps": "[0,1]", "runs": 2})
    keys = ["method", "planner", "planner.run_steps", "forecast", "schedule"]
    assert name_of(kept, keys) == "meancache, schedule meancache_10"
    assert name_of(given, keys) == "planned, given, fitted"


def test_what_a_row_is_sampled_with_is_not_what_its_plan_is_fitted_for():
    trial = Trial({"runs": 10, "at.model.steps": 28, "at.solver": "UniPCMultistepScheduler"}, SAMPLED)
    assert "model.steps=28" in trial.sample_words and trial.solver == "UniPCMultistepScheduler"
    assert not any("28" in word or "UniPC" in word for word in trial.fit_words)
    assert not any("UniPC" in word for word in trial.sample_words)


def test_a_study_is_measured_in_parts_and_each_row_is_what_the_commands_give(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plan_study, "plan_study", lambda name: ABOUT)
    assert call("plans", "study=planner", "part=2/2", capsys=capsys).code == 0
    (kept,) = (tmp_path / "outputs/plan_study/planner").glob("*.json")
    before = kept.stat().st_mtime_ns
    assert call("plans", "study=planner", "to=s.json", capsys=capsys).code == 0
    assert kept.stat().st_mtime_ns == before, "the row of the part was not measured again"
    monkeypatch.setattr(plan_study, "sources_digest", lambda: "of other code")
    assert call("plans", "study=planner", "part=2/2", capsys=capsys).code == 0
    rows = tmp_path / "outputs/plan_study/planner"
    assert len(list(rows.glob("*.json"))) == 3, "other code measures again"
    study = read_study(tmp_path / "s.json")
    assert [own.keys["forecast"] for own in study.rows] == ["fora", "fitted"] and study.samples == 2
    words = ["model.steps=7", "prompts.limit=2", "batch=2"]
    assert call("fit", "runs=3", *words, "to=p.json", capsys=capsys).code == 0
    more = ["timing=0", "probe=0", "plan=p.json", "out=run"]
    assert call("run", "method=planned", *words, *more, capsys=capsys).code == 0
    record = json.loads(next((tmp_path / "run").rglob("planned-*/record.json")).read_text())
    fitted = study.rows[1]
    assert fitted.psnr == pytest.approx(record["metrics"]["psnr"]["values"], abs=1e-3)
    assert fitted.run_steps == record["runs"]["cond"] and fitted.weights == record["method"]["forecast"]["weights"]
    reuse = study.rows[0]
    assert all(own == [1.0] or (own[-1] == 1.0 and not any(own[:-1])) for own in reuse.weights[""])
    assert reuse.psnr != fitted.psnr and fitted.made_with["packages"]


def test_a_row_is_measured_again_for_another_plan_and_other_prompts(monkeypatch):
    trial = Trial({"method": "planned", "runs": 10}, {"prompts": "heldout", "prompts.limit": 2})
    own, digest = trial.id, trial.plan
    assert digest and Trial({"method": "planned", "runs": 9}, trial.sampled).plan not in (None, digest)
    assert Trial(trial.keys, {**trial.sampled, "prompts.limit": 3}).id != own
    monkeypatch.setattr(Trial, "plan", property(lambda self: "0" * 16))
    assert trial.id != own
    fitted = Trial({"runs": 10}, trial.sampled)
    assert fitted.id != Trial({"runs": 10, "prompts.limit": 4}, trial.sampled).id


@pytest.mark.parametrize(
    ("words", "says"),
    [([], "which study? type study= with one of"), (["study=planner", "part=3/2"], "part=3/2 is no part")],
)
def test_bad_words_are_refused(words, says, capsys):
    assert says in error_line(call("plans", *words, capsys=capsys))


def test_a_table_has_one_factor_across_and_every_figure_follows_from_the_values():
    about = {"title": "Planners", "across": "forecast"}
    text = markdown(about, STUDY)
    assert "| by forecast | runs | fora | fitted |" in text
    assert "| traced | 14 | 31.00 ± " in text and "| **41.00 ± " in text
    assert "| lemica | 10 | 22.00 ± " in text and text.rstrip().endswith("| - |")
    assert "3 held-out prompts with 1 seed, in batches of 8" in text
    assert "PSNR, worst 5 %" in markdown({"title": "Planners"}, STUDY)
    assert len(csv_table(STUDY).splitlines()) == 4
    figure = plan_study_figure(STUDY, "Planners")
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["14 runs", "10 runs"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["traced, fora", "traced, fitted"]
    pyplot().close(figure)


def test_with_runs_across_the_best_of_each_number_of_runs_is_marked_and_each_method_has_a_line():
    rows = [
        dataclasses.replace(row(runs, "traced", "fitted", [base, base + 1, base + 2]), nfe=float(runs))
        for runs, base in ((14, 30.0), (10, 20.0), (14, 33.0), (10, 18.0))
    ]
    rows = [
        dataclasses.replace(own, keys={"method": method, "runs": own.keys["runs"]})
        for own, method in zip(rows, ["fora", "fora", "planned", "planned"], strict=True)
    ]
    study = dataclasses.replace(STUDY, rows=rows)
    rows += [dataclasses.replace(own, keys={**own.keys, "method": "x"}, psnr=[1.0, 2.0, 3.0]) for own in rows[:2]]
    study = dataclasses.replace(STUDY, rows=[*rows, row(25, "traced", "fitted", [1.0, 2.0, 3.0])])
    text = markdown({"title": "Budgets", "across": "runs"}, study)
    assert "| by runs | 25 | 14 | 10 |" in text
    assert "| - | 31.00 ± 2.48 | **21.00 ± 2.48**" in text and "| 2.00 ± 2.48 | **34.00 ± 2.48** | 19.00 ± 2.48" in text
    assert "| 2.00 ± 2.48 |" in text, "one that has no rival is not the best of any"
    study = dataclasses.replace(STUDY, rows=rows[:4])
    figure = budget_figure(study, "Budgets")
    (axis,) = figure.axes
    assert all(list(line.get_xdata()) == [10.0, 14.0] for line in axis.lines if len(line.get_xdata()) == 2)
    assert {text.get_text() for text in axis.texts} == {"fora", "planned"}
    pyplot().close(figure)


def test_a_study_that_was_changed_or_cut_is_refused(tmp_path):
    path = tmp_path / "s.json"
    write_study(path, STUDY)
    assert dataclasses.replace(read_study(path), digest="") == STUDY
    text = path.read_text()
    path.write_text(text.replace("41.0", "43.0"))
    with pytest.raises(SpectrumError, match="was changed after it was written"):
        read_study(path)
    path.write_text(text[:100])
    with pytest.raises(SpectrumError, match="no whole study"):
        read_study(path)
    write_study(path, dataclasses.replace(STUDY, samples=4))
    with pytest.raises(SpectrumError, match="lack samples"):
        read_study(path)


@pytest.mark.parametrize("across", [None, "forecast"])
def test_the_audit_works_the_tables_of_a_study_out_again(across, tmp_path):
    values = np.random.default_rng(0).normal(30, 3, (3, 40)).tolist()
    rows = [dataclasses.replace(own, psnr=psnr) for own, psnr in zip(STUDY.rows, values, strict=True)]
    study, about = dataclasses.replace(STUDY, rows=rows, samples=40), {"title": "Planners", "across": across}
    write_study(tmp_path / "studies" / "planner.json", study)

    def wrong(text):
        (tmp_path / "planner.md").write_text(text)
        findings = Findings()
        check_plan_studies(tmp_path / "studies", tmp_path, findings)
        assert len(findings.found) > 10
        return [finding.name for finding in findings.wrong]

    text = markdown(about, study)
    (tmp_path / "planner.csv").write_text(csv_table(study))
    assert not wrong(text)
    mean = f"{np.mean(values[1]):.2f} ±"
    assert mean in text and wrong(text.replace(mean, "31.99 ±")) == ["planner cells"]
    (tmp_path / "planner.csv").write_text(csv_table(study).replace(f"{np.mean(values[1]):.12g}", "31.5"))
    assert wrong(text) == ["planner line 1 psnr"]
