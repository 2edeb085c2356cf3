"""The parts of a table, on records and experiments changed so that each shows."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from by_hand import records_of_all

from eval.tables import formats, tables
from eval.tables.about import about
from eval.tables.experiments import Row, find_record, load_experiment, made_on_same_data

ROOT = Path(__file__).resolve().parent.parent
MINE = """\
# @package _global_
prompts: {limit: 8}
seeds: [0, 1]
timing: 2
experiment: {name: mine, title: Mine}
hydra: {mode: MULTIRUN, sweeper: {params: {method: "none,spectrum", runs: 14, schedule.run_steps: "[0,1,2],[0,3]"}}}
"""
LOAD = "import json; from eval.tables.experiments import load_experiment as load; e = load('mine'); "
LOAD += "print(json.dumps([e.name, e.data, [[dict(row.keys), row.command] for row in e.rows]]))"


@pytest.fixture(scope="module")
def records():
    return records_of_all("tiny_table", "tiny_growth")


@pytest.fixture
def filled(records):
    return tables.match_rows(load_experiment("tiny_table"), records)


def test_an_experiment_names_what_all_its_rows_share(tmp_path):
    """A file of one's own, in a copy of the project."""
    for folder in ("spectrum", "eval", "baselines", "configs"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("assets", "__pycache__"))
    (tmp_path / "configs" / "experiment" / "mine.yaml").write_text(MINE)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", LOAD], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    name, data, rows = json.loads(done.stdout)
    assert (name, data["limit"], data["seeds"]) == ("mine", 8, [0, 1])
    command = next(command for keys, command in rows if keys["method"] == "spectrum")
    assert "prompts.limit=8 seeds=[0,1] timing=2 method=spectrum runs=14 schedule.run_steps=[0,1,2] eval=" in command
    assert {tuple(keys["schedule.run_steps"]) for keys, _ in rows} == {(0, 1, 2), (0, 3)}


def test_a_command_leaves_out_what_is_the_default():
    assert all("seeds=" not in row.command for row in load_experiment("flux_drawbench").rows)


def test_an_ablation_knows_what_it_varies():
    assert load_experiment("tiny_growth").varies == "schedule.growth" and load_experiment("tiny_table").varies is None


def test_a_row_without_a_record_is_called_by_its_keys():
    keys = {"method": "spectrum", "runs": 14, "method.forecast.degree": 3}
    assert Row(keys, "").label == "spectrum (runs 14, degree 3)" and Row({"method": "none"}, "").label == "none"


def test_the_record_with_the_nearest_number_of_runs_is_taken(records, filled):
    row, own = next((r, o) for r, o in filled.rows if r.keys == {"method": "teacache", "runs": 14})
    others = [dataclasses.replace(own, id=str(nfe), nfe=nfe) for nfe in (13.5, 14.125, 13.75, 14.5)]
    assert find_record(row, made_on_same_data(others, filled.experiment.data)).nfe == 14.125
    far = [dataclasses.replace(own, nfe=nfe) for nfe in (13.4, 14.6)]
    assert find_record(row, far) is None


def test_a_setting_of_the_schedule_tells_rows_apart(records):
    filled = tables.match_rows(load_experiment("tiny_growth"), records)
    row, own = next((r, o) for r, o in filled.rows if o is not None and o.caches)
    other = dataclasses.replace(own, schedule={**own.schedule, "growth": own.schedule["growth"] + 1})
    assert find_record(row, [own]) is own and find_record(row, [other]) is None


def gpu(record, name, batch):
    hardware = {"gpu": name}
    return dataclasses.replace(record, timing=dataclasses.replace(record.timing, hardware=hardware, batch=batch))


def test_what_a_table_was_made_on_is_said_above_it(filled):
    one, two, three, *_ = (r for r in filled.records if r.timing)
    cpu = one.timing.hardware
    rows = [gpu(one, "H100", 4), gpu(two, "H200", 1), dataclasses.replace(three, model_kind="random weights")]
    table = dataclasses.replace(filled, rows=list(zip([row for row, _ in filled.rows], rows, strict=False)))
    text = about(table)
    chips = f"H100, H200, {cpu['cpu']} with {cpu['threads']} threads"
    assert text.startswith("Model `tiny` (embedded, trained, random weights), 192 samples (64 prompts x 3 seeds), ")
    assert f" Timed on {chips}, float32, batch 1, 4. torch " in text
    alone = dataclasses.replace(filled, rows=[(filled.rows[0][0], rows[0])])
    assert " Timed on H100, float32, batch 4. torch " in about(alone)
    untimed = dataclasses.replace(filled, rows=[(filled.rows[0][0], dataclasses.replace(one, timing=None))])
    assert "Timed on" not in about(untimed)


def test_what_latex_reads_as_a_command_is_escaped(filled):
    (row, record), *_ = filled.rows
    strange = dataclasses.replace(record, label="a&b #1 50% x_y")
    text = formats.latex(dataclasses.replace(filled, rows=[(row, strange)]))
    assert r"a\&b \#1 50\% x\_y &" in text
