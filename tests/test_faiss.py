"""`index=faiss`: flat equals brute force (see also test_index.py), and the recall of the other kinds is what it is."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import Train, compose_train
from test_index import brute_force, copied_embeddings

from negexp.cli import main
from negexp.errors import InputError
from negexp.index.recall import QuerySample
from negexp.modules import is_installed
from negexp.training.refresh import SharedIndex
from negexp.world import World

needs_faiss = pytest.mark.skipif(not is_installed("faiss"), reason="needs faiss: pip install '.[faiss]'")
if is_installed("faiss"):
    import faiss
    import torch
    from faiss_indexes import faiss_index
    from threadpoolctl import threadpool_info

    from negexp.index.backends.exact import ExactIndex

SMOKE = "experiment=smoke"
APPROXIMATE = {
    "ivf": {"kind": "ivf", "nlist": 20, "nprobe": 2},
    "hnsw": {"kind": "hnsw", "m": 4, "ef_construction": 10, "ef_search": 8},
}
every_approximate = pytest.mark.parametrize("keys", APPROXIMATE.values(), ids=APPROXIMATE)


def vectors_of(rows: int, seed: int = 0, dim: int = 24) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)


# --- without faiss ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["train", SMOKE], ["mine", "output=mined"], ["bench"]])
def test_without_the_library_one_line_names_the_extra(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "faiss").mkdir()  # a folder of that name is no package
    assert main([*command, "index=faiss"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "index.name=faiss: the package faiss is not installed; pip install 'negexp[faiss]'" in error
    assert [path.name for path in tmp_path.iterdir()] == ["faiss"]


def test_the_sample_is_drawn_uniformly_from_the_queries_of_all_searches() -> None:
    sample, lots = QuerySample(4, np.random.default_rng(3)), np.random.default_rng(3).random(12)
    rows = np.arange(12)[:, None]  # query i found row i
    for start, stop in ((0, 5), (5, 6), (6, 12)):
        sample.add(np.arange(start, stop, dtype=np.float32)[:, None], rows[start:stop])
    asked: list[float] = []

    def exact(queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        asked.extend(queries[:, 0].tolist())
        return np.zeros((len(queries), k)), queries.astype(np.int64)

    assert sample.recall(exact) == 1
    assert sorted(asked) == sorted(np.argsort(lots)[:4].tolist())


def test_recall_is_the_mean_share_of_the_true_rows_whatever_their_number() -> None:
    sample = QuerySample(10, np.random.default_rng(0))
    sample.add(np.array([[0.0], [1.0]]), np.array([[5, 6, 7, 8], [5, 6, 7, 8]]))
    sample.add(np.array([[2.0]]), np.array([[9]]))
    true = {0: [6, 5, 1, 2], 1: [5, 6, 7, 8], 2: [3]}

    def exact(queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros((len(queries), k)), np.array([true[int(query)] for query in queries[:, 0]])

    assert sample.recall(exact) == pytest.approx((0.5 + 1 + 0) / 3)


def test_several_processes_say_the_mean_of_their_recalls() -> None:
    class Two(World):
        size = 2

        def gather_bytes(self, data: bytes) -> list[bytes]:
            return [data, b'{"index_recall": 0.5}', b"{}"]  # the last one has searched nothing

    class Searched:
        def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
            raise AssertionError("nothing is searched")

        def statistics(self) -> dict[str, float]:
            return {"index_recall": 1.0}

    assert SharedIndex(Searched(), Two()).statistics() == {"index_recall": 0.75}


# --- the index ----------------------------------------------------------------------------------------------------


@needs_faiss
@pytest.mark.parametrize("normalize", [True, False])
def test_flat_returns_the_rows_and_the_bits_of_exact(normalize: bool) -> None:
    rng, vectors = np.random.default_rng(1), vectors_of(600, dim=96)
    vectors[100:200] = vectors[:100] + rng.normal(size=(100, 96)).astype(np.float32) * 1e-6  # nearer than float32 says
    vectors[300:350] = vectors[:50]
    if normalize:
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = np.concatenate([vectors[:80], vectors_of(30, seed=2, dim=96)])
    expected = ExactIndex(vectors, 1 << 20, torch.device("cpu")).search(queries, 7)
    index = faiss_index(vectors)
    distances, rows = index.search(queries, 7)
    np.testing.assert_array_equal(rows, expected[1])
    np.testing.assert_array_equal(distances, expected[0])
    assert index.statistics() == {}


@needs_faiss
def test_the_bound_on_the_error_of_a_distance_holds() -> None:
    vectors, queries = vectors_of(200, dim=300) + 3, vectors_of(50, seed=1, dim=300) + 3  # large norms, small distances
    index = faiss_index(vectors)
    squared, found = index._nearest(queries, 200, 200)
    true = ((vectors[found].astype(float) - queries[:, None].astype(float)) ** 2).sum(axis=2)
    error = np.abs(squared - true).max(axis=1)
    assert (error > 0).any()
    assert (error <= index._error(queries)).all()


@needs_faiss
@every_approximate
def test_the_reported_recall_equals_recall_recomputed(keys: dict[str, Any]) -> None:
    vectors, queries = vectors_of(500), vectors_of(60, seed=1)
    index = faiss_index(vectors, **keys)
    shares = []
    for k, some in ((3, queries[:40]), (11, queries[40:])):
        _, found = index.search(some, k)
        for query, rows in zip(some, found, strict=True):
            nearest = np.argsort(((vectors - query) ** 2).sum(axis=1))[:k]
            shares.append(len(set(nearest.tolist()) & set(rows.tolist())) / k)
    assert index.statistics() == {"index_recall": pytest.approx(np.mean(shares))}
    assert 0.2 < np.mean(shares) < 1
    few = faiss_index(vectors, **keys, recall_queries=5)
    few.search(queries, 3)
    assert few.statistics()["index_recall"] * 15 == pytest.approx(round(few.statistics()["index_recall"] * 15))


@needs_faiss
@pytest.mark.parametrize("keys", [{"kind": "ivf", "nlist": 9, "nprobe": 9}, {"kind": "hnsw", "ef_search": 400}])
def test_an_approximate_index_that_sees_everything_finds_copies_and_ties_in_row_order(keys: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    vectors, queries = rng.integers(-2, 3, (200, 3)).astype(np.float32), rng.integers(-2, 3, (20, 3)).astype(np.float32)
    for k in (1, 4, 30):
        distances, rows = faiss_index(vectors, **keys).search(queries, k)
        expected = brute_force(vectors, queries, k)
        assert (distances.tolist(), rows.tolist()) == expected
    vectors, queries = copied_embeddings()
    index = faiss_index(vectors, **keys)
    _, rows = index.search(queries, 4)
    assert (rows[:, :3] % 120 == np.arange(0, 120, 10)[:, None]).all()  # the query itself, three times
    assert index.statistics() == {"index_recall": 1.0}


@needs_faiss
@every_approximate
def test_a_query_with_too_few_vectors_in_reach_is_searched_completely(keys: dict[str, Any]) -> None:
    vectors, queries = vectors_of(300), vectors_of(5, seed=1)
    distances, rows = faiss_index(vectors, **keys).search(queries, 290)
    expected = brute_force(vectors, queries, 290)
    assert rows.tolist() == expected[1]
    np.testing.assert_allclose(distances, expected[0])


@needs_faiss
@pytest.mark.parametrize(
    ("rows", "nlist", "cells"), [(10000, None, 256), (1000, None, 25), (20, None, 1), (1000, 7, 7), (5, 7, 5)]
)
def test_the_number_of_cells(rows: int, nlist: int | None, cells: int, capfd: pytest.CaptureFixture[str]) -> None:
    index = faiss_index(vectors_of(rows, dim=2), kind="ivf", nlist=nlist)
    assert (index.index.nlist, index.index.nprobe) == (cells, min(16, cells))
    assert capfd.readouterr().err == ""  # faiss says nothing about few vectors


@needs_faiss
@every_approximate
def test_equal_seeds_give_equal_indexes_whatever_the_threads(keys: dict[str, Any]) -> None:
    vectors, queries = vectors_of(500), vectors_of(50, seed=1)
    one, again, other = (
        faiss_index(vectors, threads, seed=seed, **keys).search(queries, 5)[1]
        for threads, seed in ((1, 0), (4, 0), (1, 1))
    )
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


@needs_faiss
def test_a_search_uses_the_given_threads_and_leaves_those_of_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    index = faiss_index(vectors_of(50), threads=3)
    before, inside = [pool["num_threads"] for pool in threadpool_info()], []
    search = index.index.search

    def watched(*arguments: object) -> object:
        inside.append((faiss.omp_get_max_threads(), [pool["num_threads"] for pool in threadpool_info()]))
        return search(*arguments)

    monkeypatch.setattr(index, "searched", type("Searched", (), {"search": staticmethod(watched)}))
    index.search(vectors_of(30), 2)
    assert [threads for threads, _ in inside] == [3]
    assert set(inside[0][1]) == {3}
    assert [pool["num_threads"] for pool in threadpool_info()] == before


@needs_faiss
def test_a_build_without_a_gpu_refuses_it_in_one_line() -> None:
    with pytest.raises(InputError, match=r"^index\.gpu=true: kind=hnsw runs on the CPU only; use kind=ivf"):
        compose_train("index=faiss", "index.kind=hnsw", "index.gpu=true")
    if not hasattr(faiss, "StandardGpuResources"):
        with pytest.raises(InputError, match=r"^index\.gpu=true: the installed faiss is built for CPUs; install"):
            compose_train("index=faiss", "index.gpu=true")


# --- runs ---------------------------------------------------------------------------------------------------------


@needs_faiss
@pytest.mark.runs
def test_a_run_with_flat_equals_one_with_exact(run_training: Train) -> None:
    keys = [SMOKE, "sampler=hard", "trainer.epochs=1", "sampler.num_negatives=2"]
    flat, exact = (run_training(*keys, f"index={name}", folder=name) for name in ("faiss", "exact"))
    for file in ("negatives/epoch-000.parquet", "checkpoints/epoch-000/model.safetensors", "evaluation/test.json"):
        assert (flat / file).read_bytes() == (exact / file).read_bytes()
    assert "index_recall" not in pd.read_csv(flat / "metrics.csv")


@needs_faiss
@pytest.mark.runs
def test_a_run_and_mine_say_the_recall_of_each_refresh(
    run_training: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ivf = ["index=faiss", "index.kind=ivf", "index.nlist=8", "index.nprobe=1"]
    with caplog.at_level("INFO"):
        folder = run_training(
            SMOKE, "sampler=hard", "sampler.refresh.steps=1", "data.max_pairs=60", "trainer.epochs=1", *ivf
        )
    refreshes, metrics = (pd.read_csv(folder / f"{name}.csv")["index_recall"] for name in ("refreshes", "metrics"))
    assert len(refreshes) > 3
    assert refreshes.between(0.1, 0.99).all()
    assert metrics[0] == pytest.approx(refreshes.mean())
    assert f"index recall {metrics[0]:.3f}" in caplog.text
    monkeypatch.chdir(tmp_path)
    assert main(["mine", f"run={folder}", "output=mined", "sampler.num_negatives=1", *ivf]) == 0
    recall = json.loads((tmp_path / "mined" / "report.json").read_text())["mined"]["index_recall"]
    assert 0.1 < recall < 1
    assert f"the index found {recall:.1%} of the nearest" in (tmp_path / "mined" / "report.md").read_text()


@needs_faiss
def test_a_run_that_mines_in_later_epochs_only_has_the_column(run_training: Train) -> None:
    later = ["sampler.random_rate.values=[1,0]", "sampler.random_rate.epochs=[1]"]
    keys = ["sampler=scheduled", "schedule@sampler.random_rate=steps", *later]
    folder = run_training(SMOKE, *keys, "index=faiss", "index.kind=hnsw")
    recall = pd.read_csv(folder / "metrics.csv")["index_recall"]
    assert recall.isna().tolist() == [True, False]
