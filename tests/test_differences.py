"""Differences, the speed of plain sampling, speed-ups and efficiency in a table, against figures worked out by hand.

Four prompts: Student's quantile of 3 degrees of freedom is 3.1824 (two-sided 95 %), and fewer than eight prompts are
not resampled, so that every half-width below is 3.1824 standard deviations / 2.
"""

import dataclasses

import pytest
from by_hand import FOUR, at, controls, record_of, shown, table_of

from eval.tables import differences, formats, tables
from eval.tables.about import about, remarks
from eval.tables.experiments import load_experiment
from spectrum.core.errors import SpectrumError


@pytest.fixture(scope="module")
def none():
    return record_of("none", *FOUR, psnr=[None] * 4, clip=[70.0, 71.0, 72.0, 73.0], ratios=[1.0] * 9)


@pytest.fixture(scope="module")
def spectrum():
    return record_of("spectrum", "runs=14", *FOUR, psnr=[20.0, 21.0, 22.0, 23.0], clip=[71.0, 71.0, 71.0, 75.0])


@pytest.fixture(scope="module")
def fora():
    """1, 2, 3 and 4 dB above Spectrum."""
    return record_of("fora", "runs=14", *FOUR, psnr=[21.0, 23.0, 25.0, 27.0])


def test_a_difference_has_its_own_interval(spectrum, fora):
    """Gaps of 1, 2, 3, 4: mean 2.5, standard deviation 1.2910, so 3.1824 * 0.6455 = 2.0543; at level .80 it is 1.06."""
    table = table_of((at("spectrum"), spectrum), (at("fora"), fora))
    assert shown(table, fora)["PSNR less spectrum's"] == "+2.50 [+0.45, +4.55]"
    assert shown(table, spectrum)["PSNR less spectrum's"] == ""
    assert table.differences[fora.id].p == pytest.approx(0.03047, abs=1e-5)


def test_what_is_not_significant_among_all_comparisons_stands_in_parentheses(spectrum, fora):
    """Alone p = .0305; with two others of .5 and more it is 3 * .0305 = .0914."""
    noise = [record_of(m, "runs=14", *FOUR, psnr=[21.0, 20.0, 23.0, 22.1]) for m in ("taylorseer", "lagrange")]
    table = table_of((at("spectrum"), spectrum), (at("fora"), fora), *((at(r.name), r) for r in noise))
    assert table.differences[fora.id].p == pytest.approx(3 * 0.03047, abs=1e-4)
    assert shown(table, fora)["PSNR less spectrum's"] == "(+2.50 [+0.45, +4.55])"
    assert "(+2.50 [+0.45, +4.55])" in formats.latex(table) and "(+2.50 [+0.45, +4.55]) |" in formats.markdown(table)
    assert "adjusted for the 3 differences of the table" in about(table)


def test_seeds_of_one_prompt_are_one_draw(spectrum, fora):
    """The same values with each seed twice say no more: eight independent ones would give a half-width of 1.00."""
    twice = ("prompts.limit=4", "seeds=[0,1]")
    two = [
        record_of(m, "runs=14", *twice, psnr=[v for v in values for _ in range(2)])
        for m, values in (("spectrum", [20.0, 21.0, 22.0, 23.0]), ("fora", [21.0, 23.0, 25.0, 27.0]))
    ]
    table = table_of((at("spectrum"), two[0]), (at("fora"), two[1]))
    assert shown(table, two[1])["PSNR less spectrum's"] == "+2.50 [+0.45, +4.55]"


def test_a_metric_with_one_value_a_prompt_has_one_seed_in_each(spectrum):
    twice = record_of("spectrum", "runs=14", "prompts.limit=4", "seeds=[0,1]", psnr=[20.0] * 8)
    entry = dataclasses.replace(twice.metrics["psnr"], values=[1.0] * 4)
    of_prompts = dataclasses.replace(twice, metrics={**twice.metrics, "seed_rank": entry})
    assert (differences.seeds_in(of_prompts, "seed_rank"), differences.seeds_in(of_prompts, "psnr")) == (1, 2)


def test_the_rival_is_the_one_at_the_same_runs(spectrum, fora):
    low = record_of("spectrum", "runs=10", *FOUR, psnr=[10.0, 11.0, 12.0, 13.0])
    for order in (0, 1):
        rows = [(at("spectrum"), spectrum), (at("spectrum", 10), low)][:: 1 if order else -1]
        assert table_of(*rows, (at("fora"), fora)).differences[fora.id].difference.mean == 2.5
    assert not table_of((at("spectrum", 10), low), (at("fora"), fora)).differences
    assert not table_of((at("spectrum"), None), (at("fora"), fora)).differences


