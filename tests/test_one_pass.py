"""Ranks of embeddings from one pass over float32 tiles, against plain loops over float64 distances."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_evaluation import LARGE, Case, as_table, cases, lookup, reference_ranks

from negexp.corpus.arguments import Split
from negexp.errors import InputError
from negexp.evaluation import (
    Combination,
    DistanceScorer,
    MatrixScorer,
    StageScorers,
    block,
    counting,
    one_pass,
    tile_pass,
    tiles,
)
from negexp.evaluation.ranking import rank_queries
from negexp.evaluation.scores import outside

TYPES = {"float32": np.float32, "float64": np.float64}


@contextmanager
def sizes(
    tile: int, queries: int, small: int, hits: int = 1000, opened: int = 1000, reached: float = 0.25
) -> Iterator[None]:
    """Make tiles and blocks small, so that small corpora have many of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "TILE", tile)
        patch.setattr(tile_pass, "MOST_OPEN", opened)
        patch.setattr(counting, "MOST_REACHED", reached)
        patch.setattr(one_pass, "MOST_QUERIES", queries)
        patch.setattr(one_pass, "SMALL", small)
        patch.setattr(block, "MOST_HITS", hits)
        yield


def scorers(vectors: np.ndarray, classifier: np.ndarray | None, weight: float = 0.0) -> StageScorers:
    table = torch.from_numpy(vectors)
    return StageScorers(
        DistanceScorer(table, table, np.arange(len(vectors))),
        None if classifier is None else lambda query, candidates: classifier[query[:, None], candidates],
        Combination(weight),
    )


def distances(vectors: np.ndarray) -> np.ndarray:
    wide = vectors.astype(np.float64)
    found: np.ndarray = -((wide[:, None] - wide[None]) ** 2).sum(axis=2)
    return found


@st.composite
def vectors_of(draw: st.DrawFn, texts: int) -> np.ndarray:
    """Draw vectors with ties, copies and neighbours that float32 products cannot tell apart."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    vectors = rng.integers(-1, 2, (texts, 3)).astype(np.float64) * draw(st.sampled_from([1e-3, 1.0, 1e3]))
    if draw(st.booleans()):
        vectors += draw(st.sampled_from([1e-1, 1e-4, 1e-6])) * np.abs(vectors).max() * rng.normal(size=vectors.shape)
    if draw(st.booleans()):
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors = vectors / np.where(norms > 0, norms, 1)
    return vectors.astype(TYPES[draw(st.sampled_from(sorted(TYPES)))])


@settings(deadline=None, derandomize=True, max_examples=60)
@given(data=st.data(), case=st.one_of(cases(), cases(respelled=True)), k=st.integers(1, 6))
def test_ranks_of_vectors_equal_plain_loops(data: st.DataObject, case: Case, k: int) -> None:
    vectors = data.draw(vectors_of(len(case.scores)))
    exact = distances(vectors)
    expected = reference_ranks(case.split, lookup(exact), lookup(case.classifier_scores), k)
    small, tile, queries = (data.draw(st.sampled_from(one)) for one in ([0, 3, 64], [1, 3, 2048], [1, 3, 1024]))
    hits, opened = data.draw(st.sampled_from([(0, 0), (1000, 1000)]))
    reached = data.draw(st.sampled_from([0.0, 0.25, 1.0]))  # whole tiles are compared always, sometimes, never
    with sizes(tile, queries, small, hits, opened, reached):
        ranks = rank_queries(case.split, scorers(vectors, case.classifier_scores), k, LARGE)
    assert as_table(ranks) == expected


@settings(deadline=None, derandomize=True, max_examples=15)
@given(data=st.data(), case=cases(), k=st.integers(1, 6))
def test_any_part_of_the_queries_has_the_rows_of_all_queries(data: st.DataObject, case: Case, k: int) -> None:
    both = scorers(data.draw(vectors_of(len(case.scores))), case.classifier_scores, 0.5)
    with sizes(tile=3, queries=2, small=data.draw(st.sampled_from([0, 64]))):
        whole = rank_queries(case.split, both, k, LARGE)
        numbers = np.arange(len(case.split))
        parts = [rank_queries(case.split, both, k, LARGE, queries=numbers[rest::3]) for rest in range(3)]
    keys = ["protocol", "stage", "task", "row"]
    joined = pd.concat(parts).sort_values(keys).reset_index(drop=True)
    pd.testing.assert_frame_equal(joined, whole.sort_values(keys).reset_index(drop=True))


@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("kind", sorted(TYPES))
def test_the_bound_on_the_error_of_a_tile_holds_and_says_something(kind: str, unit: bool) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(300, 64))
    if unit:
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = vectors.astype(TYPES[kind])
    scorer, texts = scorers(vectors, None).retrieval, np.arange(300)
    own = scorer.tiles(texts[:100])
    exact = own.rescaled(distances(vectors)[:100])
    wrong = (own.scores(texts).double() - exact).abs().amax(dim=1)
    assert (wrong <= own.error).all()
    assert (own.error <= 200 * wrong.max()).all(), "a bound that says nothing would leave all comparisons open"


def test_between_the_numbers_of_a_bound_nothing_is_decided() -> None:
    vectors = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    own = scorers(vectors, None).retrieval.tiles(np.arange(50))
    exact = distances(vectors)
    low, high = outside(own, exact, torch.float32)  # the score of each column is the bound
    seen = own.scores(np.arange(50))
    assert ((seen > low) & ~(seen > high)).all()


def test_few_comparisons_are_left_to_exact_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    case = one_debate_of(600)
    vectors = rng.normal(size=(1200, 32)).astype(np.float32)
    scored = 0
    compute = DistanceScorer.pairs

    def counted(self: DistanceScorer, query: np.ndarray, candidate: np.ndarray) -> np.ndarray:
        nonlocal scored
        scored += len(query)
        return compute(self, query, candidate)

    monkeypatch.setattr(DistanceScorer, "pairs", counted)
    rank_queries(case, scorers(vectors, None), 1, LARGE)
    assert scored < 600 * 1200 / 20


def one_debate_of(pairs: int) -> Split:
    rows = np.arange(pairs)
    return Split(tuple(map(str, range(pairs))), rows, pairs + rows, rows * 0, rows * 0, rows % 2)


def test_no_queries_have_no_ranks() -> None:
    vectors = np.eye(6, dtype=np.float32)
    ranks = rank_queries(one_debate_of(3), scorers(vectors, None), 3, LARGE, queries=np.empty(0, dtype=np.int64))
    assert len(ranks) == 0
    assert "rank" in ranks


def test_embeddings_that_are_not_finite_are_refused() -> None:
    vectors = np.eye(4, dtype=np.float32)
    vectors[2, 1] = np.nan
    with pytest.raises(InputError, match="not finite"):
        scorers(vectors, None)


@settings(deadline=None, derandomize=True, max_examples=15)
@given(seed=st.integers(0, 2**16), pairs=st.integers(0, 200))
def test_scores_of_pairs_are_those_of_the_matrix(seed: int, pairs: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(9, 9))
    query, candidate = rng.integers(0, 9, (2, pairs))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("negexp.evaluation.scores.MATRIX_SCORES", int(rng.integers(1, 50)))
        found = MatrixScorer(lambda rows, columns: matrix[np.ix_(rows, columns)]).pairs(query, candidate)
    np.testing.assert_array_equal(found, matrix[query, candidate])
