"""`report.html` and `comparison.csv`: what a run and a multirun leave for a person to look at."""

import base64
import csv
import dataclasses
import io
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from browser import Page, browser
from by_hand import records_of
from PIL import Image

from eval.reports import gallery
from eval.reports.report import ReportSample, report_html
from eval.tables.comparison import comparison_csv
from spectrum.bench.comparison import write_comparison
from spectrum.bench.run import run
from spectrum.config.compose import compose
from spectrum.records.record import read_record

ROOT = Path(__file__).resolve().parent.parent
HOSTILE = [
    '<img src=x onerror="window.hacked=1">',
    "</script><script>window.hacked=1</script>",
    "a & b <b>c</b> {{ 7 * 7 }}",
]


def picture(value, size=(8, 8)):
    return Image.fromarray(np.full((size[1], size[0], 3), value, np.uint8))


@pytest.fixture(scope="module")
def stored():
    found = {record.name: record for record in records_of("tiny_table") if record.nfe == 14}
    return {name: found[name] for name in ("spectrum", "fora")}


@pytest.fixture
def made(tmp_path, stored):
    """A function that lays down the images of two runs and of their reference; (records, samples)."""

    def make(prompts, psnr=None, size=(8, 8)):
        samples = [ReportSample(f"{i:05d}-s0.png", prompt, 0) for i, prompt in enumerate(prompts)]
        values = psnr or [20.0 + i for i in range(len(prompts))]
        records = {}
        for number, record in enumerate(stored.values()):
            entry = dataclasses.replace(record.metrics["psnr"], values=[v and v + number / 2 for v in values])
            records[tmp_path / record.name] = dataclasses.replace(
                record, id=record.name, reference="none", metrics={**record.metrics, "psnr": entry}, prompts=prompts,
                seeds=[0], samples=len(prompts),
            )  # fmt: skip
        for number, name in enumerate(("none", *stored)):
            (tmp_path / name / "images").mkdir(parents=True, exist_ok=True)
            for i, sample in enumerate(samples):
                picture((40 * number, i % 256, 0), size).save(tmp_path / name / "images" / sample.file)
        return records, samples

    return make


def test_11_the_page_holds_all_that_it_shows(made):
    page = Page(text := report_html(*made(["a fox", "a cat"])))
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "base"), tag
        for name in ("src", "href", "srcset", "action"):
            assert attributes.get(name, "data:").startswith("data:"), (tag, name)
    assert all(uri.startswith("data:image/") for uri in page.data["images"])
    assert "default-src 'none'" in text and not re.search(r"url\(|@import|fetch\(|XMLHttpRequest", text)


def test_the_table_has_every_run_and_figures_say_what_they_were_made_with(made):
    records, samples = made(["a fox", "a cat"])
    text = report_html(records, samples, failed=["failed: method=x: no <weights>"])
    page = Page(text)
    for record in records.values():
        psnr = record.metrics["psnr"].mean
        assert record.label in page.cells
        assert [cell for cell in page.cells if cell.startswith(f"{record.timing.speedup:.2f}x [")]
        assert str(psnr) in {attributes.get("data-value") for tag, attributes in page.tags if tag == "td"}
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", text, re.DOTALL)
    first = next(iter(records.values()))
    assert len(captions) == 4
    for wanted in (
        first.model_kind,
        first.hardware["cpu"],
        f"torch {first.packages['torch']}",
        first.git["commit"][:9],
    ):
        assert all(wanted in caption for caption in captions), wanted
    assert first.command.replace("'", "&#39;") in text
    assert "no &lt;weights&gt;" in text


def test_plots_are_those_that_the_records_allow(made):
    records, samples = made(["a fox"])
    plain = {f: dataclasses.replace(r, timing=None, forecast_errors={}) for f, r in records.items()}
    count = lambda some: Page(report_html(some, samples)).tags.count(("figcaption", {}))  # noqa: E731
    assert (count(records), count(plain)) == (4, 2)
    assert count(dict(list(plain.items())[:1])) == 1, "one point is no curve"


def test_prompts_and_labels_with_markup_stay_text(made):
    records, samples = made(HOSTILE)
    records = {f: dataclasses.replace(r, label=HOSTILE[0], model_kind=HOSTILE[1]) for f, r in records.items()}
    page = Page(report_html(records, samples))
    assert [card["prompt"] for card in page.data["cards"][::2]] == HOSTILE
    assert not [attributes for _, attributes in page.tags if "onerror" in attributes]
    assert [tag for tag, _ in page.tags].count("script") == 2 and "b" not in [tag for tag, _ in page.tags]
    assert HOSTILE[0] in page.cells


