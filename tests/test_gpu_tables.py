"""The page of a GPU's timings follows from the raw values, and its benchmark runs everywhere at toy width."""

import json
import subprocess
import sys

import pytest

from eval.tables.gpu import csv_table, page
from eval.tables.gpu_lines import lines_of, read_parts
from spectrum.config.reader import RESULTS


def row(seconds, steps, runs, grown=100, cached=0):
    return {
        "seconds": seconds, "ms": {"step": steps, "denoiser": steps, "scheduler": [0.1] * len(steps)},
        "host_ms": steps, "run_steps": runs, "grown": grown, "cache_bytes": cached,
    }  # fmt: skip


def a_part():
    full = [100.0] * 50
    cached = [100.0 if n % 5 == 0 else 1.0 for n in range(50)]
    return {
        "commit": "c0ffee", "rounds": [
            {"full": row(5.0, full, [*range(50)]), "spectrum 10": row(1.1, cached, [*range(0, 50, 5)], 400, 8)},
            {"full": row(6.0, full, [*range(50)]), "spectrum 10": row(1.0, cached, [*range(0, 50, 5)], 300, 8)},
        ], "last": {"full": row(4.0, full, [*range(50)])},
        "environment": {"hardware": {"gpu": "a GPU", "cuda": "1"}, "packages": {"torch": "2", "diffusers": "0"}},
        "after": {"driver_version": "3"},
    }  # fmt: skip


def test_a_rounds_speedup_is_over_the_uncached_runs_on_both_sides_of_it():
    (full, cached) = lines_of("flux", a_part())
    assert cached.speedups == pytest.approx((5.5 / 1.1, 5.0 / 1.0))
    assert (cached.runs, full.runs) == (10, 50)
    assert cached.efficiency == pytest.approx(5.0 * 10 / 50)
    assert (cached.run_ms, cached.skip_ms, full.skip_ms) == (100.0, 1.0, None)
    assert cached.memory == 300


def test_a_step_between_counts_as_run_only_if_it_takes_most_of_a_full_one():
    part = a_part()
    for one in part["rounds"]:
        one["peer"] = row(2.0, [100.0, 50.0, 80.0, 1.0] + [1.0] * 46, [0, 1, 2])
    assert lines_of("peers", part)[-1].runs == 2


def test_the_page_has_every_part_and_what_a_part_lacks_is_left_out():
    text = page({"flux": a_part()})
    assert "5.00x [5.00, 5.00]" in text and "100.0 %" in text and "Larger models" not in text
    assert csv_table({"flux": a_part()}).splitlines()[2].startswith("flux,spectrum 10,10,1.05,5,1,100,1,300,")


def test_the_committed_pages_lines_are_those_of_the_raw_values():
    parts = read_parts(RESULTS / "gpu")
    (line,) = (line for line in lines_of("peers", parts["peers"]) if line.side == "diffusers TaylorSeer")
    assert line.runs == 13, "its attention is forecast at the other 37 steps, and they take half as long"
    for name in ("flux", "blocks"):
        rounds = parts[name]["rounds"][0]
        for line in lines_of(name, parts[name])[:3]:
            slow = [spent > 90 for spent in rounds[line.side]["ms"]["step"]]
            assert line.runs == sum(slow) == len(rounds[line.side]["run_steps"])


def test_what_is_not_whole_or_not_full_size_makes_no_page(tmp_path):
    for name, changes in (("flux", {"whole": False}), ("peers", {"weights": "tiny"}), ("blocks", {})):
        (tmp_path / f"{name}.json").write_text(json.dumps({**a_part(), "whole": True, "weights": "random", **changes}))
    assert set(read_parts(tmp_path)) == {"blocks"}
    assert read_parts(tmp_path / "nothing") == {}


def bench(*words):
    command = [sys.executable, "scripts/bench/gpu.py", *words]
    return subprocess.run(command, cwd=RESULTS.parent, capture_output=True, text=True)


def test_the_benchmark_runs_at_toy_width_and_a_whole_part_is_not_measured_again(tmp_path):
    words = ["weights=tiny", "rounds=1", f"to={tmp_path}", "seconds=300", "commit=c0ffee"]
    done = bench(*words, "parts=sd35,sd35_run,fit,ledger")
    assert done.returncode == 0, done.stdout + done.stderr
    found = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    assert {name for name, part in found.items() if part["whole"]} == {"sd35", "sd35_run", "fit", "ledger"}
    assert len(found["fit"]["run_steps"]) == 14 and found["fit"]["planned"]["run_steps"] == found["fit"]["run_steps"]
    assert found["ledger"]["spectrum 14"]["run_steps"][:5] == [0, 1, 2, 3, 4]
    assert len(found["sd35"]["rounds"][0]["full"]["ms"]["step"]) == 12
    assert found["sd35"]["commit"] == "c0ffee" and "git" not in found["sd35"]["environment"]
    stamp = (tmp_path / "sd35.json").read_text()
    again = bench(*words, "parts=sd35")
    assert "sd35: measured before" in again.stdout and (tmp_path / "sd35.json").read_text() == stamp
    other = bench(*words[:-1], "commit=beef", "parts=sd35")
    assert "measured before" not in other.stdout and '"beef"' in (tmp_path / "sd35.json").read_text()


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("parts=nonsense", "parts=nonsense is unknown: type parts= with some of ceilings,sums,flux"),
        ("seconds=abc", "seconds=abc is no number of at least 1"),
        ("rounds=0", "rounds=0 is no number"),
        ("weights=foo", "weights=foo: type weights=random or weights=tiny"),
        ("part=flux", "unknown option part=flux"),
    ],
)
def test_bad_input_of_the_benchmark_is_one_line(word, says, tmp_path):
    done = bench(word, f"to={tmp_path}")
    assert done.returncode == 2 and says in done.stderr and len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())
