"""Strategies against an oracle written from the sampling contract: loops over pairs and arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binomtest, chisquare

from negexp.components import build
from negexp.components.parse import parse_component
from negexp.config import MiningConfig, SamplerConfig
from negexp.corpus import Split
from negexp.errors import InputError
from negexp.index import NeighbourIndex
from negexp.index.backends.balltree import BallTreeIndex
from negexp.index.backends.exact import ExactIndex
from negexp.randomness import derive, generator
from negexp.sampling import Arguments, EmbeddingSpace, Forbidden, Negatives, NegativeSampler, SamplingRound
from negexp.sampling.mining.nearest import Nearest

Argument = tuple[str, int]  # table and row

SELF, DUPLICATES = ["self"], ["self", "duplicates"]
BACKENDS: dict[str, Callable[[np.ndarray], NeighbourIndex]] = {
    "balltree": lambda vectors: BallTreeIndex(vectors, 1 << 10, leaf_size=2),
    "exact": lambda vectors: ExactIndex(vectors, 1 << 10, torch.device("cpu")),
}
every_exclude = pytest.mark.parametrize("exclude", [SELF, DUPLICATES], ids=["self", "duplicates"])
every_candidates = pytest.mark.parametrize("candidates", ["both", "points", "counters"])
some_examples = settings(deadline=None, derandomize=True, max_examples=30)


# ---- the oracle ------------------------------------------------------------------------------------------------------


@dataclass
class Problem:
    """Embeddings (pairs, dim) and text numbers of the pairs, and how many negatives are wanted."""

    queries: np.ndarray
    points: np.ndarray
    counters: np.ndarray
    point_text: np.ndarray
    counter_text: np.ndarray
    k: int

    @property
    def pairs(self) -> int:
        return len(self.points)


def banned(problem: Problem, exclude: list[str], pair: int) -> set[Argument]:
    own = {problem.point_text[pair], problem.counter_text[pair]}
    result = {("point", pair), ("counter", pair)}
    if "duplicates" in exclude:
        for other in range(problem.pairs):
            if problem.point_text[other] in own:
                result.add(("point", other))
            if problem.counter_text[other] in own:
                result.add(("counter", other))
            if problem.point_text[other] == problem.point_text[pair]:
                result.add(("counter", other))
    return result


def in_tables(problem: Problem, candidates: str) -> list[Argument]:
    points = [("point", row) for row in range(problem.pairs)]
    counters = [("counter", row) for row in range(problem.pairs)]
    return {"both": points + counters, "points": points, "counters": counters}[candidates]


def allowed(problem: Problem, exclude: list[str], candidates: str, pair: int) -> list[Argument]:
    forbidden = banned(problem, exclude, pair)
    return [argument for argument in in_tables(problem, candidates) if argument not in forbidden]


def fewest_allowed(problem: Problem, exclude: list[str], candidates: str) -> int:
    return min(len(allowed(problem, exclude, candidates, pair)) for pair in range(problem.pairs))


def nearest(problem: Problem, exclude: list[str], candidates: str, pair: int) -> list[tuple[Argument, int]]:
    """Return the k hard negatives with their places among all neighbours in the tables searched."""
    query = problem.queries[pair].tolist()
    neighbours = []
    for argument in in_tables(problem, candidates):
        source, row = argument
        if argument != ("point", pair):
            vector = (problem.points if source == "point" else problem.counters)[row].tolist()
            squared = sum((a - b) ** 2 for a, b in zip(query, vector, strict=True))
            neighbours.append((squared, ["point", "counter"].index(source), row, argument))
    places = [(entry[-1], place) for place, entry in enumerate(sorted(neighbours), start=1)]
    return [(argument, place) for argument, place in places if argument not in banned(problem, exclude, pair)][
        : problem.k
    ]


# ---- what the tests share --------------------------------------------------------------------------------------------


@st.composite
def problems(draw: st.DrawFn, max_pairs: int = 8) -> Problem:
    pairs, dim = draw(st.integers(2, max_pairs)), draw(st.integers(1, 3))
    coordinates = arrays(np.float32, (pairs, dim), elements=st.integers(-2, 2).map(float), fill=st.nothing())
    texts = arrays(np.int64, pairs, elements=st.integers(0, draw(st.sampled_from([3, 2 * max_pairs]))))
    points = draw(coordinates)
    queries = points if draw(st.booleans()) else draw(coordinates)  # other than the points: unshared encoders
    return Problem(queries, points, draw(coordinates), draw(texts), draw(texts), draw(st.integers(1, 3)))


def random_problem(pairs: int, k: int = 1, copies: bool = True) -> Problem:
    rng = np.random.default_rng(pairs)
    points, counters = rng.integers(-2, 3, (2, pairs, 3)).astype(np.float32)
    point_text, counter_text = rng.integers(0, pairs, (2, pairs)) if copies else np.arange(2 * pairs).reshape(2, pairs)
    if copies:
        point_text[: pairs // 2] = 0  # one text in half of the pairs
    return Problem(points, points, counters, point_text, counter_text, k)


NEAREST = Nearest(MiningConfig("nearest"))


def config(name: str = "hard", **changes: Any) -> SamplerConfig:
    every = changes.get("refresh_every", 1)
    keys = {"num_negatives": 1, "candidates": "both", "exclude": DUPLICATES, "refresh_every": every}
    keys |= {"refresh": {"epochs": every, "steps": None, "drift": None}, "mining": {"name": "nearest"}}
    keys |= {"source": "embeddings", "bm25": {"k1": 1.5, "b": 0.75, "method": "lucene", "stop_words": "none"}}
    options = parse_component("sampler", {"name": name} | keys | changes, "sampler")
    assert isinstance(options, SamplerConfig)
    return options


def build_sampler(options: SamplerConfig) -> NegativeSampler:
    sampler: NegativeSampler = build("sampler", options)
    return sampler


def decay(start_rate: float, step: float = 0.0, end_rate: float = 0.0, **changes: Any) -> SamplerConfig:
    return config("decay", start_rate=start_rate, step=step, end_rate=end_rate, **changes)


def arguments_of(problem: Problem) -> Arguments:
    ids = tuple(map(str, range(problem.pairs)))
    return Arguments(Split(ids, problem.point_text, problem.counter_text, None, None, None))


def forbidden_of(problem: Problem, exclude: list[str]) -> Forbidden:
    return Forbidden(arguments_of(problem), exclude)


def no_index(vectors: np.ndarray) -> NeighbourIndex:
    raise AssertionError("an index was asked for")


def new_round(
    problem: Problem,
    exclude: list[str] = DUPLICATES,
    candidates: str = "both",
    backend: str | None = None,
    epoch: int = 0,
    seed: int = 0,
) -> SamplingRound:
    """Return a round; without a backend, one in which nothing may be mined."""
    space = EmbeddingSpace(
        problem.queries,
        {"point": problem.points, "counter": problem.counters},
        no_index if backend is None else BACKENDS[backend],
    )
    rng, forbidden = generator(seed, epoch, "negatives"), forbidden_of(problem, exclude)
    round_ = SamplingRound(forbidden.arguments, forbidden, space, rng, num_negatives=problem.k, candidates=candidates)
    return round_.at(epoch)


def arguments(problem: Problem, negatives: Negatives) -> list[list[Argument]]:
    n = problem.pairs
    return [[("point", a) if a < n else ("counter", a - n) for a in row] for row in negatives.argument.tolist()]


def uniformity(counts: dict[Any, int], outcomes: list[Any]) -> float:
    """Return the chi-square test's p-value; an outcome that cannot be gives 0."""
    if not set(counts) <= set(outcomes):
        return 0.0
    return float(chisquare([counts.get(outcome, 0) for outcome in outcomes]).pvalue)


