"""Intervals and tests against simulated data whose truth is known, and against scipy where it can do the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from negexp.evaluation.statistics import Study, holm, needed_to_see

SIMULATIONS = 1000


def simulate(
    rng: np.random.Generator,
    shifts: list[float],
    seeds: int,
    debate_sd: float,
    seed_sds: list[float],
    debates: int = 50,
) -> tuple[Study, list[float]]:
    """Return a study of arms with hits and misses, and each arm's true accuracy.

    A hit is a normal variable above zero: the arm's shift, an effect of the debate, of the query, of the seed, and
    noise of its own. Its probability over all queries and seeds is then known.
    """
    group = np.repeat(np.arange(debates), rng.integers(1, 10, debates))
    queries = len(group)
    shared = rng.normal(0, debate_sd, debates)[group] + rng.normal(0, 1, queries)
    arms, truth = [], []
    for shift, seed_sd in zip(shifts, seed_sds, strict=True):
        latent = shift + shared + rng.normal(0, seed_sd, seeds)[:, None] + rng.normal(0, 1, (seeds, queries))
        arms.append((latent > 0).astype(np.float64)[..., None])
        truth.append(float(stats.norm.cdf(shift / np.sqrt(debate_sd**2 + 1 + seed_sd**2 + 1))))
    return Study(arms, group, seed=int(rng.integers(2**31)), draws=400), truth


# what is simulated, the coverage that is asked for, the highest share of false positives
SETTINGS = {
    "debates and seeds": ({"seeds": 3, "debate_sd": 0.7, "seed_sds": [0.15] * 4}, (0.93, 0.97), 0.06),
    "seeds that disagree": ({"seeds": 3, "debate_sd": 0.3, "seed_sds": [0.5] * 4}, (0.93, 0.97), 0.06),
    "two seeds": ({"seeds": 2, "debate_sd": 0.5, "seed_sds": [0.2] * 4}, (0.93, 0.97), 0.06),
    # with nothing between the seeds, or few debates, what is not known costs more than it should
    "seeds that agree": ({"seeds": 3, "debate_sd": 0.7, "seed_sds": [0.0] * 4}, (0.93, 0.99), 0.06),
    "few debates": ({"seeds": 3, "debate_sd": 0.7, "seed_sds": [0.15] * 4, "debates": 8}, (0.93, 0.995), 0.06),
    # the arms' seeds are taken to vary alike; one arm that varies ten times as much breaks that
    "one unruly arm": ({"seeds": 3, "debate_sd": 0.5, "seed_sds": [0.5, 0.05, 0.05, 0.05]}, (0.85, 0.97), 0.12),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_intervals_cover_the_truth_as_often_as_they_say(name: str) -> None:
    setting, (lowest, highest), false_positives = SETTINGS[name]
    rng = np.random.default_rng(11)
    covered, covered_difference, tests = 0, 0, 0
    for _ in range(SIMULATIONS):
        study, truth = simulate(rng, [-0.3, -0.3, -0.3, 0.0], **setting)
        estimate = study.estimate(0)
        covered += bool(estimate.low[0] <= truth[0] <= estimate.high[0])
        difference = study.difference(3, 0)
        covered_difference += bool(difference.low[0] <= truth[3] - truth[0] <= difference.high[0])
        tests += bool(study.difference(0, 1).p[0] <= 0.05)
    assert lowest <= covered / SIMULATIONS <= highest
    assert lowest <= covered_difference / SIMULATIONS <= highest
    assert tests / SIMULATIONS <= false_positives


def test_the_simulation_can_tell_a_bad_interval_from_a_good_one() -> None:
    rng = np.random.default_rng(11)
    covered = 0
    for _ in range(SIMULATIONS):
        study, truth = simulate(rng, [-0.6], seeds=3, debate_sd=0.7, seed_sds=[0.15])
        one_run = study.arms[0][0, :, 0]  # its queries taken for independent, its seed for the only one
        error = one_run.std() / np.sqrt(len(one_run))
        covered += bool(abs(one_run.mean() - truth[0]) <= 1.96 * error)
    assert covered / SIMULATIONS < 0.85


def test_means_and_deviations_are_numpy_s() -> None:
    values = np.random.default_rng(0).random((3, 20, 2))
    estimate = Study([values], np.arange(20) // 3).estimate(0)
    assert estimate.mean == pytest.approx(values.mean(axis=(0, 1)))
    assert estimate.sd == pytest.approx(values.mean(axis=1).std(axis=0, ddof=1))
    assert (estimate.low < estimate.mean).all()
    assert (estimate.mean < estimate.high).all()


def test_one_seed_has_no_deviation_and_the_interval_of_a_cluster_bootstrap() -> None:
    rng = np.random.default_rng(1)
    group = np.repeat(np.arange(40), 5)
    values = (rng.random(40)[group] > 0.4).astype(float)[None, :, None]  # a debate is hit or missed as a whole
    estimate = Study([values], group, draws=20000).estimate(0)
    assert np.isnan(estimate.sd[0])
    debates = values[0, ::5, 0]
    expected = stats.bootstrap((debates,), np.mean, method="percentile", n_resamples=20000, rng=2).confidence_interval
    assert (estimate.low[0], estimate.high[0]) == pytest.approx((expected.low, expected.high), abs=0.026)


def test_paired_test_is_scipy_s_over_all_exchanges_of_the_groups() -> None:
    rng = np.random.default_rng(5)
    group = np.repeat(np.arange(9), rng.integers(1, 5, 9))
    a, b = rng.random((2, 1, len(group), 1))
    a += 0.15
    sums = [np.bincount(group, values[0, :, 0]) for values in (a, b)]
    expected = stats.permutation_test(sums, lambda x, y: np.sum(x - y), permutation_type="samples", n_resamples=np.inf)
    difference = Study([a, b], group, draws=20000).difference(0, 1)
    assert difference.p[0] == pytest.approx(expected.pvalue, abs=0.01)
    assert difference.mean[0] == pytest.approx((a - b).mean())


def test_one_group_shows_nothing_of_what_varies() -> None:
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


def test_equal_arms_differ_by_nothing() -> None:
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


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


@settings(deadline=None, derandomize=True)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_rejects_what_stepping_down_rejects(p: list[float]) -> None:
    adjusted = holm(p)
    assert all(value >= one for value, one in zip(adjusted, p, strict=True))
    level, rejected = 0.05, set()
    for step, index in enumerate(np.argsort(p, kind="stable")):
        if p[index] * (len(p) - step) > level:
            break
        rejected.add(int(index))
    assert {index for index, value in enumerate(adjusted) if value <= level} == rejected


def test_needed_numbers_solve_the_power_formula() -> None:
    # 2 points with standard errors of 2 (queries) and 0.5 (seeds): the standard error must fall to 2 / 2.8016
    needed = needed_to_see(0.02, 0.02**2, 0.005**2, queries=1000, seeds=(2, 2))
    assert needed.queries is not None
    error = np.sqrt(0.02**2 * 1000 / needed.queries + 0.005**2)
    assert error == pytest.approx(0.02 / (stats.norm.ppf(0.975) + stats.norm.ppf(0.8)), rel=1e-3)
    assert needed.seeds is None  # the queries' part alone is too large


def test_needed_seeds_where_queries_suffice() -> None:
    needed = needed_to_see(0.02, 0.003**2, 0.02**2, queries=1000, seeds=(3, 3))
    assert needed.queries is None
    assert needed.seeds is not None
    error = np.sqrt(0.003**2 + 0.02**2 * 3 / needed.seeds)
    assert error <= 0.02 / (stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) < error * 1.05
