"""A method by others: what is checked before it stands on the leaderboard, and what is refused."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import pytest
from command import ROOT, call
from hydra.core.global_hydra import GlobalHydra
from submitted import FILE, PACKAGE, RUNS, STEPS, WORDS, cleaned, forget, rules, shifted

from eval.tables.leaderboard import Author, leaderboard, read_authors
from spectrum.bench.machine import ROUNDS
from spectrum.bench.submission import Submission, fitted_on_calibration, runs_here
from spectrum.commands import run, submit
from spectrum.commands.guard import guarded
from spectrum.config import reader
from spectrum.core.errors import SpectrumError
from spectrum.models.identity import EMBEDDED, digest
from spectrum.records.files import identity
from spectrum.records.record import read_record, read_records, write_record


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the configs with three methods of a user's package, and the records of one of them."""
    folder = tmp_path_factory.mktemp("submit")
    shutil.copytree(ROOT / "configs", folder / "configs")
    (folder / "users_method.py").write_text(PACKAGE)
    for name, function, more in (("mine", "damped", "damping: 0.4"), ("other", "damped", "damping: 0.9"),
                                 ("fitted", "damped", "damping: null"), ("counted", "counting", ""),
                                 ("listed", "listed", "factors: [0.1, 0.2]")):  # fmt: skip
        text = FILE.format(name="mine" if name == "other" else name, function=function, more=more)
        (folder / "configs" / "method" / f"{name}.yaml").write_text(text)
    patch = pytest.MonkeyPatch()
    patch.syspath_prepend(str(folder))
    for module in (reader, run):
        patch.setattr(module, "CONFIGS", folder / "configs")
    forget()
    for method in ("none", "taylorseer", "mine"):
        own = [f"runs={RUNS}", f"timing={ROUNDS}"] if method != "none" else ["timing=0"]
        words = [f"method={method}", *own, *WORDS, "probe=0"]
        assert call("run", *words, "plugins=users_method", f"out={folder / 'outputs'}").code == 0
    for path in (folder / "outputs").rglob("record.json"):
        record = cleaned(read_record(path))
        place = "results/records" if record.name in ("none", "taylorseer") else "submission"
        write_record(folder / place / f"{record.id}.json", record)
    text = "method,who,link\ntaylorseer,this project,https://arxiv.org/abs/2503.06923\n"
    (folder / "results" / "submissions.csv").write_text(text)
    yield folder
    patch.undo()
    sys.modules.pop("users_method", None)
    forget()


@pytest.fixture
def mine(project, tmp_path):
    """The project's results and the submission, to be changed."""
    for name in ("results", "submission"):
        shutil.copytree(project / name, tmp_path / name)
    return tmp_path