def count(outcomes: list[Any]) -> dict[Any, int]:
    return {outcome: outcomes.count(outcome) for outcome in set(outcomes)}


class Returning(NegativeSampler):
    """A strategy that returns what it is told to."""

    negatives: Negatives

    def choose(self, round_: SamplingRound) -> Negatives:
        return self.negatives


# ---- what is forbidden -----------------------------------------------------------------------------------------------


@every_exclude
@some_examples
@given(problem=problems())
def test_forbidden_equals_the_oracle(exclude: list[str], problem: Problem) -> None:
    forbidden = forbidden_of(problem, exclude)
    everything = in_tables(problem, "both")
    contained = forbidden.contains(np.arange(problem.pairs)[:, None], np.arange(2 * problem.pairs))
    expected = [banned(problem, exclude, pair) for pair in range(problem.pairs)]
    assert contained.tolist() == [[argument in pair for argument in everything] for pair in expected]
    for source in ("point", "counter"):
        assert forbidden.count(source).tolist() == [sum(name == source for name, _ in pair) for pair in expected]


@every_candidates
@every_exclude
@some_examples
@given(problem=problems(max_pairs=4))
def test_more_negatives_than_some_pair_has_candidates_are_refused(
    candidates: str, exclude: list[str], problem: Problem
) -> None:
    sampler = build_sampler(config(num_negatives=problem.k, candidates=candidates, exclude=exclude))
    forbidden = forbidden_of(problem, exclude)
    if fewest_allowed(problem, exclude, candidates) >= problem.k:
        sampler.check_candidates(forbidden)
    else:
        with pytest.raises(InputError, match=rf"sampler\.num_negatives={problem.k}: .*candidates={candidates}\)"):
            sampler.check_candidates(forbidden)


