"""`profile=true`: the ledger of a batch's time by part, and the trace of the profiler."""

import gzip
import json
import shutil

import pytest
from command import QUICK, call, error_line
from rich.console import Console

from spectrum.bench import profiling
from spectrum.bench.profile_stage import print_profile
from spectrum.bench.profiling import stored
from spectrum.bench.time_ledger import conclusion, heads_and_rows
from spectrum.records.record import read_record

WORDS = ("method=fora", "schedule.interval=3", "model.steps=9", "batch=2", "prompts.limit=2", "timing=0", "probe=0",
         "profile=true")  # fmt: skip
ABOUT = 0.01
"""The share of a step's time by which its parts may be off from it: they are rounded."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a profiled run of the embedded model."""
    out = tmp_path_factory.mktemp("out")
    assert call("run", *WORDS, f"out={out}").code == 0
    (found,) = (path.parent for path in out.rglob("ledger.json"))
    return found


@pytest.fixture(scope="module")
def ledger(folder):
    return json.loads((folder / "ledger.json").read_text())


@pytest.fixture(scope="module")
def events(folder):
    with gzip.open(folder / "trace.json.gz", "rt") as file:
        return [event for event in json.load(file)["traceEvents"] if event.get("ph") == "X"]


def within(events, name, around):
    """The events of a name that lie in one of the ranges."""
    spans = [(e["ts"], e["ts"] + e["dur"]) for e in around]
    return [e for e in events if e["name"] == name and any(a <= e["ts"] < b for a, b in spans)]


def test_as_many_steps_ran_as_the_record_says(folder, ledger):
    kinds = ledger["kinds"]
    assert set(kinds) == {"run", "skipped"} and len(ledger["step_ms"]) == 9
    assert sorted(kinds["run"]["steps"] + kinds["skipped"]["steps"]) == list(range(9))
    assert len(kinds["run"]["steps"]) == read_record(folder / "record.json").nfe


def test_the_parts_add_up_to_the_step(ledger):
    for kind in ledger["kinds"].values():
        parts = [part["ms"] for part in kind["parts"].values()]
        assert sum(parts) == pytest.approx(kind["ms"], rel=ABOUT) and min(parts) >= 0
        own = [ledger["step_ms"][step] for step in kind["steps"]]
        assert sum(own) / len(own) == pytest.approx(kind["ms"], rel=ABOUT)
    full = ledger["kinds"]["run"]
    assert full["parts"]["blocks"]["share_of_a_run_step"] == pytest.approx(
        full["parts"]["blocks"]["ms"] / full["ms"], abs=1e-4
    )


def test_skipped_steps_have_no_time_in_the_blocks(ledger):
    run, skipped = (ledger["kinds"][kind]["parts"] for kind in ("run", "skipped"))
    assert run["blocks"]["operators"] > 100
    assert "blocks" not in skipped and "forecast" in skipped and "forecast" not in run
    assert "x_embedder" in run and "x_embedder" not in skipped, "nothing depends on it at a skipped step"
    assert {"norm_out", "proj_out", "scheduler", "loop", "denoiser", "forward"} <= run.keys() & skipped.keys()
    assert "store" in run and "store" not in skipped


def test_the_trace_opens_and_has_the_denoiser(events, ledger):
    kinds = {number: kind for kind, own in ledger["kinds"].items() for number in own["steps"]}
    steps = {e["name"]: e for e in events if e["name"].startswith("step ")}
    assert set(steps) == {f"step {number} {kind}" for number, kind in kinds.items()}, "so few steps are there whole"
    assert ledger["trace"]["steps"] == [0, 8]
    run, skipped = ([e for name, e in steps.items() if name.endswith(kind)] for kind in ("run", "skipped"))
    assert len(within(events, "denoiser", run)) == 2 * len(run), "two CFG branches"
    assert within(events, "blocks", run) and within(events, "norm_out", skipped)
    assert not within(events, "blocks", skipped) and not within(events, "forecast", run)
    assert len(within(events, "forecast", skipped)) == 2 * len(skipped)
    assert len(within(events, "aten::addmm", run)) > 20 * len(within(events, "aten::addmm", skipped)) / len(skipped)


