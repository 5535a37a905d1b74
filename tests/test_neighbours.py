"""What a strategy sees: neighbours to any depth, distances, metadata, policies that find fewer than k."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_sampling import (
    BACKENDS,
    Problem,
    banned,
    config,
    in_tables,
    new_round,
    problems,
    random_problem,
    some_examples,
)

from negexp.components import build, parse
from negexp.config import MiningConfig, SamplerConfig
from negexp.corpus import Split
from negexp.errors import InputError
from negexp.sampling import Arguments, MiningPolicy, Negatives, Neighbours, SamplingRound
from negexp.sampling.policy import take_first
from negexp.sampling.samplers.hard import Hard


def ranked(problem: Problem, exclude: list[str], candidates: str, pair: int) -> list[tuple[float, int, int, bool]]:
    """Return all arguments but the pair's own point, nearest first: distance, argument, rank, allowed."""
    forbidden, query = banned(problem, exclude, pair), problem.queries[pair].astype(float)
    found = []
    for source, row in in_tables(problem, candidates):
        if (source, row) != ("point", pair):
            vector = (problem.points if source == "point" else problem.counters)[row].astype(float)
            argument = row if source == "point" else problem.pairs + row
            found.append((float(np.linalg.norm(query - vector)), argument, (source, row) not in forbidden))
    order = sorted(found, key=lambda one: (one[0], one[1]))
    return [(distance, argument, rank, free) for rank, (distance, argument, free) in enumerate(order, 1)]


@pytest.mark.parametrize("candidates", ["both", "points", "counters"])
@pytest.mark.parametrize("exclude", [["self"], ["self", "duplicates"]])
@some_examples
@given(problem=problems(), depth=st.integers(1, 20))
def test_neighbours_to_any_depth_equal_the_oracle(
    candidates: str, exclude: list[str], problem: Problem, depth: int
) -> None:
    pair = np.arange(problem.pairs)[::-1]
    for backend in BACKENDS:
        round_ = new_round(problem, exclude, candidates, backend)
        found = round_.neighbours(pair, depth)
        assert found.pair.tolist() == pair.tolist()
        for place, one in enumerate(pair.tolist()):
            expected = ranked(problem, exclude, candidates, one)
            last = [rank for _, _, rank, free in expected if free][:depth]
            # up to the depth-th allowed one; where there are fewer, all there are
            wanted = expected[: last[-1]] if len(last) == depth else expected
            known = found.rank[place] > 0
            assert not found.allowed[place][~known].any()
            assert np.isinf(found.distance[place][~known]).all()
            assert found.argument[place][known].tolist() == [argument for _, argument, _, _ in wanted]
            assert found.rank[place][known].tolist() == [rank for _, _, rank, _ in wanted]
            assert found.allowed[place][known].tolist() == [free for _, _, _, free in wanted]
            np.testing.assert_allclose(found.distance[place][known], [distance for distance, _, _, _ in wanted])


@some_examples
@given(problem=problems())
def test_distances_equal_a_plain_loop(problem: Problem) -> None:
    round_ = new_round(problem)
    pair = np.arange(problem.pairs)
    argument = np.tile(np.arange(2 * problem.pairs), (problem.pairs, 1))
    found = round_.distance(pair, argument)
    both = np.concatenate([problem.points, problem.counters]).astype(float)
    for one in pair:
        expected = [float(np.linalg.norm(problem.queries[one].astype(float) - vector)) for vector in both]
        np.testing.assert_allclose(found[one], expected, atol=1e-12)
        assert round_.positive_distance[one] == pytest.approx(expected[problem.pairs + one])


def test_drawn_and_mined_negatives_know_their_distances() -> None:
    problem = random_problem(30, k=2)
    round_ = new_round(problem, backend="exact")
    pair = np.arange(30)
    for negatives in (round_.draw(pair), build("sampler", config(num_negatives=2)).sample(round_)):
        np.testing.assert_allclose(negatives.distance, round_.distance(pair, negatives.argument), atol=1e-12)


def test_arguments_are_points_then_counters_with_the_metadata_of_their_pair() -> None:
    split = Split(
        ("a", "b", "c"),
        point=np.array([4, 5, 4]),
        counter=np.array([6, 7, 8]),
        theme=np.array([0, 1, 0]),
        debate=np.array([2, 3, 2]),
        stance=np.array([0, 0, 1]),
        identity=np.arange(9) // 2,
    )
    arguments = Arguments(split)
    assert len(arguments) == 6
    assert arguments.number("point", np.array([2, 0])).tolist() == [2, 0]
    assert arguments.number("counter", np.array([2, 0])).tolist() == [5, 3]
    everything = np.arange(6)
    assert arguments.row(everything).tolist() == [0, 1, 2, 0, 1, 2]
    assert arguments.is_counter(everything).tolist() == [False] * 3 + [True] * 3
    assert arguments.text.tolist() == [4, 5, 4, 6, 7, 8]
    assert arguments.identity.tolist() == [2, 2, 2, 3, 3, 4]
    for name in ("theme", "debate", "stance"):
        codes, own = getattr(arguments, name), getattr(split, name)
        assert codes is not None
        assert own is not None
        assert codes.tolist() == [*own, *own]
    assert everything[arguments.table("counter")].tolist() == [3, 4, 5]


