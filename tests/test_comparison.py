"""The comparison as a person sees it: in the terminal at two widths, as Markdown and as CSV."""

import dataclasses
import io

import pytest
from by_hand import records_of
from rich.console import Console

from eval.tables import comparison
from spectrum.records.record import MetricEntry


def entry(mean, interval=None, worst=None):
    return MetricEntry(mean, "asked", "id", interval=interval, worst_5_percent=worst)


@pytest.fixture(scope="module")
def pair():
    """The uncached run and one of Spectrum, with round numbers."""
    found = records_of("tiny_table", ("none", "spectrum"))
    none, own = (next(r for r in found if r.name == name) for name in ("none", "spectrum"))

    def timed(record, seconds, speedup, interval, nfe):
        sides = {"candidate": {"denoise": seconds, "total": 9.0}, "baseline": {"denoise": 2.0, "total": 9.0}}
        found = {"seconds_per_sample": sides, "speedup": speedup, "speedup_interval": interval, "nfe": nfe}
        return dataclasses.replace(record.timing, **found)

    full = {"clip_score": entry(74.8, 1.87, 53.0), "ssim": entry(0.9999, 0.001, 0.99), "psnr": entry(None)}
    full["frechet_lite0"] = entry(-0.0000001)
    cached = {"clip_score": entry(73.1, 2.0, 50.0), "ssim": entry(0.95, 0.02, 0.8), "psnr": entry(31.114, 0.826, 21.5)}
    cached["frechet_lite0"] = entry(7.5)
    one = dataclasses.replace(
        none, label="none", nfe=50.0, steps=50, metrics=full, timing=timed(none, 2.0, 1.0, [0.98, 1.02], 50.0)
    )
    two = dataclasses.replace(
        own, label="spectrum", nfe=14.25, steps=50, metrics=cached, timing=timed(own, 0.4567, 3.25, [3.1, 3.3], 14.5)
    )
    return [one, two]


def printed(records, width):
    out = io.StringIO()
    comparison.print_table(records, Console(file=out, width=width))
    return [line.rstrip() for line in out.getvalue().rstrip().splitlines()]


def test_a_narrow_terminal_shows_two_metrics_and_names_the_others(pair):
    assert printed(pair, 80) == [
        "                 tiny (embedded, trained), 192 samples, cpu",
        "",
        " method                NFE latency speed-up  eff.    PSNR (dB)          SSIM",
        " " + 75 * "─",
        " none              50 / 50  2.00 s    1.00x 100 %         same          same",
        " spectrum        14.2 / 50  457 ms    3.25x  94 % 31.11 ± 0.83 0.950 ± 0.020",
        "",
        " To the uncached run: mean ± half of its 95 % interval. Latency: denoising,",
        "     per image. Also in the record: Frechet (EffNet-Lite0), CLIP score.",
    ]


def test_a_terminal_shows_as_many_metrics_as_fit(pair):
    whole = comparison.width_of(pair, comparison.shown_metrics(pair))
    assert whole == len("method         ") + sum(map(len, (
        " 14.2 / 50", " latency", " 3.25x [3.10, 3.30]", " 100 %", " 31.11 ± 0.83", " 0.950 ± 0.020",
        " Frechet (EffNet-Lite0)", " 74.80 ± 1.87"))) + 2  # fmt: skip
    for width in (whole, 150):
        title, _, head, rule, none, spectrum, _, caption = printed(pair, width)
        assert title.strip() == "tiny (embedded, trained), 192 samples, cpu"
        assert (
            caption.strip() == "To the uncached run: mean ± half of its 95 % interval. Latency: denoising, per image."
        )
        assert head.endswith("SSIM Frechet (EffNet-Lite0)   CLIP score") and set(rule.strip()) == {"─"}
        assert none.split()[-5:] == ["same", "same", "74.80", "±", "1.87"]
        assert spectrum.split()[-4:] == ["7.50", "73.10", "±", "2.00"] and "3.25x [3.10, 3.30]" in spectrum
    text = " ".join(printed(pair, whole - 1))
    assert "Also in the record" not in text and " 3.25x " in text and "[3.10" not in text
    text = " ".join(" ".join(printed(pair, 100)).split())
    assert "Also in the record: CLIP score." in text and "Frechet (EffNet-Lite0)" in text