# ---- hard ------------------------------------------------------------------------------------------------------------


@every_candidates
@every_exclude
@some_examples
@given(problem=problems())
def test_hard_negatives_equal_the_oracle_with_both_backends(
    candidates: str, exclude: list[str], problem: Problem
) -> None:
    assume(fewest_allowed(problem, exclude, candidates) >= problem.k)
    expected = [nearest(problem, exclude, candidates, pair) for pair in range(problem.pairs)]
    sampler = build_sampler(config(num_negatives=problem.k, candidates=candidates, exclude=exclude))
    for backend in BACKENDS:
        negatives = sampler.sample(new_round(problem, exclude, candidates, backend))
        assert arguments(problem, negatives) == [[argument for argument, _ in pair] for pair in expected]
        assert negatives.neighbour_rank.tolist() == [[place for _, place in pair] for pair in expected]
        assert negatives.mined.all()


@every_exclude
@pytest.mark.parametrize("backend", BACKENDS)
def test_mining_is_correct_with_a_text_in_half_of_the_pairs(backend: str, exclude: list[str]) -> None:
    problem = random_problem(60, k=3)
    negatives = new_round(problem, exclude, "both", backend).mine(np.arange(60), NEAREST)
    expected = [nearest(problem, exclude, "both", pair) for pair in range(60)]
    assert arguments(problem, negatives) == [[argument for argument, _ in pair] for pair in expected]
    assert negatives.neighbour_rank.tolist() == [[place for _, place in pair] for pair in expected]


def test_some_pairs_are_mined_in_the_order_asked_for() -> None:
    problem = random_problem(20, k=2)
    round_ = new_round(problem, backend="exact")
    everything = round_.mine(np.arange(20), NEAREST)
    some = round_.mine(np.array([13, 2, 7]), NEAREST)
    assert some.argument.tolist() == everything.argument[[13, 2, 7]].tolist()
    assert some.neighbour_rank.tolist() == everything.neighbour_rank[[13, 2, 7]].tolist()


# ---- random ----------------------------------------------------------------------------------------------------------


@every_candidates
@every_exclude
@some_examples
@given(problem=problems(), seed=st.integers(0, 1000))
def test_draws_are_allowed_and_different(candidates: str, exclude: list[str], problem: Problem, seed: int) -> None:
    assume(fewest_allowed(problem, exclude, candidates) >= problem.k)
    sampler = build_sampler(config("random", num_negatives=problem.k, candidates=candidates, exclude=exclude))
    negatives = sampler.sample(new_round(problem, exclude, candidates, seed=seed))
    for pair, drawn in enumerate(arguments(problem, negatives)):
        assert set(drawn) <= set(allowed(problem, exclude, candidates, pair))
        assert len(set(drawn)) == problem.k
    assert not negatives.mined.any()


@every_candidates
@every_exclude
def test_draws_are_uniform_over_what_is_allowed(candidates: str, exclude: list[str]) -> None:
    problem = random_problem(6)
    round_ = new_round(problem, exclude, candidates)
    for pair in range(6):
        drawn = [row[0] for row in arguments(problem, round_.draw(np.full(3000, pair)))]
        assert uniformity(count(drawn), allowed(problem, exclude, candidates, pair)) > 1e-3