def test_every_pair_is_of_one_sample(made):
    records, samples = made(["a fox", "a cat", "a dog"], psnr=[20.0, None, 30.0])
    data = Page(report_html(records, samples)).data
    assert [(c["order"], c["run"]) for c in data["cards"]] == [(i, k) for i in range(3) for k in range(2)]
    read = lambda index: base64.b64decode(data["images"][index].partition(",")[2])  # noqa: E731
    folders = list(records)
    for card in data["cards"]:
        own, reference = folders[card["run"]], folders[0].parent / "none"
        file = samples[card["order"]].file
        assert read(card["image"]) == (own / "images" / file).read_bytes()
        assert read(card["reference"]) == (reference / "images" / file).read_bytes()
    assert [(c["psnr"], c["same"]) for c in data["cards"] if c["run"] == 0] == [
        (20.0, False),
        (None, True),
        (30.0, False),
    ]
    assert [name.rpartition(",")[2] for name in data["runs"]] == [" 14 runs", " 14 runs"]


def test_of_many_samples_the_worst_are_shown_and_it_says_so(made, monkeypatch):
    monkeypatch.setattr(gallery, "MOST_SAMPLES", 3)
    records, samples = made([f"prompt {i}" for i in range(5)], psnr=[30.0, 10.0, 40.0, 20.0, 15.0])
    text = report_html(records, samples)
    assert [card["order"] for card in Page(text).data["cards"][::2]] == [1, 4, 3]
    assert "Shown are 3 of 5 samples" in text
    assert "All 2 samples are shown" in report_html(*made(["a", "b"]))


def test_a_report_stays_small(made, monkeypatch):
    records, samples = made([f"prompt {i}" for i in range(5)])
    whole = Page(report_html(records, samples)).data
    per_sample = sum(map(len, whole["images"])) / 5
    monkeypatch.setattr(gallery, "MOST_BYTES", 2.5 * per_sample)
    data = Page(text := report_html(records, samples)).data
    assert data["shown"] == 2 and len(data["images"]) == 6 and "Shown are 2 of 5 samples" in text
    monkeypatch.setattr(gallery, "MOST_BYTES", 1)
    assert Page(report_html(records, samples)).data["shown"] == 1


def test_large_pictures_are_scaled_down_and_it_says_so(made):
    text = report_html(*made(["a fox"], size=(1200, 600)))
    image = Image.open(io.BytesIO(base64.b64decode(Page(text).data["images"][0].partition(",")[2])))
    assert (image.format, image.size) == ("JPEG", (512, 256)) and "scaled down to 512 pixels" in text
    assert "scaled down" not in report_html(*made(["a fox"]))


def test_videos_are_shown_as_they_are(made, tmp_path):
    records, samples = made(["a fox"])
    path = tmp_path / "fora" / "images" / samples[0].file
    frames = [picture((i, 0, 0), (600, 8)) for i in range(3)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)
    data = Page(report_html(records, samples)).data
    shown = base64.b64decode(data["images"][data["cards"][1]["image"]].partition(",")[2])
    assert shown == path.read_bytes() and Image.open(io.BytesIO(shown)).n_frames == 3


def test_runs_without_images_are_left_out_of_the_gallery(made, tmp_path):
    records, samples = made(["a fox"])
    shutil.rmtree(tmp_path / "fora" / "images")
    page = Page(report_html(records, samples))
    assert len(page.data["runs"]) == 1 and len(page.data["cards"]) == 1 and len(page.cells) > 10
    shutil.rmtree(tmp_path / "none" / "images")
    text = report_html(records, samples)
    assert not Page(text).data["cards"] and "not on this machine any more" in text


def test_the_reference_alone_is_shown_without_a_slider(made, tmp_path):
    records, samples = made(["a fox"])
    record = dataclasses.replace(next(iter(records.values())), id="none")
    cards = Page(report_html({tmp_path / "none": record}, samples)).data["cards"]
    assert [(card["image"], card["reference"]) for card in cards] == [(0, None)]


def test_11_csv_has_full_numbers(stored):
    none = next(record for record in records_of("tiny_table") if record.is_reference)
    lines = list(csv.DictReader(io.StringIO(comparison_csv([none, *stored.values()]))))
    for line, record in zip(lines, (none, *stored.values()), strict=True):
        assert line["id"] == record.id and float(line["speedup"]) == record.timing.speedup
        assert float(line["efficiency"]) == record.timing.speedup * record.timing.nfe / record.steps
        assert float(line["seconds"]) == record.timing.seconds_per_sample["candidate"]["denoise"]
        mean = record.metrics["psnr"].mean
        assert line["psnr_mean"] == "" if mean is None else float(line["psnr_mean"]) == mean
        assert mean is None or float(line["psnr_worst_5_percent"]) == record.metrics["psnr"].worst_5_percent


