"""The ledger of a small example with distances computed by hand, and its statistics."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from negexp.corpus import Split
from negexp.index import NeighbourIndex
from negexp.sampling import Arguments, EmbeddingSpace, Forbidden, Negatives, SamplingRound
from negexp.tracking import build_ledger
from negexp.tracking.ledger import dropped_statistics, ledger_statistics, replaced_share

COLUMNS = ["pair", "negative", "source", "row", "mined", "distance", "positive_distance", "neighbour_rank"]
COLUMNS += ["gold_copy", "origin", "sampled_epoch", "dropped"]


# the second point is a copy of the first counter; the pairs share a theme but not a debate
TRAIN = Split(("a", "b"), np.array([0, 1]), np.array([1, 2]), np.array([0, 0]), np.array([0, 1]), np.array([0, 0]))


@pytest.fixture
def ledger() -> pd.DataFrame:
    """Two pairs with two negatives each: mined for the first pair, drawn at random for the second."""
    negatives = Negatives(argument=np.array([[1, 3], [0, 2]]), neighbour_rank=np.array([[1, 4], [0, 0]]))
    negatives = replace(negatives, dropped=np.array([[0, 2], [0, 0]]))
    points = np.array([[0, 0], [1, 1]], dtype=np.float32)
    candidate_points = np.array([[9, 1], [3, 4]], dtype=np.float32)
    counters = np.array([[0, 2], [6, 8]], dtype=np.float32)
    return ledger_of(TRAIN, negatives, points, candidate_points, counters)


def no_index(vectors: np.ndarray) -> NeighbourIndex:
    raise AssertionError("the ledger measures distances without an index")


def ledger_of(
    train: Split, negatives: Negatives, points: np.ndarray, candidate_points: np.ndarray, counters: np.ndarray
) -> pd.DataFrame:
    arguments = Arguments(train)
    space = EmbeddingSpace(points, {"point": candidate_points, "counter": counters}, no_index)
    rng = np.random.default_rng(0)
    round_ = SamplingRound(arguments, Forbidden(arguments, ["self"]), space, rng, num_negatives=1)
    return build_ledger(arguments, round_.measured(negatives), round_.positive_distance, 0)


def test_a_row_per_pair_and_negative(ledger: pd.DataFrame) -> None:
    assert ledger.columns.tolist() == COLUMNS
    assert ledger["pair"].tolist() == [0, 0, 1, 1]
    assert ledger["negative"].tolist() == [0, 1, 0, 1]


def test_a_gold_with_another_spelling_is_a_copy() -> None:
    negatives = Negatives(argument=np.array([[1], [2]]), neighbour_rank=np.array([[1], [1]]))
    vectors = np.zeros((2, 2), dtype=np.float32)
    train = replace(TRAIN, point=np.array([0, 3]), identity=np.array([0, 1, 2, 1]))
    assert ledger_of(train, negatives, vectors, vectors, vectors)["gold_copy"].tolist() == [True, False]


def test_arguments_become_source_and_row(ledger: pd.DataFrame) -> None:
    assert ledger["source"].tolist() == ["point", "counter", "point", "counter"]
    assert ledger["row"].tolist() == [1, 1, 0, 0]


def test_distances_start_at_the_point_as_query(ledger: pd.DataFrame) -> None:
    assert ledger["distance"].tolist() == [5, 10, 8, pytest.approx(2**0.5)]
    assert ledger["positive_distance"].tolist() == [2, 2, pytest.approx(74**0.5), pytest.approx(74**0.5)]


def test_random_draws_have_no_rank(ledger: pd.DataFrame) -> None:
    assert ledger["mined"].tolist() == [True, True, False, False]
    assert ledger["neighbour_rank"].isna().tolist() == [False, False, True, True]
    assert ledger["neighbour_rank"].dropna().tolist() == [1, 4]
    assert ledger["dropped"].isna().tolist() == [False, False, True, True]
    assert ledger["dropped"].dropna().tolist() == [0, 2]


def test_statistics_are_means_over_the_negatives(ledger: pd.DataFrame) -> None:
    assert ledger_statistics(ledger) == {
        "mined_share": 0.5,
        "point_share": 0.5,
        "negative_distance": pytest.approx((5 + 10 + 8 + 2**0.5) / 4),
        "positive_distance": pytest.approx((2 + 74**0.5) / 2),
        "nearer_share": 2 / 4,
        "neighbour_rank": 2.5,
        "gold_copy_share": 1 / 4,
        "debate_share": 0,
        "theme_share": 1,
    }


def test_what_was_dropped_counts_where_a_negative_was_mined_or_none_was_found() -> None:
    rank, weight = np.array([[1, 4], [2, 0], [0, 0]]), np.array([[1, 1], [1, 0], [1, 1]], dtype=np.float32)
    negatives = Negatives(rank * 0, rank, weight, dropped=np.array([[0, 2], [1, 7], [0, 0]]))  # the last pair is random
    assert dropped_statistics(negatives) == {"dropped": 10 / 4, "dropped_share": 3 / 4}
    random = Negatives(rank * 0, rank * 0)
    assert dropped_statistics(random) == {"dropped": None, "dropped_share": 0}


def test_copies_of_the_gold_and_the_origin_of_negatives(ledger: pd.DataFrame) -> None:
    assert ledger["gold_copy"].tolist() == [True, False, False, False]
    assert ledger["origin"].tolist() == ["theme"] * 4


def test_origin_is_null_where_the_corpus_has_neither_debate_nor_theme() -> None:
    negatives = Negatives(argument=np.array([[1], [0]]), neighbour_rank=np.array([[1], [1]]))
    vectors = np.zeros((2, 2), dtype=np.float32)
    plain = ledger_of(replace(TRAIN, theme=None, debate=None), negatives, vectors, vectors, vectors)
    assert plain["origin"].isna().all()
    assert ledger_statistics(plain)["debate_share"] is None
    themed = ledger_of(replace(TRAIN, theme=np.array([0, 1]), debate=None), negatives, vectors, vectors, vectors)
    assert themed["origin"].tolist() == ["elsewhere", "elsewhere"]
    debate = ledger_of(replace(TRAIN, debate=np.array([3, 3])), negatives, vectors, vectors, vectors)
    assert debate["origin"].tolist() == ["debate", "debate"]
    assert ledger_statistics(debate)["debate_share"] == 1


def negatives(*arguments: list[int]) -> Negatives:
    return Negatives(np.array(arguments), np.zeros((len(arguments), len(arguments[0])), dtype=np.int64))


def test_replaced_negatives_are_new_to_the_pair() -> None:
    assert replaced_share(negatives([12, 13], [19, 5]), negatives([5, 12], [2, 3])) == 3 / 4
    assert replaced_share(negatives([12, 13], [19, 5]), None) is None


def test_the_same_negatives_in_another_order_are_not_replaced() -> None:
    assert replaced_share(negatives([1, 2], [3, 4]), negatives([2, 1], [4, 3])) == 0