def test_two_draws_of_a_pair_are_uniform_over_ordered_couples() -> None:
    problem = random_problem(6, k=2)
    for pair in range(6):
        drawn = [tuple(row) for row in arguments(problem, new_round(problem).draw(np.full(5000, pair)))]
        free = allowed(problem, DUPLICATES, "both", pair)
        assert uniformity(count(drawn), [(a, b) for a in free for b in free if a != b]) > 1e-3


@pytest.mark.parametrize("sampler_config", [config("random"), config("static"), decay(1.0)], ids=lambda c: c.name)
def test_random_static_and_decay_at_rate_one_are_uniform_without_an_index(sampler_config: SamplerConfig) -> None:
    problem, sampler = random_problem(6), build_sampler(sampler_config)
    seen: list[list[Argument]] = [[] for _ in range(6)]
    for seed in range(1000):
        for pair, drawn in enumerate(arguments(problem, sampler.sample(new_round(problem, seed=seed)))):
            seen[pair] += drawn
    for pair in range(6):
        assert uniformity(count(seen[pair]), allowed(problem, DUPLICATES, "both", pair)) > 1e-3


# ---- decay and the schedules -----------------------------------------------------------------------------------------


@some_examples
@given(rates=st.tuples(st.floats(0, 1), st.floats(0, 1)), step=st.floats(0, 1), epoch=st.integers(0, 300))
def test_decay_rate_falls_by_the_step_to_the_end_rate(rates: tuple[float, float], step: float, epoch: int) -> None:
    end, start = sorted(rates)
    assert build_sampler(decay(start, step, end)).random_rate(epoch) == max(end, start - step * epoch)


@pytest.mark.parametrize(("epoch", "rate"), [(0, 0.8), (10, 0.6), (39, 0.1), (400, 0.1)])
def test_share_of_random_draws_matches_the_rate(epoch: int, rate: float) -> None:
    problem, sampler = random_problem(1000, copies=False), build_sampler(decay(0.8, 0.02, 0.1))
    negatives = sampler.sample(new_round(problem, backend="exact", epoch=epoch))
    assert sampler.random_rate(epoch) == pytest.approx(rate)
    assert binomtest(int((~negatives.mined).sum()), 1000, rate).pvalue > 1e-3


def test_decay_at_rate_zero_equals_hard() -> None:
    problem = random_problem(40, k=2)
    hard = build_sampler(config(num_negatives=2)).sample(new_round(problem, backend="exact"))
    decayed = build_sampler(decay(0.5, 0.5, num_negatives=2)).sample(new_round(problem, backend="exact", epoch=1))
    np.testing.assert_array_equal(decayed.argument, hard.argument)
    np.testing.assert_array_equal(decayed.neighbour_rank, hard.neighbour_rank)


def test_decay_decides_once_for_all_negatives_of_a_pair() -> None:
    problem = random_problem(60, k=3)
    hard = new_round(problem, backend="balltree").mine(np.arange(60), NEAREST)
    negatives = build_sampler(decay(0.5, num_negatives=3)).sample(new_round(problem, backend="balltree"))
    mined = np.asarray(negatives.mined.any(axis=1))
    assert 0 < mined.sum() < 60
    np.testing.assert_array_equal(negatives.mined, np.repeat(mined[:, None], 3, axis=1))
    np.testing.assert_array_equal(negatives.argument[mined], hard.argument[mined])
    np.testing.assert_array_equal(negatives.neighbour_rank[mined], hard.neighbour_rank[mined])


@pytest.mark.parametrize("sampler_config", [config("random"), config("static"), decay(1.0)], ids=lambda c: c.name)
def test_no_index_is_built_where_nothing_is_mined(sampler_config: SamplerConfig) -> None:
    build_sampler(sampler_config).sample(new_round(random_problem(6)))


@pytest.mark.parametrize("sampler_config", [config("hard"), decay(1.0, 0.1)], ids=lambda c: c.name)
def test_an_index_is_built_where_something_is_mined(sampler_config: SamplerConfig) -> None:
    with pytest.raises(AssertionError, match="an index was asked for"):
        build_sampler(sampler_config).sample(new_round(random_problem(60), epoch=9))


