"""Intervals and tests, compared with simulated data whose truth is known, and with scipy."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from simulations import BETTER, EQUAL, RARE, SETTINGS, Setting, measure, shown, simulate

from negexp.evaluation.power import needed_to_see, would_be_seen
from negexp.evaluation.statistics import OTHERS_OF_ARM, Study, wilson

SHORT, LONG = 400, 2000


def at_least(share: float, bound: float, simulations: int) -> bool:
    """Return whether a share reaches a bound. Few simulations have a tolerance of three standard errors."""
    slack = 0 if simulations > SHORT * 2 else 3 * np.sqrt(bound * (1 - bound) / simulations)
    return share >= bound - slack


def check(setting: Setting, simulations: int) -> None:
    one = measure(setting, simulations)
    if setting.coverage is not None and setting.false_positives is not None:
        assert at_least(one.coverage, setting.coverage, simulations)
        assert at_least(one.difference, setting.coverage, simulations)
        assert at_least(1 - one.false_positives, 1 - setting.false_positives, simulations)
    assert one.length <= setting.longest * 2 * 1.96 * one.deviation


def check_rare(setting: Setting, simulations: int) -> None:
    one = measure(setting, simulations)
    assert at_least(one.coverage, 0.94, simulations)
    assert at_least(1 - one.below, 0.96, simulations)  # neither side has nearly all of the 5 %
    assert at_least(1 - one.above, 0.96, simulations)


@pytest.mark.parametrize(
    "name", ["8 debates", "2 seeds", "10 arms, 2 seeds, one varies 3 times", "4 arms, 2 seeds, one varies 10 times"]
)
@pytest.mark.runs
def test_intervals_cover_the_truth_and_tests_have_few_false_positives(name: str) -> None:
    check(SETTINGS[name], SHORT)


@pytest.mark.long
@pytest.mark.parametrize("name", SETTINGS)
def test_intervals_cover_the_truth_and_tests_have_few_false_positives_in_many_simulations(name: str) -> None:
    check(SETTINGS[name], LONG)


@pytest.mark.parametrize("name", ["5% hits, 8 debates, 1 seeds", "5% hits, 50 debates, 1 seeds"])
@pytest.mark.runs
def test_intervals_of_rare_hits_cover_and_miss_on_both_sides(name: str) -> None:
    check_rare(RARE[name], 2 * SHORT)


@pytest.mark.long
@pytest.mark.parametrize("name", RARE)
def test_intervals_of_rare_hits_cover_and_miss_on_both_sides_in_many_simulations(name: str) -> None:
    check_rare(RARE[name], LONG)


@pytest.mark.runs
def test_the_best_of_24_equal_arms_is_rarely_reported_as_better() -> None:
    assert at_least(1 - shown(EQUAL["24 arms, 1 seeds"], SHORT // 4, draws=400)[0], 0.94, SHORT // 4)


@pytest.mark.long
@pytest.mark.parametrize("name", EQUAL)
def test_the_best_of_equal_arms_is_rarely_reported_as_better(name: str) -> None:
    limit = EQUAL[name].false_positives
    assert limit is not None
    assert shown(EQUAL[name], LONG // 2)[0] <= limit


def test_the_best_of_12_arms_is_often_reported_as_better() -> None:
    assert shown(BETTER["12 arms, 3 seeds"], 30, draws=400)[0] >= 0.4


def test_the_simulation_can_tell_a_bad_interval_from_a_good_one() -> None:
    rng = np.random.default_rng(11)
    setting = Setting(arms=1, debate_sd=0.7, accuracy=0.35)
    covered = 0
    for _ in range(1000):
        study, [truth] = simulate(rng, setting, 1, Study)
        one_run = study.arms[0][0, :, 0]  # a bad interval: it treats queries as independent and ignores the seeds
        error = one_run.std() / np.sqrt(len(one_run))
        covered += bool(abs(one_run.mean() - truth) <= 1.96 * error)
    assert covered / 1000 < 0.85


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.integers(1, 12), st.integers(13, 40), st.floats(0.05, 0.5))
def test_wilson_equals_scipys_wilson_interval_for_independent_queries(hits: int, queries: int, level: float) -> None:
    half = stats.norm.isf(level / 2) * np.sqrt(hits / queries * (1 - hits / queries) / queries)
    expected = stats.binomtest(hits, queries).proportion_ci(1 - level, method="wilson")
    low, high = wilson(np.array([hits / queries]), np.array([half]), 0)
    assert (low[0], high[0]) == pytest.approx((expected.low, expected.high))


def test_without_any_hit_the_interval_is_wilsons_for_that_number_of_queries() -> None:
    estimate = Study([np.zeros((1, 40, 1))], np.arange(40)).estimate(0)
    assert estimate.low[0] == 0
    square = stats.t.ppf(0.975, 39) ** 2 / 40
    assert estimate.high[0] == pytest.approx(square / (1 + square))  # where p = t sqrt(p (1 - p) / 40)


def test_an_arms_seeds_weigh_their_degrees_of_freedom_and_the_other_arms_half_a_degree() -> None:
    # debates of two queries with equal values: queries add no variance, the seeds' variance is known exactly
    def arm(*means: float) -> np.ndarray:
        return np.repeat(np.array(means), 40).reshape(len(means), 40, 1)

    study = Study([arm(0.4, 0.6), arm(0.45, 0.55), arm(0.5, 0.5)], np.arange(40) // 2, draws=200000)
    own, others = 0.02, (0.005 + 0) / 2
    variance = (own + OTHERS_OF_ARM * others) / (1 + OTHERS_OF_ARM) / 2
    half = stats.t.ppf(0.975, 1 + OTHERS_OF_ARM) * np.sqrt(variance)
    low, high = wilson(np.array([0.5]), np.array([half]), 0)
    estimate = study.estimate(0)
    assert (estimate.low[0], estimate.high[0]) == pytest.approx((low[0], high[0]), abs=0.005)


def test_adjusted_p_equals_p_for_two_arms_and_is_never_below_p_for_more() -> None:
    values = (np.random.default_rng(0).random((4, 2, 60, 3)) > 0.5).astype(float)
    two, four = (Study(list(values[:arms]), np.arange(60) // 3) for arms in (2, 4))
    np.testing.assert_array_equal(two.difference(0, 1).p, two.difference(0, 1).p_adjusted)
    for first, second in combinations(range(4), 2):
        difference = four.difference(first, second)
        assert (difference.p_adjusted >= difference.p).all()


def test_adjusted_p_equals_the_p_of_the_largest_t_over_all_exchanges_of_groups() -> None:
    rng = np.random.default_rng(3)
    sums = rng.random((3, 7))  # arms, groups
    sums[0] += 0.3
    largest: list[float] = []
    observed: dict[tuple[int, int], float] = {}
    for signs in product((1, -1), repeat=7):
        t = {}
        for first, second in combinations(range(3), 2):
            t[first, second] = abs(stats.ttest_1samp(np.array(signs) * (sums[first] - sums[second]), 0).statistic)
        observed = observed or t  # the first combination flips no sign
        largest.append(max(t.values()))
    study = Study([arm[None, :, None] for arm in sums], np.arange(7), draws=20000)
    for pair, t_observed in observed.items():
        expected = np.mean(np.array(largest) >= t_observed * (1 - 1e-9))
        assert study.difference(*pair).p_adjusted[0] == pytest.approx(expected, abs=0.012)


def test_equal_counts_are_equal_means() -> None:
    hits = [[14, 14, 14], [13, 14, 15]]
    arms = [np.array([np.arange(40) < count for count in one], dtype=float)[..., None] for one in hits]
    study = Study(arms, np.arange(40) // 5)
    assert study.estimate(0).mean[0] == study.estimate(1).mean[0] == 0.35


def test_means_and_deviations_equal_numpys() -> None:
    values = np.random.default_rng(0).random((3, 20, 2))
    estimate = Study([values], np.arange(20) // 3).estimate(0)
    assert estimate.mean == pytest.approx(values.mean(axis=(0, 1)))
    assert estimate.sd == pytest.approx(values.mean(axis=1).std(axis=0, ddof=1))
    assert (estimate.low < estimate.mean).all()
    assert (estimate.mean < estimate.high).all()


def test_one_seed_has_no_deviation_and_the_interval_of_a_cluster_bootstrap() -> None:
    rng = np.random.default_rng(1)
    group = np.repeat(np.arange(40), 5)
    values = (rng.random(40)[group] > 0.4).astype(float)[None, :, None]  # all queries of a debate have the same value
    estimate = Study([values], group, draws=20000).estimate(0)
    assert np.isnan(estimate.sd[0])
    debates = values[0, ::5, 0]
    expected = stats.bootstrap((debates,), np.mean, method="percentile", n_resamples=20000, rng=2).confidence_interval
    assert (estimate.low[0], estimate.high[0]) == pytest.approx((expected.low, expected.high), abs=0.026)


def test_the_paired_test_equals_scipys_over_all_exchanges_of_groups() -> None:
    rng = np.random.default_rng(5)
    group = np.repeat(np.arange(9), rng.integers(1, 5, 9))
    a, b = rng.random((2, 1, len(group), 1))
    a += 0.15
    sums = [np.bincount(group, values[0, :, 0]) for values in (a, b)]
    expected = stats.permutation_test(sums, lambda x, y: np.sum(x - y), permutation_type="samples", n_resamples=np.inf)
    difference = Study([a, b], group, draws=20000).difference(0, 1)
    assert difference.p[0] == pytest.approx(expected.pvalue, abs=0.01)
    assert difference.mean[0] == pytest.approx((a - b).mean())


def test_one_group_has_no_interval() -> None:
    values = np.random.default_rng(0).random((2, 1, 12, 1))
    study = Study(list(values), np.zeros(12, dtype=int))
    assert np.isnan(study.estimate(0).low[0])
    assert np.isnan(study.difference(0, 1).high[0])
    assert study.difference(0, 1).p[0] == 1


def test_intervals_of_shares_stay_between_0_and_1() -> None:
    hits = np.zeros((3, 40, 2))
    hits[0, :30, 0] = hits[1:, :, 0] = 1  # 0.75, 1, 1 and, in the other cell, 0.25, 0, 0
    hits[..., 1] = 1 - hits[..., 0]
    estimate = Study([hits], np.arange(40)).estimate(0)
    assert (estimate.low >= 0).all()
    assert (estimate.high <= 1).all()


def test_equal_arms_have_no_difference() -> None:
    values = (np.random.default_rng(0).random((2, 30, 1)) > 0.5).astype(float)
    difference = Study([values, values.copy()], np.arange(30)).difference(0, 1)
    assert difference.mean[0] == 0
    assert difference.p[0] == 1
    assert difference.same[0]
    assert difference.low[0] <= 0 <= difference.high[0]


def test_a_study_gives_the_same_numbers_twice() -> None:
    values = np.random.default_rng(0).random((2, 2, 30, 3))
    first, second = (Study(list(values), np.arange(30) // 4) for _ in range(2))
    for one, two in zip(first.difference(0, 1), second.difference(0, 1), strict=True):
        np.testing.assert_array_equal(one, two)


def test_needed_numbers_solve_the_power_formula() -> None:
    # 2 points with standard errors of 2 (queries) and 0.5 (seeds): the standard error must fall to 2 / 2.8016
    needed = needed_to_see(0.02, 0.02**2, 0.005**2, queries=1000, seeds=(2, 2))
    assert needed.queries is not None
    error = np.sqrt(0.02**2 * 1000 / needed.queries + 0.005**2)
    assert error == pytest.approx(0.02 / (stats.norm.ppf(0.975) + stats.norm.ppf(0.8)), rel=1e-3)
    assert needed.seeds is None  # the variance from the queries alone is too large


def test_needed_seeds_where_queries_suffice() -> None:
    needed = needed_to_see(0.02, 0.003**2, 0.02**2, queries=1000, seeds=(3, 3))
    assert needed.queries is None
    assert needed.seeds is not None
    error = np.sqrt(0.003**2 + 0.02**2 * 3 / needed.seeds)
    assert error <= 0.02 / (stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) < error * 1.05


def test_would_be_seen_means_detected_in_four_of_five_experiments() -> None:
    error = np.random.default_rng(0).normal(0, 0.01, 100_000)
    for half in (0.0196, 0.045):  # the second is the half-width of two seeds, far longer than a normal interval
        effect = half + 0.01 * stats.norm.ppf(0.8)
        assert (effect + error > half).mean() == pytest.approx(0.8, abs=0.01)
        assert would_be_seen(effect * 1.001, half, 0.01**2)
        assert not would_be_seen(effect * 0.999, half, 0.01**2)