def test_settings_of_the_method_itself_leave_its_rival_the_same(spectrum, fora):
    keys = {**at("fora"), "method.space": "residual"}
    assert table_of((at("spectrum"), spectrum), (keys, fora)).differences[fora.id].difference.mean == 2.5
    keys = {**at("fora"), "schedule.warmup": 3}
    assert not table_of((at("spectrum"), spectrum), (keys, fora)).differences


def test_a_row_or_rival_without_values_has_no_difference(spectrum, fora):
    for own, rival in (
        (fora, record_of("spectrum", "runs=14", *FOUR)),
        (record_of("fora", "runs=14", *FOUR), spectrum),
    ):
        table = table_of((at("spectrum"), rival), (at("fora"), own))
        assert not table.differences and shown(table, own)["PSNR less spectrum's"] == ""
    equal = record_of("fora", "runs=14", *FOUR, psnr=[None] * 4)
    assert not table_of((at("spectrum"), spectrum), (at("fora"), equal)).differences


def test_clip_is_compared_with_the_full_run_on_the_same_samples(none, spectrum):
    """Gaps of 1, 0, -1, 2: mean .5, half-width 3.1824 * 0.6455 = 2.0543; that of the score alone is 3.18."""
    table = table_of(({"method": "none"}, none), (at("spectrum"), spectrum), full=none)
    assert shown(table, spectrum)["CLIP less the full run's"] == "+0.50 ± 2.05"
    assert shown(table, none)["CLIP less the full run's"] == ""
    assert "CLIP less the full run's" not in tables.heads(table_of((at("spectrum"), spectrum)))


def test_the_error_is_averaged_before_its_psnr_is_taken(none):
    """Errors of .1, .01, 0 and 0 have the mean .0275: 15.61 dB. Without the equal pictures it would be 12.60 dB."""
    assert differences.psnr_of_mean_error([10.0, 20.0, None, None]) == pytest.approx(15.6067, abs=1e-4)
    own = record_of("fora", "runs=14", *FOUR, psnr=[10.0, 20.0, None, None])
    table = table_of(({"method": "none"}, none), (at("fora"), own))
    heads = tables.heads(table)
    assert heads[heads.index("PSNR (dB)") + 1] == "PSNR of mean MSE"
    assert shown(table, own)["PSNR of mean MSE"] == "15.61" and shown(table, own)["PSNR (dB)"].startswith("15.00 ±")
    assert shown(table, none)["PSNR of mean MSE"] == "same"


def test_a_mean_and_the_worst_have_intervals(fora):
    """Values 21, 23, 25, 27: standard deviation 2.5820, so 3.1824 * 1.2910 = 4.11; at level .93 it is 3.50."""
    cells = shown(table_of((at("fora"), fora)), fora)
    assert cells["PSNR (dB)"] == "24.00 ± 4.11"
    for half, said in ((1.456, "21.00 ± 1.46"), (None, "21.00")):
        entry = dataclasses.replace(fora.metrics["psnr"], worst_5_percent=21.0, worst_interval=half)
        assert tables.worst_cell(dataclasses.replace(fora, metrics={"psnr": entry})) == said


def test_the_order_is_told_for_each_number_of_runs_with_three_rows(spectrum, fora):
    """Spectrum is below FORA for every prompt. The third row is below both in the first prompt, above in the others."""
    clear = record_of("taylorseer", "runs=14", *FOUR, psnr=[10.0, 11.0, 12.0, 13.0])
    rows = [(at("spectrum"), spectrum), (at("fora"), fora)]
    assert differences.orders(table_of(*rows).rows) == []
    table = table_of(*rows, (at("taylorseer"), clear), ({"method": "lagrange"}, fora))
    assert differences.orders(table.rows) == [(14, 3, 1.0)]
    assert "comes back: of the 3 rows at 14 runs in 100 %." in formats.markdown(table)
    unclear = record_of("taylorseer", "runs=14", *FOUR, psnr=[0.0, 30.0, 30.0, 30.0])
    ((_, _, share),) = differences.orders(table_of(*rows, (at("taylorseer"), unclear)).rows)
    # It is between the two, at 22.5, if the first prompt is drawn once: 4 * .25 * .75^3 = 42 % of the resamples.
    assert share == pytest.approx(0.42, abs=0.05)


def test_a_timing_by_force_and_several_passes_are_told(spectrum, fora):
    forced = record_of("fora", "runs=14", *FOUR, ratios=[3.0] * 9, load=[2.0, 2.5], forced=True)
    other = record_of("lagrange", "runs=14", *FOUR, ratios=[3.0] * 9, process="another pass")
    table = table_of((at("fora"), forced), (at("lagrange"), other))
    assert shown(table, forced)["speed-up"] == "3.00x [3.00, 3.00] forced"
    assert shown(table, other)["speed-up"] == "3.00x [3.00, 3.00]"
    two, by_force = remarks(table)
    assert "timed in 2 passes" in two and by_force == "Timed on a loaded machine, by force: fora (interval 4)."
    assert remarks(table_of((at("lagrange"), other))) == []