def submitted(folder, capsys, *words, name="mine", **changes):
    """(exit code, output, error line) of `spectrum submit`."""
    own = [name, f"records={folder / 'submission'}", "plugins=users_method", *words]
    code = guarded(lambda: submit.main(own, rules(**changes), folder / "results"))
    GlobalHydra.instance().clear()
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_method_that_meets_every_rule_is_checked_and_then_added(mine, capsys):
    before = content(mine)
    code, out, err = submitted(mine, capsys, "--check")
    assert code == 0, err
    assert [line.rpartition(": ")[2] for line in out.splitlines()[:6]] == ["yes"] * 6 and "can be submitted" in out
    assert content(mine) == before, "a check changes nothing"
    code, out, err = submitted(mine, capsys, "who=A. Author", "link=https://example.org/mine")
    assert code == 0, err
    (path,) = (mine / "submission").glob("*.json")
    assert (mine / "results" / "records" / path.name).read_bytes() == path.read_bytes()
    assert read_authors(mine / "results" / "submissions.csv")["mine"] == Author("A. Author", "https://example.org/mine")
    page = (mine / "results" / "leaderboard.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line[:2] == "| "][2:]
    assert {row[0].split()[0] for row in rows} == {"mine", "taylorseer"}
    values = [float(row[2].split()[0]) for row in rows]
    assert values == sorted(values, reverse=True)
    assert rows[0][6] == "-" and rows[1][6].strip("(").startswith("-"), "the first row has none above it"
    by_name = {row[0].split()[0]: row for row in rows}
    assert by_name["mine"][7:] == ["A. Author", "<https://example.org/mine>"]
    assert by_name["taylorseer"][7:] == ["this project", "[arXiv 2503.06923](https://arxiv.org/abs/2503.06923)"]
    after = content(mine)
    code, out, err = submitted(mine, capsys, "who=A. Author", "link=https://example.org/mine")
    assert code == 0 and "no new record" in out and content(mine) == after


def changed(folder, change):
    """Change the submission's record and write it with a new digest."""
    (path,) = (folder / "submission").glob("*.json")
    write_record(path, change(read_record(path)))


def timed(record, **changes):
    return dataclasses.replace(record, timing=dataclasses.replace(record.timing, **changes))


def forced(record):
    return timed(record, conditions=dataclasses.replace(record.timing.conditions, forced=True, load=[3.0, 3.0]))


def without_ssim(record):
    metrics = {name: entry for name, entry in record.metrics.items() if name != "ssim"}
    return dataclasses.replace(record, metrics=metrics, left_out={"ssim": "no window fits"})


def better(record):
    entry = record.metrics["psnr"]
    return dataclasses.replace(record, metrics={**record.metrics, "psnr": dataclasses.replace(entry, mean=99.0)})


REFUSED = {
    "changed code": (lambda r: dataclasses.replace(r, git={**r.git, "dirty": True}), "that no commit holds: commit it"),
    "no checkout": (lambda r: dataclasses.replace(r, git={"commit": None, "dirty": None}), "that no commit holds"),
    "a metric": (without_ssim, "lacks the metric ssim (no window fits): type python run.py --multirun method=mine"),
    "no timing": (lambda r: dataclasses.replace(r, timing=None), "lacks a timing: type python run.py"),
    "loaded": (forced, "was timed on a loaded machine: when it is idle type"),
    "a forged mean": (better, "metrics.psnr.mean is 99.0"),
    "runs": (lambda r: dataclasses.replace(r, nfe=7.0), "ran the blocks 7 times, and not 5"),
    "a picture": (lambda r: dataclasses.replace(r, digests=["0" * 16, *r.digests[1:]]), "makes another first picture"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_a_record_that_misses_a_rule_is_refused(why, mine, capsys):
    change, says = REFUSED[why]
    changed(mine, change)
    before = content(mine)
    code, _, err = submitted(mine, capsys, "who=A. Author")
    assert code == 2 and says in err and len(err.splitlines()) == 1, err
    assert content(mine) == before


@pytest.mark.parametrize(
    ("words", "settings", "says"),
    [
        ([], {}, "whose method is mine? type who=NAME"),
        (["who=A. Author"], {"name": "nowhere"}, "there is no configs/method/nowhere.yaml: write one"),
        (["who=A. Author"], {"name": "other"}, "configs/method/other.yaml calls its method mine: write name: other"),
        (["who=A. Author"], {"name": "none"}, "none skips no step"),
        (["who=A. Author"], {"name": "listed"}, "has a list of numbers under forecast.factors, and no note"),
        (["who=A. Author"], {"name": "taylorseer"}, "taylorseer is a method of this project: give yours another name"),
        (["who=A|B"], {}, "leave out | < >"),
        (["who=A. Author", "link=example.org"], {}, "link=example.org is no web address"),
        (["who=A. Author"], {"rounds": 9}, "was timed in 7 rounds, and 9 are needed"),
        (["who=A. Author"], {"budgets": (4,)}, "with 4 runs: type python run.py --multirun method=mine runs=4"),
        (["who=A. Author"], {"words": (*WORDS, "method.forecast.damping=0.5")}, "there is no record"),
        (["who=A. Author", "records=nowhere"], {}, "records is given twice"),
        (["--check", "another"], {}, "which method? type python scripts/submit.py NAME"),
    ],
)
def test_what_cannot_be_submitted_says_why(words, settings, says, mine, capsys):
    before = content(mine)
    code, _, err = submitted(mine, capsys, *words, **settings)
    assert code == 2 and says in err and len(err.splitlines()) == 1, err
    assert content(mine) == before


def test_the_record_of_another_stays(mine, capsys):
    (path,) = (mine / "submission").glob("*.json")
    there = dataclasses.replace(read_record(path), command="somebody else's")
    write_record(mine / "results" / "records" / path.name, there)
    before = content(mine)
    code, _, err = submitted(mine, capsys, "who=A. Author")
    assert code == 2 and "is another record, and nothing is overwritten" in err
    assert content(mine) == before


def test_records_of_a_machine_with_other_uncached_pictures_are_not_mixed_in(mine, capsys):
    (path,) = (mine / "results" / "records").glob("none-*.json")
    own = read_record(path)
    write_record(mine / "submission" / path.name, own)
    write_record(path, dataclasses.replace(own, digests=["0" * 16, *own.digests[1:]]))
    code, _, err = submitted(mine, capsys, "who=A. Author")
    assert code == 2 and "the uncached pictures of this machine are other ones" in err


def test_another_version_of_torch_may_make_another_first_picture(mine):
    def elsewhere(record):
        return dataclasses.replace(record, digests=["0" * 16, *record.digests[1:]], packages={"torch": "0.0"})

    changed(mine, elsewhere)
    runs_here(Submission("mine", ("users_method",), mine / "submission", mine / "results" / "records", rules()))


def test_a_method_that_remembers_its_calls_does_not_conform(project, mine):
    submission = Submission("counted", ("users_method",), mine, mine, rules())
    with pytest.raises(SpectrumError, match=r"counted fails case \d+ of tests/cases.py on flux: failed"):
        submit.conforms(submission)


CALIBRATION = (ROOT / "spectrum" / "assets" / "prompts" / "calibration.txt").read_text().splitlines()
FITS = {
    "calibration": ({"prompts": identity(CALIBRATION[:16])}, None),
    "all of it": ({"prompts": identity(CALIBRATION)}, None),
    "other prompts": ({"prompts": identity(["a cat"])}, "was fitted on other prompts than the calibration list"),
    "no note": ({}, "has fitted values, and no note of the prompts"),
}


@pytest.mark.parametrize("where", FITS)
def test_what_is_fitted_was_fitted_on_calibration_prompts(where, project, tmp_path):
    about, says = FITS[where]
    shutil.copytree(EMBEDDED, tmp_path / "tiny")
    known = {"config": "tiny", "model": digest(tmp_path / "tiny"), "steps": STEPS}
    fit = {"fitted": {"damping": 0.3, "fitted_on": {**known, **about}}}
    (tmp_path / "tiny" / "calibration.json").write_text(json.dumps(fit))
    words = (*WORDS, f"model.weights={tmp_path / 'tiny'}")
    submission = Submission("fitted", ("users_method",), tmp_path, tmp_path, rules(words=words))
    if says is None:
        fitted_on_calibration(submission)
        return
    with pytest.raises(SpectrumError, match=says):
        fitted_on_calibration(submission)


def test_without_complete_records_the_leaderboard_is_empty(project):
    records = read_records(project / "results" / "records")
    assert "No method has a complete record yet" in leaderboard(records, {}, rules().data, ["psnr", "fid"], (RUNS,))
    own = leaderboard(records, {}, rules().data, ["psnr"], (RUNS,))
    assert own.count("\n| taylorseer") == 1 and "none" not in own.partition("| ---")[2]
    assert "No method" in leaderboard(records, {}, {**rules().data, "limit": None}, ["psnr"], (RUNS,))


def test_ties_stand_in_parentheses_after_holm(project):
    """Two rows with hand-made values: one far below, one equal within the noise."""
    records = read_records(project / "results" / "records") + read_records(project / "submission")
    page = leaderboard(shifted(records, 0.0), {}, rules().data, ["psnr"], (RUNS,))
    assert "| (-" in page
    page = leaderboard(shifted(records, 9.0), {}, rules().data, ["psnr"], (RUNS,))
    assert "| -9.00 [-9." in page and "| (-" not in page


def test_a_row_of_the_leaderboard_has_the_efficiency_of_its_speed_up(project):
    """The efficiency is that of the timed calls: a speed-up of 1.2 at 5 of 7 runs is 86 %."""
    records = read_records(project / "results" / "records")
    page = leaderboard(
        [timed(r, speedup=1.2, nfe=5.0) for r in records if r.timing], {}, rules().data, ["psnr"], (RUNS,)
    )
    heads, _, row = [line.strip("| ").split(" | ") for line in page.splitlines() if line[:1] == "|"]
    assert dict(zip(heads, row, strict=True))["efficiency"] == "86 %"
    assert "`none`" not in page


def test_every_shipped_method_that_skips_has_a_line_in_the_submissions():
    lines = read_authors(ROOT / "results" / "submissions.csv")
    shipped = {path.stem for path in (ROOT / "configs" / "method").glob("*.yaml")} - {"none"}
    assert shipped <= set(lines)
    for author in lines.values():
        assert author.who and (not author.link or author.link.startswith("https://"))


def test_a_line_that_cannot_be_read_is_named(tmp_path):
    path = Path(tmp_path) / "submissions.csv"
    path.write_text("method,who,link\nmine,A. Author\n")
    with pytest.raises(SpectrumError, match="line 2 is no method,who,link"):
        read_authors(path)
