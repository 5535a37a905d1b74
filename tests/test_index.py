"""Every exact neighbour index against a sort over all distances, with many ties."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from negexp import components
from negexp.config import IndexConfig
from negexp.errors import InputError
from negexp.index import NeighbourIndex
from negexp.index.backends.balltree import BallTreeIndex
from negexp.index.backends.exact import ExactIndex
from negexp.modules import is_installed

Build = Callable[[np.ndarray, int], NeighbourIndex]

BACKENDS: dict[str, Build] = {
    "balltree": lambda vectors, block_bytes: BallTreeIndex(vectors, block_bytes, leaf_size=2),
    "balltree-leaf-40": lambda vectors, block_bytes: BallTreeIndex(vectors, block_bytes, leaf_size=40),
    "exact": lambda vectors, block_bytes: ExactIndex(vectors, block_bytes, torch.device("cpu")),
}
if is_installed("faiss"):
    from faiss_indexes import faiss_index

    BACKENDS["faiss, flat"] = lambda vectors, block_bytes: faiss_index(vectors, block_bytes=block_bytes)
every_backend = pytest.mark.parametrize("build", BACKENDS.values(), ids=BACKENDS)


def brute_force(vectors: np.ndarray, queries: np.ndarray, k: int) -> tuple[list[list[float]], list[list[int]]]:
    """Sort all (squared distance, row): exact for integer coordinates."""
    distances, rows = [], []
    for query in queries.tolist():
        everything = []
        for row, vector in enumerate(vectors.tolist()):
            everything.append((sum((a - b) ** 2 for a, b in zip(query, vector, strict=True)), row))
        nearest = sorted(everything)[:k]
        distances.append([math.sqrt(squared) for squared, _ in nearest])
        rows.append([row for _, row in nearest])
    return distances, rows


@st.composite
def searches(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    rows, queries, dim = draw(st.integers(1, 25)), draw(st.integers(1, 6)), draw(st.integers(1, 3))
    coordinates = st.integers(-2, 2).map(float)
    vectors = draw(arrays(np.float32, (rows, dim), elements=coordinates, fill=st.nothing()))
    asked = draw(arrays(np.float32, (queries, dim), elements=coordinates, fill=st.nothing()))
    return vectors, asked, draw(st.integers(1, rows))


def copied_embeddings() -> tuple[np.ndarray, np.ndarray]:
    """Return 120 real-valued vectors, each thrice and far apart in the table, and queries that are among them."""
    rng = np.random.default_rng(0)
    distinct = rng.normal(size=(120, 32)).astype(np.float32)
    return np.tile(distinct, (3, 1)), distinct[::10]


@every_backend
@settings(deadline=None, derandomize=True, max_examples=60)
@given(search=searches(), block_bytes=st.sampled_from([1, 100, 1 << 20]))
def test_search_equals_brute_force_with_ties(
    build: Build, search: tuple[np.ndarray, np.ndarray, int], block_bytes: int
) -> None:
    vectors, queries, k = search
    distances, rows = build(vectors, block_bytes).search(queries, k)
    expected_distances, expected_rows = brute_force(vectors, queries, k)
    assert rows.tolist() == expected_rows
    assert distances.tolist() == expected_distances


@every_backend
@pytest.mark.parametrize("k", [1, 7, 49, 50])
def test_equal_vectors_come_in_row_order(build: Build, k: int) -> None:
    vectors = np.full((50, 5), 0.1)
    distances, rows = build(vectors, 64).search(np.full((3, 5), 0.7), k)
    assert rows.tolist() == [list(range(k))] * 3
    np.testing.assert_allclose(distances, 0.6 * math.sqrt(5))


@every_backend
@pytest.mark.parametrize("k", [1, 2, 3, 4, 10])
def test_copies_of_real_valued_vectors_tie(build: Build, k: int) -> None:
    vectors, queries = copied_embeddings()
    _, rows = build(vectors, 1 << 20).search(queries, k)
    for query, found in zip(queries, rows, strict=True):
        distinct = ((vectors[:120].astype(float) - query.astype(float)) ** 2).sum(axis=1)
        in_order = [row + copy for row in np.argsort(distinct).tolist() for copy in (0, 120, 240)]
        assert found.tolist() == in_order[:k]


@every_backend
@pytest.mark.parametrize("k", [1, 3, 10])
def test_ties_survive_a_large_common_offset(build: Build, k: int) -> None:
    rng = np.random.default_rng(0)
    centre = rng.integers(2**20, 2**21, 8)  # squared norms lose the steps of 2**-10, differences keep them
    vectors = centre + rng.integers(-1, 2, (300, 8)) * 2.0**-10
    queries = centre + rng.integers(-1, 2, (10, 8)) * 2.0**-10
    assert build(vectors, 1 << 20).search(queries, k)[1].tolist() == brute_force(vectors, queries, k)[1]


def test_the_size_of_blocks_changes_nothing() -> None:
    vectors, queries = copied_embeddings()
    for build in BACKENDS.values():
        small, large = build(vectors, 1).search(queries, 5), build(vectors, 1 << 30).search(queries, 5)
        np.testing.assert_array_equal(small[0], large[0])
        np.testing.assert_array_equal(small[1], large[1])


def test_backends_agree_when_the_vectors_are_much_longer_than_the_query() -> None:
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(200, 16))
    vectors = 1e6 * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    queries = rng.normal(size=(20, 16))
    queries[0] = 0
    found = [build(vectors, 1 << 20).search(queries, 5)[1].tolist() for build in BACKENDS.values()]
    assert found[0] == found[1] == found[2]


def test_zero_queries_give_empty_results() -> None:
    for build in BACKENDS.values():
        distances, rows = build(np.eye(4), 1 << 20).search(np.empty((0, 4)), 2)
        assert distances.shape == rows.shape == (0, 2)


@pytest.mark.parametrize(("name", "kind"), [("balltree", BallTreeIndex), ("exact", ExactIndex)])
def test_the_configured_backend_is_built(name: str, kind: type[NeighbourIndex]) -> None:
    options = IndexConfig(name=name, leaf_size=2, block_bytes=1 << 20)
    index = components.build("index", options, vectors=np.eye(3), device=torch.device("cpu"), threads=1)
    assert type(index) is kind
    assert index.search(np.eye(3), 1)[1].tolist() == [[0], [1], [2]]


@every_backend
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_vectors_that_are_not_finite_are_refused(build: Build, bad: float) -> None:
    vectors = np.ones((20, 3), dtype=np.float32)
    broken = vectors.copy()
    broken[7, 1] = bad
    with pytest.raises(InputError, match=r"not finite.*lower trainer\.lr"):
        build(broken, 1 << 20)
    with pytest.raises(InputError, match=r"not finite.*lower trainer\.lr"):
        build(vectors, 1 << 20).search(broken, 1)
