"""Statistics against figures worked out by hand: t quantiles from tables, sums written out beside each test."""

import math

import numpy as np
import pytest
from scipy import stats

from eval import statistics
from eval.statistics import SKEWNESS

FIVE = [1.0, 2.0, 3.0, 4.0, 5.0]  # mean 3, standard error sqrt(2.5 / 5), no skewness, 4 degrees of freedom
TWICE = [value for value in FIVE for _ in range(2)]
EIGHT = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]


def t(level, freedom):
    return float(stats.t.ppf((1 + level) / 2, freedom))


# means


@pytest.mark.parametrize(("level", "quantile"), [(0.95, 2.776445), (0.93, 2.45589), (0.8, 1.533206)])
def test_the_interval_of_five_values_has_four_degrees_of_freedom(level, quantile):
    mean, half = statistics.interval(FIVE, level=level)
    assert mean == 3.0
    assert half == pytest.approx(quantile * math.sqrt(0.5), rel=1e-4)


def test_the_interval_has_95_percent_unless_asked_otherwise():
    assert statistics.interval(FIVE)[1] == pytest.approx(1.96324, abs=1e-4)
    assert statistics.paired(FIVE, [0.0] * 5).half == pytest.approx(1.96324, abs=1e-4)


def test_seeds_of_a_prompt_are_one_draw():
    assert statistics.interval(TWICE, per=2) == pytest.approx(statistics.interval(FIVE))
    # ten draws: sum of squares 20, standard error sqrt(20 / 9 / 10), t of 9 degrees of freedom
    assert statistics.interval(TWICE, per=1)[1] == pytest.approx(2.262157 * math.sqrt(2 / 9), rel=1e-5)


def test_skewed_values_get_a_wider_quantile():
    # deviations -1, -1, -1, 3: second moment 3, third 6, squared skewness 36 / 27; standard error sqrt(12 / 3 / 4) = 1
    freedom = 3 / (1 + SKEWNESS * 36 / 27)
    assert statistics.interval([0, 0, 0, 4])[1] == pytest.approx(t(0.95, freedom))
    assert freedom < 1.05 and SKEWNESS == 1.4


def test_what_is_left_out_of_a_mean():
    # what is left: 1, 1 | 2 | 3, 3; deviations of the prompts -2, 0, 2; standard error sqrt(8 x 3 / 2) / 5
    values = [1, 1, 2, None, float("nan"), float("inf"), 3, 3]
    mean, half = statistics.interval(values, per=2)
    assert mean == 2.0
    assert half == pytest.approx(4.302653 * math.sqrt(12) / 5, rel=1e-5)


def test_a_mean_without_an_interval():
    assert statistics.interval([1.0, 2.0], per=2)[0] == 1.5
    assert math.isnan(statistics.interval([1.0, 2.0], per=2)[1])
    assert all(map(math.isnan, statistics.interval([None, float("inf")])))
    assert all(map(math.isnan, statistics.interval([])))
    assert statistics.interval([2.0, 2.0, 2.0]) == (2.0, 0.0)
    with pytest.raises(ValueError, match="5 values are no whole number of prompts with 2 samples each"):
        statistics.interval(FIVE, per=2)


# differences


def test_the_difference_of_two_methods():
    found = statistics.paired([11, 22, 33, 44, 55, None, 7], [10, 20, 30, 40, 50, 1, float("inf")])
    assert found.mean == 3.0
    assert found.half == pytest.approx(1.96324, abs=1e-4)
    assert (found.low, found.high) == (found.mean - found.half, found.mean + found.half)
    # t = 3 / sqrt(0.5), t^2 = 18; by the closed form for 4 degrees of freedom the p value is 0.01324
    assert found.p == pytest.approx(0.01324, abs=1e-5)
    assert statistics.paired([10, 20, 30], [11, 22, 33]).mean == -2.0


def test_the_difference_resamples_prompts():
    assert statistics.paired(TWICE, [0.0] * 10, per=2) == statistics.paired(FIVE, [0.0] * 5)


@pytest.mark.parametrize("level", [0.8, 0.93, 0.95])
def test_p_is_below_the_level_where_the_interval_leaves_out_0(level):
    rng = np.random.default_rng(0)
    inside = 0
    for shift in np.linspace(-1, 1, 41):
        values = (rng.standard_exponential(24) - 1 + shift).tolist()
        found = statistics.paired(values, [0.0] * 24, per=3, level=level)
        assert (found.p < 1 - level) == (found.low > 0 or found.high < 0)
        inside += found.p >= 1 - level
    assert 5 < inside < 36


def test_differences_that_are_all_the_same():
    assert statistics.paired(FIVE, FIVE) == statistics.Difference(0.0, 0.0, 1.0)
    assert statistics.paired([2.0, 3.0], [1.0, 2.0]) == statistics.Difference(1.0, 0.0, 0.0)


