"""The page of a CPU's benchmark follows from the raw values, and the benchmark runs."""

import csv
import json
import shutil

import pytest
import torch
from auditing.cpu import check_cpu
from auditing.findings import Findings
from typed import typed

from eval.figures.cpu_figure import shares_figure
from eval.tables import cpu
from spectrum.config.reader import RESULTS

UNCACHED = {"calls": [2] * 50}


def a_round(before, candidate, after):
    seconds = {key: {"denoise": value, "cpu": 2 * value} for key, value in
               (("before", before), ("candidate", candidate), ("after", after))}  # fmt: skip
    return {**seconds, "samples": [], "runs": [], "calls": [], "nfe": 0.0}


def a_side(*rounds, calls=(2,) * 10 + (0,) * 40, held=3 << 20, psnr=(30.0, 32.0)):
    return {"calls": list(calls), "held": held, "psnr": list(psnr), "rounds": [a_round(*one) for one in rounds]}


def about():
    return {
        "environment": {"hardware": {"device": "cpu", "cpu": "a CPU", "threads": 2},
                        "packages": {"torch": "2", "diffusers": "0"}},
        "conditions": {"date": "2026-01-02T03:04:05+00:00", "git": {"commit": "c0ffee1234"}, "forced": False},
    }  # fmt: skip


def embedded(**sides):
    return {**about(), "steps": 50, "batch": 8, "uncached": UNCACHED, "sides": sides}


def test_a_side_stands_between_two_uncached_calls():
    side = a_side((4.0, 1.0, 6.0), (4.0, 2.0, 4.0), (6.0, 2.0, 6.0))
    assert cpu.speedup(side, "denoise") == (3.0, 2.0, 5.0)
    side["rounds"][0]["candidate"]["cpu"] = 5.0
    assert cpu.speedup(side, "cpu")[0] == 2.0, "in the time of the cores"


def test_nfe_counts_calls_over_those_of_a_step():
    assert cpu.nfe(a_side(), UNCACHED) == 10.0
    assert cpu.nfe(a_side(calls=(2, 1, 0)), UNCACHED) == 1.5


def test_the_page_has_each_side_with_its_share_of_the_ideal():
    text = cpu.page({"embedded": embedded(mine=a_side((4.0, 1.0, 5.0), (4.0, 1.0, 5.0)))})
    assert "| mine | 10 | 4.50x [4.50, 4.50] | 90.0 % | 4.50x [4.50, 4.50] | 90.0 % | 3.00 | 31.0 |" in text
    assert "a CPU with 2 threads" in text and "2026-01-02, commit `c0ffee123`" in text and "loaded" not in text
    assert "What is kept" not in text


def test_a_loaded_machine_is_shown():
    part = embedded(mine=a_side((1.0, 1.0, 1.0)))
    part["conditions"]["forced"] = True
    assert "**the machine was loaded: do not quote these figures**" in cpu.page({"embedded": part})


def test_what_is_kept_is_shown_beside_what_was_foreseen():
    rows = [{"side": "spectrum 14", "keep": "sums", "foreseen": 1 << 20, "held": 1 << 21, "psnr": [30.0, 31.0]},
            {"side": "other", "keep": "features", "foreseen": None, "held": 1 << 20, "psnr": [1.0]}]  # fmt: skip
    text = cpu.page({"memory": {**about(), "batch": 8, "rows": rows}})
    assert "| spectrum 14 | `sums` | 1.000 | 2.000 | 30.50 |" in text and "| other | `features` |  | 1.000 |" in text


def test_the_other_parts_have_their_tables():
    host = {**about(), "microseconds": {"fora": [90.0, 110.0, 100.0]}}
    row = {"features": 4, "way": "chosen", "ms": 12.34, "of_copy": 0.5, "error_ulp": 0.5}
    copy = {"features": 4, "way": "copy", "ms": 6.0}
    text = cpu.page({"host": host, "sums": {**about(), "rows": [copy, row]}})
    assert "| fora | 100 | 90 to 110 |" in text
    assert "| 4 | copy | 6.0 |  |  |" in text and "| 4 | chosen | 12.3 | 0.50 | 0.50 |" in text


def test_throughput_is_compared_with_both_loops_round_by_round():
    rounds = [{"loop none": 2.0, "loop spectrum": 5.0, "workers spectrum": 20.0},
              {"loop none": 4.0, "loop spectrum": 10.0, "workers spectrum": 20.0},
              {"loop none": 4.0, "loop spectrum": 8.0, "workers spectrum": 24.0}]  # fmt: skip
    same = {"spectrum": {"loop and workers": {"pictures": 8, "equal": 3, "largest_difference": 2}}}
    part = {**about(), "threads": 2, "prompts": 32, "singles": 8, "batch": 16, "rounds": rounds, "same_bits": same}
    text = cpu.page({"throughput": part})
    assert "| spectrum, 14 of 50 runs | 20.0 | 6.00 [5.00, 10.00] | 3.00 [2.00, 4.00] |" in text
    assert "| uncached | 4.0 | 1 | 0.40 [0.40, 0.50] |" in text and "| spectrum: loop and workers | 8 | 3 | 2 |" in text
    assert cpu.short_throughput({"throughput": part}).count("\n|") == 5


