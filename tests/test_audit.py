"""The audit agrees with a real run, finds what is forged in it, and samples a committed row again."""

import csv
import dataclasses
import itertools
import json
import shutil

import audit
import numpy as np
import pytest
from auditing.records import short_sha256
from command import ROOT, call
from PIL import Image

from eval.tables import formats
from eval.tables.experiments import Row, load_experiment
from eval.tables.tables import match_rows
from spectrum.records.record import read_record, read_records, write_record

STEPS, PROMPTS, SEEDS = 7, 3, [0, 1]
ROWS = {"none": [None], "fewer_steps": [3, 6], "spectrum": [6], "spectrum_blend": [6]}
LITE0 = ("lite0_distance", "frechet_lite0", "diversity")
EVAL = ["eval=default", *(f"+eval.{name}={{}}" for name in LITE0), "+eval.clip_score.model=tiny"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Five small real runs with their pictures, records, and a table of them."""
    folder = tmp_path_factory.mktemp("audit")
    shared = [f"model.steps={STEPS}", f"prompts.limit={PROMPTS}", f"seeds={SEEDS}", "batch=1", "timing=1", "probe=0"]
    shared += [*EVAL, f"out={folder / 'outputs'}"]
    rows = []
    for method, budgets in ROWS.items():
        for runs in budgets:
            words = [f"method={method}", *([f"runs={runs}"] if runs else [])]
            assert call("run", *shared, *words).code == 0
            rows.append(Row({"method": method, **({"runs": runs} if runs else {})}, "a command"))
    (folder / "results" / "records").mkdir(parents=True)
    for path in (folder / "outputs").rglob("record.json"):
        record = read_record(path)
        timing = dataclasses.replace(record.timing, conditions=dataclasses.replace(record.timing.conditions, git=CLEAN))
        record = dataclasses.replace(record, git=CLEAN, timing=timing)
        write_record(folder / "results" / "records" / f"{record.id}.json", record)
    own = load_experiment("tiny_table")
    data = {**own.data, "steps": STEPS, "limit": PROMPTS, "seeds": SEEDS}
    table = match_rows(dataclasses.replace(own, data=data, rows=rows), read_records(folder / "results" / "records"))
    assert not table.missing
    (folder / "results" / "tables").mkdir()
    for kind, text in (("md", f"# A table\n\n{formats.markdown(table)}"), ("tex", formats.latex(table)),
                       ("csv", formats.csv_table(table))):  # fmt: skip
        (folder / "results" / "tables" / f"small.{kind}").write_text(text)
    front = f"# Front\n\n<!-- table small -->\n\n{formats.markdown(table)}\n<!-- end -->\n"
    (folder / "README.md").write_text(front)
    return folder


CLEAN = {"commit": "0" * 40, "dirty": False}


@pytest.fixture
def copied(made, tmp_path):
    shutil.copytree(made, tmp_path / "made")
    return tmp_path / "made"


def audited(folder, capsys, *words):
    """(exit code, what was printed) of an audit of a folder with its pictures."""
    code = audit.main([f"records={folder / 'results' / 'records'}", f"samples={folder / 'outputs'}", *words])
    return code, capsys.readouterr().out


def test_a_real_run_agrees(made, capsys):
    code, out = audited(made, capsys)
    assert code == 0, out
    for group, least in {
        "means": 25, "worst 5 %": 25, "intervals of means": 25, "NFE": 15, "timing": 45, "digests of records": 5,
        "numbers of tables": 100, "paired differences": 9, "cells of tables": 75, "cells in LaTeX": 1,
        "tables in the README": 1, "digests of pictures": 30, "PSNR of pictures": 24, "SSIM of pictures": 24,
        "Euler at this latency": 10, "p values adjusted by Holm": 5,
    }.items():  # fmt: skip
        (line,) = [line for line in out.splitlines() if line.startswith(f"{group}: ")]
        assert int(line.split()[len(group.split())]) >= least, line
    assert "frechet_lite0, a figure of the whole set" in out


def forge(folder, change, name="spectrum-"):
    """Change a record, and give it the digest of what it says now."""
    (path,) = (folder / "results" / "records").glob(f"{name}*.json")
    record = json.loads(path.read_text())
    change(record)
    record["digest"] = short_sha256({key: value for key, value in record.items() if key != "digest"})
    path.write_text(json.dumps(record))
    return path.stem


FORGED = [
    ("means", lambda r: r["metrics"]["psnr"].update(mean=r["metrics"]["psnr"]["mean"] + 1e-6)),
    ("intervals of means", lambda r: r["metrics"]["ssim"].update(interval=r["metrics"]["ssim"]["interval"] * 1.001)),
    ("worst 5 %", lambda r: r["metrics"]["lite0_distance"].update(worst_5_percent=0.001)),
    ("PSNR of pictures", lambda r: r["metrics"]["psnr"]["values"].__setitem__(3, 40.0)),
    ("SSIM of pictures", lambda r: r["metrics"]["ssim"]["values"].__setitem__(0, 0.99)),
    ("NFE", lambda r: r.update(nfe=5.0)),
    ("numbers of samples", lambda r: r["nfe_by_sample"].pop()),
    ("timing", lambda r: r["timing"].update(speedup=r["timing"]["speedup"] + 0.01)),
    ("timing", lambda r: r["timing"]["rounds"][0]["candidate"].update(denoise=0.001)),
    ("timing", lambda r: r["timing"]["seconds_per_sample"]["baseline"].update(total=9.0)),
    ("NFE", lambda r: r["timing"]["rounds"][0]["runs"][0]["cond"].pop()),
    ("digests of pictures", lambda r: r["digests"].__setitem__(2, "0" * 16)),
    ("digests of the uncached run", lambda r: r.update(reference_samples="0" * 16)),
    ("made with committed code", lambda r: r["git"].update(dirty=True)),
    ("whole records", lambda r: r["metrics"]["psnr"].pop("values")),
]


@pytest.mark.parametrize(("group", "change"), FORGED, ids=[f"{i}-{group}" for i, (group, _) in enumerate(FORGED)])
def test_a_forged_value_is_named(group, change, copied, capsys):
    name = forge(copied, change)
    code, out = audited(copied, capsys)
    assert code == 1
    assert [line for line in out.splitlines() if line.startswith(f"WRONG {group}: {name}")], out


def test_a_value_changed_without_the_records_digest_is_named(copied, capsys):
    (path,) = (copied / "results" / "records").glob("spectrum-*.json")
    path.write_text(path.read_text().replace('"python": "3', '"python": "4'))
    code, out = audited(copied, capsys)
    assert code == 1 and f"WRONG digests of records: {path.stem}" in out and out.count("WRONG") == 1


def test_a_forged_picture_is_named(copied, capsys):
    (path,) = (copied / "outputs").rglob("spectrum-*/images/00001-s1.png")
    pixels = np.asarray(Image.open(path)).copy()
    pixels[:8, :8] = 255 - pixels[:8, :8]
    Image.fromarray(pixels).save(path)
    code, out = audited(copied, capsys)
    name = f"{path.parent.parent.name} {path.name}"
    assert code == 1
    for group in ("digests of pictures", "PSNR of pictures", "SSIM of pictures"):
        assert f"WRONG {group}: {name}" in out
    path.write_bytes(path.read_bytes()[:200])
    code, out = audited(copied, capsys)
    assert code == 1 and f"WRONG digests of pictures: {name}" in out and "pictures that cannot be read" in out
    path.unlink()
    assert f"WRONG digests of pictures: {name} is" in audited(copied, capsys)[1]


def cells(text):
    """Where each cell of a Markdown table's rows begins and ends, but for those of the first column."""
    found, at = [], 0
    for line in text.splitlines(keepends=True):
        if line.startswith("| ") and not line.startswith(("| method", "| ---")):
            bars = [number for number, letter in enumerate(line) if letter == "|"]
            found += [(at + a + 2, at + b - 1) for a, b in itertools.pairwise(bars[1:])]
        at += len(line)
    return found


def test_a_forged_cell_of_a_table_is_named_whichever_it_is(copied, capsys):
    path = copied / "results" / "tables" / "small.md"
    text = path.read_text()
    places = [(a, b) for a, b in cells(text) if any(letter.isdigit() for letter in text[a:b])]
    assert len(places) > 60
    for a, b in places[:: 1 + len(places) // 40]:
        digit = next(number for number in range(b - 1, a - 1, -1) if text[number].isdigit())
        path.write_text(text[:digit] + str((int(text[digit]) + 1) % 10) + text[digit + 1 :])
        code, out = audited_tables(copied, capsys)
        assert code == 1 and "WRONG cells of tables: small" in out, text[a:b]


def audited_tables(folder, capsys):
    code = audit.main([f"records={folder / 'results' / 'records'}"])
    return code, capsys.readouterr().out


def test_a_forged_number_of_a_csv_is_named_whichever_it_is(copied, capsys):
    path = copied / "results" / "tables" / "small.csv"
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    (number,) = [n for n, line in enumerate(lines) if line["id"].startswith("spectrum_blend")]
    changed = [key for key, value in lines[number].items() if value.replace(".", "").replace("-", "").isdigit()]
    assert len(changed) > 25
    for key in changed:
        forged = [dict(line) for line in lines]
        forged[number][key] = str(float(forged[number][key]) * 1.5 + 0.01)
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(forged)
        code, out = audited_tables(copied, capsys)
        assert code == 1, key
        assert f": small {lines[number]['id']}" in out, key


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["records=nowhere"], "records=nowhere is no folder"),
        (["sampel=3"], "unknown option sampel=3"),
        (["sample=3"], "ids= the records that they are of"),
        (["sample=0", "ids=x"], "sample= takes a number of pictures"),
        (["samples=nowhere"], "samples=nowhere is no folder"),
    ],
)
def test_what_cannot_be_done_gets_one_line(words, says, made, capsys):
    words = words if words[0].startswith("records") else [f"records={made / 'results' / 'records'}", *words]
    assert audit.main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and says in said and len(said.splitlines()) == 1