def test_a_difference_without_pairs():
    found = statistics.paired([None], [1.0])
    assert math.isnan(found.mean) and math.isnan(found.half) and math.isnan(found.p)
    assert math.isnan(statistics.paired([1.0], [2.0]).p)
    with pytest.raises(ValueError, match=r"shorter|longer"):
        statistics.paired([1.0], [1.0, 2.0])


# the worst


def test_the_worst_are_the_lowest_or_the_highest():
    assert statistics.worst([5, 1, 2, *[9] * 37])[0] == 1.5
    assert statistics.worst([5, 1, 2, *[0] * 37], higher_is_better=False)[0] == 3.5
    assert statistics.worst([5.0, 1.0])[0] == 1.0
    assert statistics.worst([*range(29)])[0] == 0.0  # 1.45 values are one
    assert statistics.worst([*range(30)])[0] == 0.5  # 1.5 values are two


def test_the_interval_of_the_worst_half_of_eight():
    # the edge is 4; beyond it lie -3, -2, -1 and five times 0, of mean -0.75: squares 9.5, cubes -11.25
    error = math.sqrt(9.5 * 8 / 7 / (4 * 3))
    squared_skewness = (11.25 / 8) ** 2 / (9.5 / 8) ** 3
    half = t(0.95, 7 / (1 + SKEWNESS * squared_skewness)) * error
    assert statistics.worst(EIGHT, share=0.5) == pytest.approx((2.5, half))
    assert statistics.worst(EIGHT, share=0.5, higher_is_better=False) == pytest.approx((6.5, half))
    assert statistics.worst(EIGHT, share=0.5, level=0.8)[1] == pytest.approx(
        t(0.8, 7 / (1 + SKEWNESS * squared_skewness)) * error
    )
    # each value twice: each prompt counts double, of eight worst values in place of four
    pairs = [value for value in EIGHT for _ in range(2)]
    assert statistics.worst(pairs, per=2, share=0.5)[1] == pytest.approx(half * 2 * math.sqrt(12 / 56))


def test_few_worst_values_have_at_least_one_degree_of_freedom():
    # one value beyond the edge: squares 1 - 1 / 40, standard error sqrt(0.975 x 40 / 39 / 2)
    assert statistics.worst([1, 2, *[9] * 38]) == pytest.approx((1.5, 12.7062 * math.sqrt(0.5)), rel=1e-5)


def test_what_is_left_out_of_the_worst():
    # 1, 2 | 3 | 4: the worst half is 1 and 2, beyond the edge 2 lies -1; -1/4 is expected of each value
    error = math.sqrt((0.5**2 + 0.25**2 + 0.25**2) * 3 / 2 / 2)
    squared_skewness = ((-(0.5**3) + 2 * 0.25**3) / 3) ** 2 / ((0.5**2 + 2 * 0.25**2) / 3) ** 3
    half = t(0.95, max(1, 2 / (1 + SKEWNESS * squared_skewness))) * error
    values = [1, 2, None, 3, float("inf"), float("nan"), 4, None]
    assert statistics.worst(values, per=2, share=0.5) == pytest.approx((1.5, half))


def test_a_worst_without_an_interval():
    for values, mean in ([[1.0, 2.0, 3.0], 1.0], [[1.0, 1.0, *[3.0] * 38], 1.0]):
        found = statistics.worst(values)
        assert found[0] == mean and math.isnan(found[1])
    assert math.isnan(statistics.worst([1.0, 2.0, 3.0, 4.0], per=4, share=0.5)[1])
    assert all(map(math.isnan, statistics.worst([None, float("inf")])))


# many comparisons


def test_holm():
    # 4 x .005, 3 x .01, 2 x .03, and .04 no less than the one before
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    adjusted = statistics.holm([float("nan"), 0.6, 0.02, 0.7])
    assert math.isnan(adjusted[0]) and adjusted[1:] == pytest.approx([1.0, 0.06, 1.0])
    assert statistics.holm([]) == []


def test_an_order_that_always_comes_back():
    rows = [[1.0, 2.0, 3.0, 4.0], [2.0, 3.0, 4.0, 5.0], [0.0, 1.0, 2.0, 3.0]]
    assert statistics.order_stability(rows) == 1.0
    assert statistics.order_stability([FIVE, FIVE]) == 1.0


def test_an_order_that_comes_back_half_the_time():
    zeros = [0.0] * 64
    near = [1.0, -1.0] * 32
    # the sum of 64 signs is above 0 in 45 % and 0 in 10 % of the draws; the small lift decides the last
    lifted = [value + 0.001 for value in near]
    assert statistics.order_stability([zeros, lifted]) == pytest.approx(0.55, abs=0.04)
    assert statistics.order_stability([lifted, zeros]) == pytest.approx(0.55, abs=0.04)
    both = statistics.order_stability([zeros, lifted, [-100.0] * 64])
    assert both == statistics.order_stability([zeros, lifted])


