"""Fast paths against the slow ones they replace: opinions, neighbours, ranks. `test_cpu_*.py` has the encoder's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import compose_train
from hypothesis import given, settings
from hypothesis import strategies as st
from test_evaluation import cases, rank_case

from negexp.config import ModelConfig
from negexp.evaluation import block, one_pass, tiles
from negexp.index import copies
from negexp.index.backends import exact
from negexp.index.backends.balltree import BallTreeIndex
from negexp.index.backends.exact import ExactIndex
from negexp.index.base import Candidates
from negexp.model import PairScores
from negexp.model.bi_encoder import COUNTER, NO_COUNTER, PairClassifier

CPU = torch.device("cpu")


@pytest.fixture
def config() -> ModelConfig:
    return replace(compose_train("experiment=smoke").model, dropout=0.0)


# ---------------------------------------------------------------- re-ranking


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("activation", ["none", "relu", "gelu", "tanh"])
@pytest.mark.parametrize("features", ["concat", "hidden", "retrieval"])
def test_pair_scores_are_the_classifiers_of_single_pairs(
    config: ModelConfig, features: str, activation: str, layer_norm: bool, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    options = replace(config, classifier_features=features, activation=activation, layer_norm=layer_norm)
    classifier = PairClassifier(3, 5, options).eval()
    query, candidate = ((torch.randn(9, 3, generator=generator), torch.randn(9, 5, generator=generator)) for _ in "qc")
    candidate = query if shared else candidate
    points = torch.tensor([4, 0, 4, 8])
    candidates = torch.randint(0, 9, (4, 6), generator=generator)
    monkeypatch.setattr("negexp.model.pair_scores.CACHE_BYTES", 400)  # several blocks
    with torch.inference_mode():
        found = PairScores(classifier, query, candidate)(points, candidates)
        for i, point in enumerate(points.tolist()):
            for j, other in enumerate(candidates[i].tolist()):
                logits = classifier(query[0][point], query[1][point], candidate[0][other], candidate[1][other])
                assert float(found[i, j]) == pytest.approx(float(logits[COUNTER] - logits[NO_COUNTER]), abs=1e-5)


def test_no_points_give_no_scores(config: ModelConfig) -> None:
    table = torch.zeros(2, 3), torch.zeros(2, 5)
    scores = PairScores(PairClassifier(3, 5, config), table, table)
    assert scores(torch.empty(0, dtype=torch.long), torch.empty(0, 4, dtype=torch.long)).shape == (0, 4)


# ---------------------------------------------------------------- neighbours


def sorted_by_distance(vectors: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return squared distances and rows of a full sort in float64."""
    squared = ((queries[:, None].astype(float) - vectors[None].astype(float)) ** 2).sum(axis=2)
    rows = np.argsort(squared, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(squared, rows, axis=1), rows


def clustered(rows: int, dim: int, unit: bool, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(rows // 8 + 1, dim))
    vectors = centres[rng.integers(0, len(centres), rows)] + 0.5 * rng.normal(size=(rows, dim))
    if unit:
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32)


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize(
    ("rows", "dim", "tile", "block_bytes"),
    [
        (1000, 16, 4096, 1 << 20),
        (1003, 24, 256, 1 << 20),
        (90, 8, 4096, 1 << 14),
        (515, 4, 64, 1 << 12),
        (40, 4, 16, 1),
    ],
)
def test_exact_search_equals_a_full_sort_whatever_is_rounded_and_however_little_memory_there_is(
    rows: int, dim: int, tile: int, block_bytes: int, unit: bool, coarse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact, "fast_bfloat16", lambda: coarse)
    monkeypatch.setattr(exact, "TILE", tile)
    vectors = clustered(rows, dim, unit)
    queries = vectors[::7]
    index = ExactIndex(vectors, block_bytes, CPU)
    assert index.precisions[0].vectors.dtype == (torch.bfloat16 if coarse and unit else torch.float32)
    for k in (1, 5, 40):
        distances, found = index.search(queries, k)
        squared, expected = sorted_by_distance(vectors, queries, k)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_allclose(distances**2, squared, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("apart", [1e-2, 1e-8])
def test_exact_search_is_exact_for_vectors_that_are_equal_after_rounding(
    apart: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact, "fast_bfloat16", lambda: True)
    rng = np.random.default_rng(0)
    vectors = np.array([1.0] + 63 * [0.0]) + apart * rng.normal(size=(600, 64))  # with 8 bits, or 24, all the same
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    index = ExactIndex(vectors, 1 << 20, CPU)
    queries = torch.from_numpy(vectors[:50])
    enough = [index._candidates_in(rounded, queries, 4) is not None for rounded in index.precisions]
    assert enough == ([False, True] if apart == 1e-2 else [False, False])
    expected = sorted_by_distance(vectors, vectors[:50], 4)[1]
    np.testing.assert_array_equal(index.search(vectors[:50], 4)[1], expected)
    frugal = ExactIndex(vectors, 1 << 10, CPU)  # searches query by query, and must not keep all for its candidates
    np.testing.assert_array_equal(frugal.search(vectors[:50], 4)[1], expected)
    candidates = frugal._candidates(vectors[:1], 4)
    assert candidates is not None
    assert len(candidates.vector) == (4 if apart == 1e-2 else 600)


@pytest.mark.parametrize("size", [1e-23, 3e-19, 1e-8, 1e8, 1e15])
@pytest.mark.parametrize("spread", [0, 1e-5, 1])
def test_exact_search_is_exact_for_tiny_and_huge_vectors(
    size: float, spread: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact, "fast_bfloat16", lambda: True)
    length = size * (1 + spread * np.random.default_rng(1).random((60, 1)))
    vectors = (length * clustered(60, 16, unit=True)).astype(np.float32)
    found = ExactIndex(vectors, 1 << 20, CPU).search(vectors[:20], 5)[1]
    np.testing.assert_array_equal(found, sorted_by_distance(vectors, vectors[:20], 5)[1])


@pytest.mark.parametrize("norm", [1e18, 1e28])
def test_a_distant_query_with_tied_distances_finds_the_lower_row(norm: float) -> None:
    vectors, query = np.array([[0, 1], [1, 0]], dtype=np.float32), np.array([[norm, 0]], dtype=np.float32)
    assert ExactIndex(vectors, 1 << 20, CPU).search(query, 1)[1].tolist() == [[0]]
    assert BallTreeIndex(vectors, 1 << 20, leaf_size=2).search(query, 1)[1].tolist() == [[0]]


@pytest.mark.parametrize(("place", "loose"), [(0, 40), (1, 200)])
def test_the_bound_on_rounding_holds(place: int, loose: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "fast_bfloat16", lambda: True)
    vectors = clustered(700, 32, unit=True)
    table = (index := ExactIndex(vectors, 1 << 20, CPU)).precisions[place]
    queries, all_of_them = torch.from_numpy(vectors[:200]), torch.from_numpy(vectors).double()
    rounded = queries.to(table.vectors.dtype)
    seen = (rounded @ table.vectors.T).double()
    wrong = seen - (queries.double() @ all_of_them.T - (all_of_them**2).sum(1) / 2)
    worst = wrong.amax(dim=1) - wrong.amin(dim=1)  # by so much two scores can change places
    margin = index._margin(table, queries, rounded)
    assert (worst <= margin).all()
    assert (margin <= loose * worst).all(), "a bound that says nothing would make the search slow"


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_change_nothing_in_a_ball_tree(threads: int) -> None:
    vectors = clustered(300, 8, unit=True)
    one = BallTreeIndex(vectors, 1 << 20, 40).search(vectors[:3], 4)
    other = BallTreeIndex(vectors, 1 << 20, 40, threads).search(vectors[:3], 4)
    np.testing.assert_array_equal(one[0], other[0])
    np.testing.assert_array_equal(one[1], other[1])


@given(st.lists(st.lists(st.integers(0, 1), min_size=2, max_size=2), min_size=1, max_size=12))
@settings(deadline=None, max_examples=60, derandomize=True)
def test_copies_are_the_equal_rows(rows: list[list[int]]) -> None:
    vectors = np.array(rows, dtype=np.float32)
    found = copies.find_copies(vectors, 16)
    for i, one in enumerate(rows):
        for j, other in enumerate(rows):
            assert (found.group[i] == found.group[j]) == (one == other)
    distinct = found.distinct(vectors)
    np.testing.assert_array_equal(distinct[found.group], vectors)
    groups = np.arange(len(distinct))[::-1]
    expected = [(i, row) for i, g in enumerate(groups) for row in np.flatnonzero(found.group == g)[:2]]
    assert list(zip(*(part.tolist() for part in found.expand(groups, 2)), strict=True)) == expected


def test_rows_whose_hashes_collide_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "_hashes", lambda vectors, block_bytes: np.zeros(len(vectors), dtype=np.uint64))
    vectors = np.array([[1.0], [2.0], [1.0], [2.0]], dtype=np.float32)
    found = copies.find_copies(vectors, 16)
    np.testing.assert_array_equal(found.distinct(vectors)[found.group], vectors)


class Counting(BallTreeIndex):
    """Counts the queries that reach the tree."""

    asked = 0

    def _candidates(self, queries: np.ndarray, k: int) -> Candidates | None:
        self.asked += len(queries)
        return super()._candidates(queries, k)


def test_each_distinct_vector_is_searched_once_for_each_distinct_query() -> None:
    vectors = np.tile(clustered(50, 8, unit=True), (4, 1))
    index = Counting(vectors, 1 << 20, 40)
    rows = index.search(vectors, 3)[1]
    assert len(index.vectors) == 50
    assert index.asked == 50
    assert rows.tolist() == [[i % 50, i % 50 + 50, i % 50 + 100] for i in range(200)]


# ---------------------------------------------------------------- evaluation


@pytest.mark.parametrize(("tile", "queries", "small", "hits"), [(1, 1, 0, 0), (3, 2, 2, 5), (7, 1024, 4, 1000)])
@given(data=st.data(), k=st.integers(1, 6))
@settings(deadline=None, max_examples=25, derandomize=True)
def test_tiles_change_no_rank(tile: int, queries: int, small: int, hits: int, data: st.DataObject, k: int) -> None:
    case = data.draw(st.one_of(cases(), cases(respelled=True)))
    whole = rank_case(case, k)[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "TILE", tile)
        patch.setattr(one_pass, "MOST_QUERIES", queries)
        patch.setattr(one_pass, "SMALL", small)
        patch.setattr(block, "MOST_HITS", hits)
        pd.testing.assert_frame_equal(rank_case(case, k)[0], whole)