def test_scale_has_a_line_for_each_size():
    costs = {"bookkeeping_ms_per_prompt": 1.234, "bookkeeping_cpu_ms_per_prompt": 2.0}
    again = {"bookkeeping_ms_per_prompt": 0.5}
    job = {"prompts": 100, "before_mib": 700.4, "peak_mib": 720.6, "first": costs, "again": again}
    table = {"samples": 192, "rows": 17, "seconds": {"read records": 0.26, "figures": 3.0}, "peak_mib": 800.0}
    text = cpu.page({"scale": {**about(), "jobs": [job], "tables": [table]}})
    assert "| 100 | 1.23 | 2.00 | 0.50 | 700 | 721 |" in text and "| 192 | 0.3 | 3.0 | 800 |" in text
    assert "in each of its 17 records" in text


def test_the_figure_has_the_share_of_each_side_with_its_interval():
    part = embedded(mine=a_side((4.0, 1.0, 6.0), (4.0, 2.0, 4.0), (6.0, 2.0, 6.0)), **{"diffusers X": a_side(
        (4.0, 1.0, 4.0))})  # fmt: skip
    figure = shares_figure(part, "title")
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.get_yticklabels()] == ["mine", "diffusers X"]
    points = [line.get_xdata()[0] for line in axis.lines if line.get_marker() == "o"]
    spans = [[float(x) for x, _ in bars.get_segments()[0]] for bars in axis.collections]
    assert points == [60.0, 80.0] and spans == [[40.0, 100.0], [80.0, 80.0]]
    part["sides"]["mine"]["rounds"][0]["candidate"]["cpu"] = 4.0  # of two times as much, so that it is 40 % in all
    (axis,) = shares_figure(part, "title").axes
    assert [line.get_xdata()[0] for line in axis.lines if line.get_marker() == "|"] == [50.0, 80.0]
    mine, other = (text.get_color() for text in axis.get_yticklabels())
    assert mine != other


def test_the_csv_has_every_side():
    lines = cpu.csv_table({"embedded": embedded(mine=a_side((4.0, 1.0, 5.0)))}).splitlines()
    assert lines[1] == "mine,10,4.5,4.5,4.5,4.5,4.5,4.5,3145728,31"


def test_the_committed_page_is_that_of_the_committed_values():
    parts = cpu.read_parts(RESULTS / "cpu")
    assert [*parts] == [*cpu.PARTS]
    assert (RESULTS / "tables" / "cpu.md").read_text() == cpu.page(parts)
    assert not any(part["conditions"]["forced"] or part["environment"]["git"]["dirty"] for part in parts.values())


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("parts=all", "parts=all is unknown: type parts= with some of sums,host,memory,embedded"),
        ("rounds=0", "rounds=0 is no number of at least 1: type rounds=7"),
        ("force=yes", "force=yes is unknown: type force=true or leave it out"),
    ],
)
def test_bad_input_is_refused_with_a_line(word, message):
    told = typed("scripts/bench/cpu.py", word)
    assert told.code == 2 and message in told.err and "Traceback" not in told.err


def test_a_part_is_measured_and_written(tmp_path):
    told = typed("scripts/bench/cpu.py", "parts=host", "rounds=1", "force=true", f"to={tmp_path}")
    assert told.code == 0, told.err
    found = json.loads((tmp_path / "host.json").read_text())
    assert {"spectrum", "fora at the output", "diffusers MagCache"} < set(found["microseconds"])
    assert all(0 < value < 1e6 for (value,) in found["microseconds"].values())
    assert found["asked"] == {"rounds": 1, "batch": 8} and found["conditions"]["threads"] == torch.get_num_threads()
    assert "µs a skipped call" in cpu.page(cpu.read_parts(tmp_path))


def test_a_picture_that_is_the_uncached_one_has_no_psnr():
    text = cpu.page({"embedded": embedded(some=a_side((1.0, 1.0, 1.0), psnr=(None, 30.0)),
                                          all=a_side((1.0, 1.0, 1.0), psnr=(None, None)))})  # fmt: skip
    assert "| 30.0 (1 same) |" in text and "| same |" in text


@pytest.mark.parametrize(
    "shown, name",
    [(" 267.9 |", "images a minute, workers spectrum"), (" 5.16 [", "images of none, workers spectrum"),
     (" 1.97] |", "images of spectrum, workers spectrum")],
)  # fmt: skip
def test_a_forged_figure_of_throughput_is_named(shown, name, tmp_path):
    text = (RESULTS / "tables" / "cpu.md").read_text()
    assert text.count(shown) == 1
    (tmp_path / "cpu.md").write_text(text.replace(shown, shown.replace("6", "7").replace("1.9", "1.8")))
    shutil.copy(RESULTS / "tables" / "cpu.csv", tmp_path)
    findings = Findings()
    check_cpu(RESULTS / "cpu", tmp_path, findings)
    assert [finding.name for finding in findings.wrong] == [name]


@pytest.mark.parametrize("column", ["nfe", "speedup", "low", "cpu_speedup", "cpu_high", "held_bytes", "psnr"])
def test_a_forged_figure_of_the_cpu_s_table_is_named(column, tmp_path):
    tables = tmp_path / "tables"
    shutil.copytree(RESULTS / "tables", tables)
    with (tables / "cpu.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows[0][column] = f"{float(rows[0][column]) * 1.001:.6g}"
    with (tables / "cpu.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0]])
        writer.writeheader()
        writer.writerows(rows)
    findings = Findings()
    check_cpu(RESULTS / "cpu", tables, findings)
    assert [finding.name for finding in findings.wrong] == [f"{rows[0]['side']} {column}"] and len(findings.found) > 150