def test_pictures_of_a_small_run_come_out_again(copied, capsys):
    (name,) = [path.stem for path in (copied / "results" / "records").glob("spectrum_blend-*.json")]
    forge(copied, lambda r: r["digests"].__setitem__(1, "0" * 16), name)
    code, out = audited(copied, capsys, "sample=3", f"ids={name}")
    assert code == 1 and "digests of pictures sampled again: 6 compared" in out, "its own and the uncached"
    (wrong,) = [line for line in out.splitlines() if line.startswith("WRONG") and "again" in line]
    assert wrong.startswith(f"WRONG digests of pictures sampled again: {name} 00000-s1.png is {'0' * 16}"), out


def test_on_another_cpu_the_pictures_themselves_are_compared(copied, capsys):
    def elsewhere(record):
        record["hardware"]["cpu"] = "another CPU"

    (full,) = [path.stem for path in (copied / "results" / "records").glob("none-*.json")]
    name = forge(copied, elsewhere)
    forge(copied, elsewhere, full)
    code, out = audited(copied, capsys, "sample=2", f"ids={name}")
    assert code == 0 and "pictures sampled again on another CPU, dB to the stored ones: 4 compared" in out, out
    forge(copied, lambda r: r["metrics"]["psnr"]["values"].__setitem__(0, 50.0), name)
    code = audit.main([f"records={copied / 'results' / 'records'}", "sample=2", f"ids={name}"])
    out = capsys.readouterr().out
    assert "psnr of samples made again: 2 compared" in out and "runs of samples made again, on another CPU" in out
    (wrong,) = [line for line in out.splitlines() if line.startswith("WRONG") and "again" in line]
    assert code == 1 and wrong.startswith(f"WRONG psnr of samples made again: {name} 00000-s0.png"), out


