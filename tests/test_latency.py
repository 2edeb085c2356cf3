"""Speed in a table: plain sampling in the same time, speed-ups and efficiency, against figures worked out by hand."""

import dataclasses

import pytest
from by_hand import FOUR, at, controls, record_of, shown, table_of

from eval.tables import latency


@pytest.fixture(scope="module")
def none():
    return record_of("none", *FOUR, psnr=[None] * 4, clip=[70.0, 71.0, 72.0, 73.0], ratios=[1.0] * 9)


def test_plain_sampling_in_the_same_time_lies_between_its_measured_points():
    """At 2.5x, a quarter of the way from 2x to 4x: 27.5, 29, 31, 32.5, with 3.1824 * 1.0992 = 3.498.

    The speed-up is 2.5 ± .1, and the line falls by 6 dB for each 1x: .6. Together sqrt(3.498² + .6²) = 3.549.
    """
    own = record_of("fora", "runs=14", *FOUR, psnr=[25.0] * 4, ratios=[2.4, 2.5, 2.6])
    assert latency.same_latency(own, controls()) == (pytest.approx(30.0), pytest.approx(3.5494, abs=2e-4))
    assert latency.same_latency_cell(own, controls()) == "30.00 ± 3.55"
    assert shown(table_of((at("fora"), own), controls=controls()), own)["Euler at this latency"] == "30.00 ± 3.55"


def test_seeds_of_one_prompt_are_one_draw_for_plain_sampling_too():
    """Each value twice, as two seeds: the half-width stays 3.549; that of eight draws would be 2.4."""
    twice = ("prompts.limit=4", "seeds=[0,1]")
    points = [
        record_of("fewer_steps", f"runs={runs}", *twice, psnr=[v for v in values for _ in range(2)], ratios=[speed] * 3)
        for runs, speed, values in ((25, 2.0, (30.0, 32.0, 34.0, 36.0)), (12, 4.0, (20.0, 20.0, 22.0, 22.0)))
    ]
    own = record_of("fora", "runs=14", *twice, psnr=[25.0] * 8, ratios=[2.4, 2.5, 2.6])
    assert latency.same_latency_cell(own, points) == "30.00 ± 3.55"


@pytest.mark.parametrize(
    ("speed", "said"), [(2.0, "33.00"), (4.0, "21.00"), (1.9, "above 33.00"), (4.1, "below 21.00"), (3.5, "24.00")]
)
def test_beyond_the_controls_the_nearest_is_named(speed, said):
    own = record_of("fora", "runs=14", *FOUR, psnr=[25.0] * 4, ratios=[speed] * 3)
    assert latency.same_latency_cell(own, controls()).partition(" ±")[0] == said


def test_where_a_control_says_nothing_there_is_none(none):
    own = record_of("fora", "runs=14", *FOUR, psnr=[25.0] * 4, ratios=[3.0] * 3)
    for record, points in (
        (own, controls()[:1]),
        (dataclasses.replace(own, timing=None), controls()),
        (none, controls()),
    ):
        assert latency.same_latency(record, points) is None and latency.same_latency_cell(record, points) == ""
    assert latency.same_latency_cell(controls()[0], controls()) == ""
    bare = [dataclasses.replace(control, metrics={}) for control in controls()]
    assert latency.same_latency_cell(own, [*bare, *controls()[:1]]) == ""


def test_a_speed_up_is_a_median_with_its_interval():
    """Nine rounds: the second and the eighth hold the median in 96.1 % of the cases."""
    ratios = [2.90, 2.99, 2.96, 2.50, 3.01, 3.40, 2.95, 2.97, 2.94]
    own = record_of("fora", "runs=14", *FOUR, ratios=ratios)
    cells = shown(table_of((at("fora"), own)), own)
    assert (cells["speed-up"], cells["latency"]) == ("2.96x [2.90, 3.01]", "338 ms")


def test_efficiency_is_that_of_the_runs_that_were_timed():
    """3x with 15 of 50 steps is 90 % of 50/15; by the 14 runs of all samples it would be 84 %, turned over 111 %."""
    own = record_of("teacache", "runs=14", *FOUR, ratios=[3.0] * 9, runs=list(range(14)), timed_runs=list(range(15)))
    cells = shown(table_of((at("teacache"), own)), own)
    assert (cells["NFE"], cells["speed-up"], cells["efficiency"]) == ("14 / 50", "3.00x [3.00, 3.00]", "90 %")
    assert own.efficiency == pytest.approx(0.9)