@pytest.mark.parametrize("every", [1, 2, 3])
@pytest.mark.parametrize("sampler_config", [config("hard"), config("random"), decay(0.8)], ids=lambda c: c.name)
def test_negatives_are_refreshed_every_so_many_epochs(sampler_config: SamplerConfig, every: int) -> None:
    sampler_config.refresh.epochs = every
    sampler = build_sampler(sampler_config)
    assert [epoch for epoch in range(7) if sampler.refreshes(epoch)] == list(range(0, 7, every))


@pytest.mark.parametrize("every", [1, 3])
def test_static_negatives_are_drawn_in_the_first_epoch_only(every: int) -> None:
    sampler = build_sampler(config("static", refresh_every=every))
    assert [epoch for epoch in range(7) if sampler.refreshes(epoch)] == [0]


# ---- determinism -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler_config", [config("random"), decay(0.5)], ids=lambda c: c.name)
def test_seed_and_epoch_decide_the_negatives(sampler_config: SamplerConfig) -> None:
    problem = random_problem(40)

    def sample(seed: int, epoch: int) -> list[list[int]]:
        round_ = new_round(problem, backend="exact", epoch=epoch, seed=seed)
        argument: list[list[int]] = build_sampler(sampler_config).sample(round_).argument.tolist()
        return argument

    assert sample(1, 3) == sample(1, 3)
    assert sample(1, 3) != sample(1, 4)
    assert sample(1, 3) != sample(2, 3)


def test_seed_epoch_and_purpose_each_give_other_draws() -> None:
    draws = {generator(*key).random() for key in [(1, 0, "a"), (1, 1, "a"), (2, 0, "a"), (1, 0, "b"), (11, 0, "a")]}
    assert len(draws) == 5
    assert generator(1, 0, "a").random() in draws


def test_derived_seeds_never_change() -> None:
    assert derive(7, 3, "negatives") == 8746295024174586424  # the first 63 bits of SHA-256 of "7/3/negatives"


# ---- what a strategy may return --------------------------------------------------------------------------------------


def returned(
    argument: list[list[int]], neighbour_rank: list[list[int]] | None = None, candidates: str = "both", k: int = 1
) -> None:
    """Sample with a strategy that returns these, for three pairs of which the first two share their point's text."""
    vectors = np.zeros((3, 2))
    problem = Problem(vectors, vectors, vectors, np.array([0, 0, 1]), np.array([2, 3, 4]), k=k)
    sampler = Returning(config(candidates=candidates))
    rank = np.zeros_like(argument) if neighbour_rank is None else np.array(neighbour_rank)
    sampler.negatives = Negatives(np.array(argument), rank)
    sampler.sample(new_round(problem, candidates=candidates))


def test_allowed_arguments_are_accepted() -> None:
    returned([[2], [5], [0]])


@pytest.mark.parametrize("first", [0, 3, 1, 4], ids=["point", "counter", "copy of the point", "counter of the copy"])
def test_a_forbidden_argument_is_refused(first: int) -> None:
    with pytest.raises(ValueError, match=r"Returning.*forbidden"):
        returned([[first], [5], [0]])


@pytest.mark.parametrize("last", [-1, 6])
def test_an_argument_outside_of_the_tables_is_refused(last: int) -> None:
    with pytest.raises(ValueError, match="Returning"):
        returned([[2], [5], [last]])  # -1 would be read as the last counter: pair 2's own


def test_an_argument_of_a_table_without_candidates_is_refused() -> None:
    with pytest.raises(ValueError, match=r"outside 3 \.\. 5 \(sampler\.candidates=counters\)"):
        returned([[5], [5], [0]], candidates="counters")
    with pytest.raises(ValueError, match=r"outside 0 \.\. 2 \(sampler\.candidates=points\)"):
        returned([[2], [5], [0]], candidates="points")


def test_an_argument_twice_for_a_pair_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Returning.*twice"):
        returned([[2, 5], [5, 5], [0, 1]], k=2)


@pytest.mark.parametrize("argument", [[[2], [5]], [[2, 5], [2, 5], [0, 1]]])
def test_a_wrong_shape_is_refused(argument: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="Returning"):
        returned(argument)


def test_ranks_of_another_shape_than_the_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="Returning"):
        returned([[2], [5], [0]], neighbour_rank=[[0], [0]])