def test_runs_and_values_are_those_of_samples_made_again(copied, capsys):
    def better(record):
        record["nfe_by_sample"][0] -= 1
        record["metrics"]["ssim"]["values"][1] += 0.001

    name = forge(copied, better)
    code = audit.main([f"records={copied / 'results' / 'records'}", "sample=2", f"ids={name}"])
    said = capsys.readouterr().out
    assert code == 1 and f"WRONG runs of samples made again: {name} 00000-s0.png" in said
    assert f"WRONG ssim of samples made again: {name} 00000-s1.png" in said, said
    assert "WRONG psnr of samples" not in said


def committed():
    """The committed record of Spectrum at 14 runs in the main table."""
    records = [json.loads(path.read_text()) for path in (ROOT / "results" / "records").glob("spectrum-*.json")]
    on_heldout = [r for r in records if r["prompts_from"] == {"file": "heldout.txt", "limit": None} and r["nfe"] == 14]
    (record,) = [r for r in on_heldout if r["schedule"].get("growth") == 0.75 and len(r["seeds"]) == 3]
    return record


def test_the_committed_figures_are_those_that_their_raw_values_give(capsys):
    code = audit.main([])
    out = capsys.readouterr().out
    assert code == 0, out
    assert "a record of format" not in out and "numbers of tables: " in out


def planned():
    """The committed record of `planned` at 10 runs."""
    records = [json.loads(path.read_text()) for path in (ROOT / "results" / "records").glob("planned-*.json")]
    (record,) = [r for r in records if r["nfe"] == 10]
    return record


@pytest.mark.parametrize(("of", "count"), [(committed, 4), (planned, 1)])
def test_a_committed_row_is_sampled_again_and_its_pictures_are_the_stored_ones(of, count, capsys):
    """The first by its settings, the second by its plan."""
    code = audit.main([f"sample={count}", f"ids={of()['id']}"])
    out = capsys.readouterr().out
    assert code == 0, out
    assert "pictures sampled again" in out or "samples made again" in out


def test_a_record_whose_plan_is_not_here_is_named(copied, capsys):
    (name,) = [path.stem for path in (copied / "results" / "records").glob("spectrum_blend-*.json")]
    forge(copied, lambda r: r["method"].__setitem__("plan", {"digest": "0" * 16, "sigmas": None}), name)
    _, out = audited(copied, capsys, "sample=1", f"ids={name}")
    assert f"{name}: its plan is not in this repository" in out