def test_11_a_run_and_a_comparison_leave_a_report(tmp_path):
    quick = ["model.steps=6", "prompts.limit=2", f"out={tmp_path}", "timing=0", "probe=0"]
    folder = run(compose(["method=fora", *quick]))
    data = Page((folder / "report.html").read_text()).data
    record = read_record(folder / "record.json")
    assert [card["prompt"] for card in data["cards"]] == record.prompts
    stored = [math.inf if value is None else value for value in record.metrics["psnr"].values]
    assert [math.inf if card["same"] else card["psnr"] for card in data["cards"]] == stored
    (folder / "report.html").unlink()
    run(compose(["method=fora", *quick]))
    assert (folder / "report.html").exists(), "the same command makes it again"
    write_comparison({folder: record}, tmp_path / "all", ["failed: method=x: because"])
    assert "failed: method=x: because" in (tmp_path / "all" / "report.html").read_text()
    assert (tmp_path / "all" / "comparison.csv").read_text() == comparison_csv([record])


@pytest.fixture
def opened(made, tmp_path):
    records, samples = made(HOSTILE, psnr=[25.0, 10.0, 40.0], size=(64, 64))
    path = tmp_path / "report.html"
    path.write_text(report_html(records, samples))
    with browser() as window:
        window.open(path)
        yield window
        assert not [entry for entry in window.log() if entry["level"] == "SEVERE"]


def errors_shown(window):
    texts = window.run("return [...document.querySelectorAll('.facts span:last-child')].map((e) => e.textContent)")
    return [float(text.removesuffix(" dB")) for text in texts]


def test_11_the_slider_is_dragged(opened):
    box = opened.run("const b = document.querySelector('.pair'); b.scrollIntoView({block: 'center'});"
                     "const r = b.getBoundingClientRect(); return [r.x, r.y, r.width, r.height]")  # fmt: skip
    x, y, width, height = box
    for share in (0.8, 0.25):
        opened.drag((x + width / 2, y + height / 2), (x + share * width, y + height / 2))
        clip = opened.run("return getComputedStyle(document.querySelector('.over')).clipPath")
        at = opened.run("return document.querySelector('.pair').style.getPropertyValue('--at')")
        assert float(at.rstrip("%")) == pytest.approx(100 * share, abs=1)
        assert float(clip.split()[1].rstrip("%")) == pytest.approx(100 - float(at.rstrip("%")))


def test_11_the_gallery_is_sorted_and_filtered(opened):
    choose = (
        "const e = document.getElementById(arguments[0]); e.value = arguments[1]; e.dispatchEvent(new Event('input'))"
    )
    assert errors_shown(opened) == [10.0, 10.5, 25.0, 25.5, 40.0, 40.5]
    opened.run(choose, "order", "best")
    assert errors_shown(opened) == [40.5, 40.0, 25.5, 25.0, 10.5, 10.0]
    opened.run(choose, "order", "order")
    assert errors_shown(opened) == [25.0, 25.5, 10.0, 10.5, 40.0, 40.5]
    opened.run(choose, "method", "1")
    assert errors_shown(opened) == [25.5, 10.5, 40.5]
    opened.run(choose, "words", "SCRIPT")
    assert errors_shown(opened) == [10.5]
    assert opened.run("return document.getElementById('count').textContent") == "1 of 1 pairs"


def test_nothing_that_was_typed_runs_in_the_page(opened):
    assert opened.run("return [window.hacked === undefined, document.querySelectorAll('b').length]") == [True, 0]
    shown = opened.run("return [...document.querySelectorAll('.prompt')].map((e) => e.textContent)")
    assert set(shown) == set(HOSTILE)
    assert opened.run("return [...document.images].every((i) => i.complete && i.naturalWidth > 0)")


def test_a_click_on_a_head_sorts_the_table(opened):
    read = "return [...document.querySelectorAll('tbody tr')].map((r) => r.cells[5].dataset.value)"
    click = "document.querySelectorAll('th button')[arguments[0]].click()"
    opened.run(click, 5)
    falling = [float(value) for value in opened.run(read)]
    opened.run(click, 5)
    assert falling == sorted(falling, reverse=True) and [float(v) for v in opened.run(read)] == falling[::-1]
    assert opened.run("return document.querySelectorAll('th')[5].ariaSort") == "ascending"


def test_it_fits_a_phone(made, tmp_path):
    records, samples = made(["a fox on " + "x" * 200], size=(64, 64))
    (tmp_path / "report.html").write_text(report_html(records, samples))
    with browser((390, 844), phone=True) as window:
        window.open(tmp_path / "report.html")
        widths = window.run("const page = document.documentElement; return [page.scrollWidth, page.clientWidth]")
        slider = window.run("return document.querySelector('.pair').getBoundingClientRect().width")
    assert widths == [390, 390] and slider > 300