# ---------------------------------------------------------------- fewer than k


class OddNumbers(MiningPolicy):
    """Takes arguments of odd numbers only."""

    def depth(self, round_: SamplingRound) -> int:
        return 2 * round_.pairs

    def select(self, neighbours: Neighbours, round_: SamplingRound) -> Negatives:
        return take_first(neighbours, neighbours.allowed & (neighbours.argument % 2 == 1), round_.num_negatives)


@pytest.mark.parametrize("k", [1, 3, 50])
def test_a_policy_may_find_fewer_than_k(k: int) -> None:
    problem = random_problem(12, k=k)
    sampler = Hard(config(num_negatives=k))
    sampler.policy = OddNumbers(MiningConfig("odd"))
    negatives = sampler.sample(new_round(problem, backend="exact"))
    fewer = False
    for pair in range(12):
        wanted = [
            (argument, rank, distance)
            for distance, argument, rank, free in ranked(problem, ["self", "duplicates"], "both", pair)
            if free and argument % 2 == 1
        ][:k]
        there = negatives.weight[pair] > 0
        assert there.tolist() == [True] * len(wanted) + [False] * (k - len(wanted))
        assert negatives.argument[pair][there].tolist() == [argument for argument, _, _ in wanted]
        assert negatives.neighbour_rank[pair][there].tolist() == [rank for _, rank, _ in wanted]
        np.testing.assert_allclose(negatives.distance[pair][there], [distance for _, _, distance in wanted])
        assert np.isnan(negatives.distance[pair][~there]).all()
        fewer |= len(wanted) < k
    assert fewer == (k == 50)


class NoNeighbour(MiningPolicy):
    """Takes nothing."""

    def select(self, neighbours: Neighbours, round_: SamplingRound) -> Negatives:
        return take_first(neighbours, np.zeros_like(neighbours.allowed), round_.num_negatives)


def test_places_without_a_negative_are_warned_of_and_a_round_without_any_is_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sampler = Hard(config(num_negatives=50))
    sampler.policy = OddNumbers(MiningConfig("odd"))
    problem = random_problem(12, k=50)
    with caplog.at_level("WARNING"):
        negatives = sampler.sample(new_round(problem, backend="exact"))
    missing = (negatives.weight == 0).sum() / negatives.weight.size
    assert f"{missing:.1%} of the negatives were not found" in caplog.text
    sampler.policy = NoNeighbour(MiningConfig("none"))
    with pytest.raises(InputError, match=r"sampler\.name=hard: found no negative for any pair; widen"):
        sampler.sample(new_round(problem, backend="exact"))


def test_a_subclass_cannot_forget_the_checks_of_the_shared_keys() -> None:
    @dataclass
    class Forgetful(SamplerConfig):
        def check(self) -> None:
            pass

    values = asdict(config())
    parse(Forgetful, values, "sampler")
    with pytest.raises(InputError, match=r"sampler\.exclude=\[\]: must contain self"):
        parse(Forgetful, {**values, "exclude": []}, "sampler")


def test_parts_are_joined_in_the_order_of_their_places() -> None:
    one = Negatives(np.array([[1], [2]]), np.array([[0], [0]]))
    other = Negatives(np.array([[3]]), np.array([[4]]), np.array([[0.5]], dtype=np.float32), np.array([[2.0]]))
    joined = Negatives.join([(np.array([2, 0]), one), (np.array([1]), other)])
    assert joined.argument.tolist() == [[2], [3], [1]]
    assert joined.neighbour_rank.tolist() == [[0], [4], [0]]
    assert joined.weight.tolist() == [[1.0], [0.5], [1.0]]
    assert np.isnan(joined.distance).ravel().tolist() == [True, False, True]


# ---------------------------------------------------------------- refreshes


def test_static_negatives_cannot_be_refreshed_within_an_epoch() -> None:
    with pytest.raises(InputError, match=r"sampler\.refresh\.steps=5: sampler=static keeps its negatives"):
        config("static", refresh={"epochs": 1, "steps": 5, "drift": None})


def test_steps_are_not_counted_in_epochs_that_keep_their_negatives() -> None:
    with pytest.raises(InputError, match=r"sampler\.refresh\.steps=5: .* sampler\.refresh\.epochs=2"):
        config("random", refresh={"epochs": 2, "steps": 5, "drift": None})