def test_what_follows_is_said(ledger):
    kinds, total = ledger["kinds"], sum(ledger["step_ms"])
    runs = len(kinds["run"]["steps"])
    assert ledger["limit"] == pytest.approx(9 / runs, abs=1e-3)
    assert ledger["speedup"] == pytest.approx(9 * kinds["run"]["ms"] / total, rel=ABOUT)
    assert ledger["efficiency"] == pytest.approx(ledger["speedup"] / ledger["limit"], rel=ABOUT)
    text = conclusion(ledger)
    assert f"Of 9 steps {runs} ran: at most {9 / runs:.3f}x" in text
    assert f"{100 * ledger['efficiency']:.1f} % of that" in text


def test_the_table_fits_a_terminal_and_the_page_has_the_same_figures(folder, ledger, capsys):
    print_profile(ledger, Console(width=80))
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    page = (folder / "ledger.md").read_text()
    for row in heads_and_rows(ledger)[1]:
        assert all(cell in out for cell in row) and f"| {' | '.join(row)} |" in page
    for text in (out, page):
        assert "neither it nor the profiled call is one of the timed ones" in " ".join(text.split())
        assert "trace.json.gz" in text and "perfetto" in text
        assert f"Measured on cpu, {ledger['environment']['hardware']['threads']} threads of" in text


def test_it_is_no_part_of_the_identity_and_is_made_once(folder, capsys):
    out, before = folder.parent.parent, {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}
    plain = [word for word in WORDS if word != "profile=true"]
    assert call("run", *plain, f"out={out}").code == 0
    again = call("run", *WORDS, f"out={out}", capsys=capsys)
    assert again.code == 0 and "ms in a step" in again.out and "profiling" not in again.out
    kept = ("ledger.json", "ledger.md", "trace.json.gz")
    assert {name: (folder / name).stat().st_mtime_ns for name in kept} == {name: before[name] for name in kept}
    assert [path.name for path in out.glob("*/fora-*")] == [folder.name]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("ledger.json", "{}"),
        ("ledger.json", "no"),
        ("trace.json.gz", None),
        ("trace.json.gz", "cut"),
        ("ledger.md", None),
    ],
)
def test_a_profile_that_is_not_whole_counts_for_nothing(folder, tmp_path, name, content):
    for kept in ("ledger.json", "ledger.md", "trace.json.gz"):
        (tmp_path / kept).write_bytes((folder / kept).read_bytes())
    here = json.loads((folder / "ledger.json").read_text())["environment"]
    assert stored(tmp_path, here) is not None
    (tmp_path / name).unlink() if content is None else (tmp_path / name).write_text(content)
    assert stored(tmp_path, here) is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hardware", {"threads": 99}),
        ("hardware", {"device": "cuda"}),
        ("hardware", {"offload": "model"}),
        ("git", {"commit": "0" * 40}),
    ],
)
def test_a_profile_of_another_machine_or_of_other_code_counts_for_nothing(folder, key, value):
    here = json.loads((folder / "ledger.json").read_text())["environment"]
    assert stored(folder, {**here, "command": "another", key: {**here[key], **value}}) is None
    assert stored(folder, {**here, "command": "another"}) is not None


def interrupted(*given):
    raise KeyboardInterrupt


def test_a_profile_of_other_code_is_made_again_and_its_ledger_goes_first(folder, tmp_path, monkeypatch):
    out = tmp_path / "out"
    shutil.copytree(folder.parent.parent, out)
    (mine,) = (path.parent for path in out.rglob("ledger.json"))
    content = json.loads((mine / "ledger.json").read_text())
    content["environment"]["git"] = {"commit": "0" * 40, "dirty": False}
    (mine / "ledger.json").write_text(json.dumps(content))
    with monkeypatch.context() as patch:
        patch.setattr(profiling, "write_bytes", interrupted)
        assert call("run", *WORDS, f"out={out}").code == 130
    assert not (mine / "ledger.json").exists() and (mine / "trace.json.gz").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["profile=maybe"], "profile"),
        (["redo=[profile]"], "type profile=true beside it"),
        (["redo=[profil]", "profile=true"], "redo=profil is unknown: type any of samples, metrics, timing, profile"),
    ],
)
def test_a_bad_setting_is_refused_with_one_line(words, says, capsys, tmp_path):
    assert says in error_line(call("run", *QUICK, *words, f"out={tmp_path}", capsys=capsys))
    assert not list(tmp_path.iterdir())