def test_a_long_name_is_folded_and_no_number_is(pair):
    long = [pair[0], dataclasses.replace(pair[1], label="spectrum_with_a_name_that_no_column_holds")]
    text = "\n".join(printed(long, 80))
    assert "31.11 ± 0.83 0.950 ± 0.020" in text and "…" not in text
    first, *_ = (line for line in text.splitlines() if "spectrum_" in line)
    column = first.index(" 14.2 / 50")
    folded = [line[:column].strip() for line in text.splitlines()[text.splitlines().index(first) :][:3]]
    assert "".join(folded) == "spectrum_with_a_name_that_no_column_holds"


def test_markdown_is_the_same_table(pair):
    cost = "14.2 / 50 | 457 ms | 3.25x [3.10, 3.30] | 94 %"
    assert comparison.comparison_markdown(pair).splitlines() == [
        "| method | NFE | latency | speed-up | efficiency | PSNR (dB) | SSIM | Frechet (EffNet-Lite0) | CLIP score |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| none | 50 / 50 | 2.00 s | 1.00x [0.98, 1.02] | 100 % | same | same | same | 74.80 ± 1.87 |",
        f"| spectrum | {cost} | 31.11 ± 0.83 | 0.950 ± 0.020 | 7.50 | 73.10 ± 2.00 |",
    ]


def test_csv_has_full_numbers_and_empty_cells(pair):
    bare = dataclasses.replace(pair[1], metrics={"psnr": entry(30.123456)}, timing=None)
    head, none, spectrum, last = comparison.comparison_csv([*pair, bare]).splitlines()
    assert head.startswith(
        "method,id,nfe,steps,seconds,speedup,speedup_low,speedup_high,timed_nfe,efficiency,"
        "psnr_mean,psnr_interval,psnr_worst_5_percent,psnr_worst_interval,"
    )
    assert none.startswith(f"none,{pair[0].id},50.0,50,2.0,1.0,0.98,1.02,50.0,1.0,,,,,0.9999,0.001,0.99,,")
    cost = f"14.25,50,0.4567,3.25,3.1,3.3,14.5,{3.25 * 14.5 / 50}"
    assert spectrum == f"spectrum,{pair[1].id},{cost},31.114,0.826,21.5,,0.95,0.02,0.8,,7.5,,,,73.1,2.0,50.0,"
    assert last == f"spectrum,{pair[1].id},14.25,50,,,,,,,30.123456,,,,,,,,,,,,,,,"


def test_cells_are_empty_where_nothing_was_measured(pair):
    bare = dataclasses.replace(pair[1], metrics={}, timing=None)
    assert comparison.record_cells(bare, ["psnr"]) == ("spectrum", "14.2 / 50", "", "", "", "")
    assert comparison.record_numbers(pair[1], ["psnr", "ssim"]) == (
        14.25,
        0.4567,
        3.25,
        3.25 * 14.5 / 50,
        31.114,
        0.95,
    )
    equal = dataclasses.replace(pair[1], metrics={"psnr": entry(None)})
    assert comparison.record_cells(equal, ["psnr"])[-1] == "same"
    assert comparison.metric_cell("ssim", equal) == ""


def test_a_second_and_more_is_shown_in_seconds(pair):
    def latency(seconds):
        sides = {"candidate": {"denoise": seconds, "total": 9.0}}
        timing = dataclasses.replace(pair[1].timing, seconds_per_sample=sides)
        return comparison.record_cells(dataclasses.replace(pair[1], timing=timing), [])[2]

    assert [latency(s) for s in (0.0614, 0.9994, 1.0, 1.5, 61.0)] == ["61 ms", "999 ms", "1.00 s", "1.50 s", "61.00 s"]


def test_the_uncached_run_comes_first_then_the_one_with_most_runs(pair):
    none, own = pair
    shuffled = [
        dataclasses.replace(own, label=label, nfe=nfe) for label, nfe in (("b", 10.0), ("a", 10.0), ("c", 60.0))
    ]
    ordered = sorted([*shuffled, none], key=comparison.comparison_order)
    assert [r.label for r in ordered] == ["none", "c", "a", "b"]