def test_an_order_resamples_prompts_with_their_seeds():
    # ten of sixteen prompts are better by 1, six worse: of sixteen draws more than half are better in 85 %
    rows = [[0.0] * 256, [1.0] * 160 + [-1.0] * 96]
    assert statistics.order_stability(rows, per=16) == pytest.approx(stats.binom.sf(7, 16, 10 / 16), abs=0.04)
    assert statistics.order_stability(rows) > 0.999


def test_an_order_with_missing_values():
    assert math.isnan(statistics.order_stability([FIVE, [None] * 5]))
    assert statistics.order_stability([FIVE, [2.0, None, 4.0, float("nan"), 6.0]]) > 0.5


# speed-ups


@pytest.mark.parametrize(
    ("count", "low", "high"),
    # 1 - 2 P(at most k of n): n = 5: k = 0 (93.75 %), 6: 0 (96.9), 7: 0 (98.4; k = 1 has 87.5), 8: 0 (99.2; 92.97),
    # 9: 1 (96.1), 10: 1 (97.9), 11: 2 (93.5), 12: 2 (96.1)
    [(2, 1, 2), (5, 1, 5), (6, 1, 6), (7, 1, 7), (8, 1, 8), (9, 2, 8), (10, 2, 9), (11, 3, 9), (12, 3, 10)],
)
def test_the_median_lies_between_two_of_the_values(count, low, high):
    values = np.random.default_rng(0).permutation(np.arange(1.0, count + 1)).tolist()
    assert statistics.median_interval(values) == ((count + 1) / 2, low, high)


def test_the_median_of_few_values():
    assert statistics.median_interval([3.0, None, float("inf")]) == (3.0, 3.0, 3.0)
    assert all(map(math.isnan, statistics.median_interval([])))
    assert statistics.median_interval([*map(float, range(1, 10))], level=0.8) == (5.0, 3.0, 7.0)  # 82.0 %


def test_a_control_at_a_speed_up_between_two_of_its_own():
    above, below = [30.0, 31.0, 32.0, 33.0, 34.0], [20.0, 21.0, 22.0, 23.0, 24.0]
    points = [((2.0, 2.0, 2.0), above), ((3.0, 3.0, 3.0), below), ((5.0, 5.0, 5.0), [0.0] * 5)]
    found = statistics.interpolated((2.25, 2.0, 2.5), points)
    # 0.75 x 32 + 0.25 x 22; 1.96324 of the samples, and 10 dB a unit times 0.25
    assert found == pytest.approx((29.5, math.hypot(1.96324, 2.5)), abs=1e-4)
    found = statistics.interpolated((4.0, 3.9, 4.1), points)
    assert found == pytest.approx((11.0, math.hypot(1.96324 / 2, 11 * 0.1)), abs=1e-4)
    assert statistics.interpolated((2.0, 2.0, 2.0), points) == pytest.approx((32.0, 1.96324), abs=1e-4)
    assert statistics.interpolated((5.0, 5.0, 5.0), points) == (0.0, 0.0)
    assert statistics.interpolated((1.99, 1.9, 2.1), points) is None
    assert statistics.interpolated((5.01, 5.0, 5.1), points) is None
    assert statistics.interpolated((2.5, 2.4, 2.6), points[:1]) is None
    points[:2] = [((2.0, 1.8, 2.2), above), ((3.0, 2.6, 3.4), below)]
    # the neighbours' speed-ups are off by 0.2 and 0.4, and weigh 0.75 and 0.25
    found = statistics.interpolated((2.25, 2.25, 2.25), points)
    assert found == pytest.approx((29.5, math.hypot(1.96324, 10 * 0.75 * 0.2, 10 * 0.25 * 0.4)), abs=1e-4)


def test_a_control_between_two_is_paired_by_sample():
    # one rises where the other falls, so each sample has 27 half-way
    two, three = (2.0, 2.0, 2.0), (3.0, 3.0, 3.0)
    points = [(two, [30.0, 31.0, 32.0, 33.0, 34.0]), (three, [24.0, 23.0, 22.0, 21.0, 20.0])]
    assert statistics.interpolated((2.5, 2.5, 2.5), points) == (27.0, 0.0)
    doubled = [(speedup, [value for value in values for _ in range(2)]) for speedup, values in points]
    assert statistics.interpolated((2.25, 2.0, 2.5), doubled, per=2) == pytest.approx(
        statistics.interpolated((2.25, 2.0, 2.5), points)
    )