def test_what_is_said_above_a_table_is_said_of_what_it_has(none, spectrum, fora):
    bare = about(table_of((at("fora"), record_of("fora", "runs=14", *FOUR))))
    for word in ("8-bit", "Differences", "CLIP", "Speed-up", "SSIM", "Timed on"):
        assert word not in bare
    timed = record_of("fora", "runs=14", *FOUR, psnr=[21.0, 23.0, 25.0, 27.0], ratios=[3.0] * 9)
    text = about(table_of(({"method": "none"}, none), (at("spectrum"), spectrum), (at("fora"), timed), full=none))
    for word in (
        "8-bit",
        "spread over prompts",
        "In parentheses",
        "the 1 differences",
        "median of 9 rounds",
        "batch 1",
    ):
        assert word in text, word


def test_a_batch_that_decides_together_is_named():
    together = record_of("teacache", "runs=14", *FOUR, "batch=4", "method.batch_decision=true", runs=list(range(14)))
    assert "batch_decision" in together.label
    assert "sampled at batch 4" in about(table_of((at("teacache"), together)))


def test_a_bare_record_of_the_uncached_run_fills_no_row(spectrum):
    """It is kept beside the records that are compared with it, before `method=none` itself is run."""
    bare, whole = record_of("none", *FOUR), load_experiment("tiny_table")
    experiment = dataclasses.replace(whole, data={**whole.data, "limit": 4, "seeds": [0]})
    table = tables.match_rows(experiment, [bare, spectrum])
    assert table.full is bare and table.records == [spectrum]
    assert table.missing[0].keys == {"method": "none"}


def test_records_of_two_references_are_refused(fora):
    other = dataclasses.replace(fora, id="fora-other", reference="none-other")
    with pytest.raises(SpectrumError, match=f"{fora.id} and fora-other .* {fora.reference} and none-other"):
        tables.check_one_reference([fora, other, fora])
    tables.check_one_reference([fora, fora])
    tables.check_one_reference([])


def test_a_single_prompt_has_no_intervals():
    one = ("prompts.limit=1", "seeds=[0]")
    none, spectrum, fora = (
        record_of(m, *words, *one, psnr=psnr, clip=[clip])
        for m, words, psnr, clip in (
            ("none", (), [None], 70.0), ("spectrum", ("runs=14",), [20.0], 71.0), ("fora", ("runs=14",), [21.0], 69.0)
        )
    )  # fmt: skip
    table = table_of(({"method": "none"}, none), (at("spectrum"), spectrum), (at("fora"), fora), full=none)
    cells = shown(table, fora)
    assert (cells["PSNR (dB)"], cells["PSNR less spectrum's"], cells["CLIP less the full run's"]) == (
        "21.00", "(+1.00)", "-1.00"
    )  # fmt: skip
    assert "nan" not in formats.csv_table(table) and "nan" not in formats.markdown(table)


def test_csv_has_what_the_table_shows_and_more(none, spectrum, fora):
    import csv
    import io

    own = record_of("fora", "runs=14", *FOUR, psnr=[21.0, 23.0, 25.0, 27.0], ratios=[2.4, 2.5, 2.6])
    rows = [({"method": "none"}, none), (at("spectrum"), spectrum), (at("fora"), own), (at("lagrange"), None)]
    text = formats.csv_table(table_of(*rows, controls=controls(), full=none))
    first, second, third, last = csv.DictReader(io.StringIO(text))
    assert float(third["psnr_difference"]) == 2.5 and float(third["psnr_difference_low"]) == pytest.approx(
        0.4457, abs=1e-4
    )
    assert (
        float(third["psnr_difference_p"]) == float(third["psnr_difference_p_holm"]) == pytest.approx(0.0305, abs=1e-4)
    )
    assert (float(third["speedup_low"]), float(third["speedup_high"])) == pytest.approx((2.4, 2.6))
    assert float(third["psnr_at_latency"]) == 30 and float(third["psnr_at_latency_interval"]) == pytest.approx(
        3.5494, abs=2e-4
    )
    assert (float(second["clip_difference"]), first["psnr_of_mean_mse"]) == (0.5, "")
    assert (third["timing_pass"], third["timing_forced"], third["timed_nfe"]) == ("one pass", "False", "14.0")
    assert last["method"] == "lagrange (runs 14)" and last["missing_command"] == "the command" and last["id"] == ""
