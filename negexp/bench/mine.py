"""Compare mining with the original's ball trees, faiss and sentence-transformers."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import BallTree

from negexp.bench.machine import measure_all
from negexp.bench.peers import NOT_INSTALLED, faiss_flat, mine_with_sentence_transformers, sentence_transformer
from negexp.bench.phases import index_of, sample_negatives, sampler_options
from negexp.bench.setting import Setting
from negexp.bench.synthetic import clustered_vectors
from negexp.bench.timing import NEGEXP, PhaseResult, Rival, in_turns, rivals
from negexp.index import NeighbourIndex
from negexp.index.backends.exact import ExactIndex
from negexp.sampling import Negatives

Found = tuple[NDArray[np.float64], NDArray[np.int64]]

FAISS = "faiss IndexFlatL2"
BACKEND_DIMS, BACKEND_ROWS = (2, 8, 32, 128, 384), (250, 1000, 4000)
LARGE_DIM, LARGE_K = 128, 10


def compare_mining(setting: Setting, peak: dict[str, float]) -> PhaseResult:
    """Search the three nearest points and the three nearest counters of every training point, in real embeddings."""
    train, embeddings = setting.corpus["train"], setting.training_embeddings
    tables = [embeddings.retrieval("candidate", texts) for texts in (train.point, train.counter)]
    queries = tables[0]

    def search(backend: str) -> list[Found]:
        return [index_of(setting, table, backend).search(queries, 3) for table in tables]

    def search_original() -> list[Found]:
        return [BallTree(table, leaf_size=2).query(queries, k=3) for table in tables]

    original, config = "BallTree as in the original", setting.config
    balltree = f"negexp, index=balltree (leaf_size {config.index.leaf_size})"
    contenders: dict[str, Any] = {
        NEGEXP: lambda: search("exact"),
        balltree: lambda: search("balltree"),
        original: search_original,
    }
    remarks = []
    try:
        flat = [faiss_flat(table, queries, 3, setting.runtime.threads) for table in tables]
        contenders[FAISS] = lambda: [search_flat() for search_flat in flat]
    except ImportError:
        remarks.append(f"faiss-cpu {NOT_INSTALLED}")
    seconds, results = in_turns(contenders, config.repeats, "mine", config.progress)
    same = all((a[1] == b[1]).all() for a, b in zip(results[NEGEXP], results[balltree], strict=True))
    near = all(np.allclose(a[0], b[0], atol=1e-6) for a, b in zip(results[NEGEXP], results[original], strict=True))
    points, counters = (len(np.unique(texts)) for texts in (train.point, train.counter))
    n, dim = queries.shape
    flops = 2.0 * points * (points + counters) * dim
    return PhaseResult(
        "mine",
        f"n = {n} points and as many counters, {points} and {counters} of them distinct, d = {dim}, k = 3",
        f"{NEGEXP}, index=exact",
        seconds[NEGEXP],
        rivals(seconds, {original: 100.0}),
        *_floor(index_of(setting, queries, "exact"), flops, peak),
        [f"exact and balltree return the same rows: {same}", f"distances equal the original tree's: {near}"],
        remarks,
    )


def compare_large_search(setting: Setting, peak: dict[str, float]) -> PhaseResult:
    """Search the ten nearest of each synthetic vector. The vectors form clusters, as the arguments of a debate do."""
    config = setting.config
    vectors = clustered_vectors(config.search_rows, LARGE_DIM, config.seed)

    def search() -> Found:
        return index_of(setting, vectors, "exact").search(vectors, LARGE_K)

    contenders: dict[str, Any] = {NEGEXP: search}
    checks, remarks = [], []
    try:
        contenders[FAISS] = faiss_flat(vectors, vectors, LARGE_K, setting.runtime.threads)
    except ImportError:
        remarks.append(f"faiss-cpu {NOT_INSTALLED}")
    seconds, results = in_turns(contenders, config.repeats, "mine, large", config.progress)
    if FAISS in results:
        equal = np.mean(np.sort(results[FAISS][1], axis=1) == np.sort(results[NEGEXP][1], axis=1))
        checks.append(f"{equal:.5%} of the rows are the same as faiss's (faiss computes distances in float32)")
    for name, use in measure_all(contenders, "mine, large: memory", config.progress).items():
        if use.peak_bytes is not None:  # measured after the rounds: the set-up of a first call is not counted
            remarks.append(f"{name}: adds {use.peak_bytes / vectors.nbytes:.2f} times the memory of the vectors")
    flops = 2.0 * len(vectors) ** 2 * LARGE_DIM
    return PhaseResult(
        "mine, large",
        f"n = {len(vectors)} synthetic vectors in clusters, d = {LARGE_DIM}, k = {LARGE_K}",
        f"{NEGEXP}, index=exact",
        seconds[NEGEXP],
        rivals(seconds, {FAISS: 1.0}),
        *_floor(index_of(setting, vectors, "exact"), flops, peak),
        checks,
        remarks,
    )


def _floor(index: NeighbourIndex, flops: float, peak: dict[str, float]) -> tuple[float, str]:
    """Return the seconds of an exact index's products at the peak rate of its precision, and an explanation."""
    assert isinstance(index, ExactIndex)
    precision = str(index.precisions[0].vectors.dtype).removeprefix("torch.")
    rate = peak[f"{precision}_flops"]
    return flops / rate, f"{flops / 1e9:.1f} GFLOP of products at {rate / 1e9:.0f} GFLOP/s in {precision}"


def compare_backends(setting: Setting, peak: dict[str, float]) -> PhaseResult:
    """Compare the seconds of the two backends by size and dimension. `index=balltree` stays the default."""
    remarks, taken = [], {}
    for dim in BACKEND_DIMS:
        ratios = []
        for rows in BACKEND_ROWS:
            taken = _backends_in_turns(setting, clustered_vectors(rows, dim, setting.config.seed))
            ratios.append(median(taken["balltree"]) / median(taken["exact"]))
        listed = ", ".join(f"{ratio:.2g} at n = {rows}" for rows, ratio in zip(BACKEND_ROWS, ratios, strict=True))
        remarks.append(f"with d = {dim}, the seconds of balltree divided by those of exact are {listed}")
    return PhaseResult(
        "mine, backends",
        f"n = {BACKEND_ROWS[-1]} synthetic vectors, d = {BACKEND_DIMS[-1]}, k = 3",
        f"{NEGEXP}, index=exact",
        taken["exact"],
        [Rival("negexp, index=balltree", taken["balltree"])],
        remarks=remarks,
    )


def _backends_in_turns(setting: Setting, vectors: NDArray[np.float32]) -> dict[str, list[float]]:
    def search(backend: str) -> Found:
        return index_of(setting, vectors, backend).search(vectors, 3)

    contenders = {"exact": lambda: search("exact"), "balltree": lambda: search("balltree")}
    rows, dim = vectors.shape
    return in_turns(contenders, setting.config.repeats, f"n = {rows}, d = {dim}", setting.config.progress).seconds


def compare_hard_negatives(setting: Setting, peak: dict[str, float]) -> PhaseResult:
    """Mine three negatives per pair with cached embeddings, beside sentence-transformers."""
    pairs, embeddings = setting.train_pairs(setting.config.mine_pairs), setting.training_embeddings
    texts, name = setting.corpus.texts, "sentence-transformers mine_hard_negatives, embeddings cached"
    sampler = sampler_options(setting, "hard", num_negatives=3, candidates="counters")

    def mine() -> Negatives:
        tables = {"counter": embeddings.retrieval("candidate", pairs.counter)}
        return sample_negatives(setting, sampler, pairs, embeddings.retrieval("query", pairs.point), tables)

    contenders: dict[str, Any] = {NEGEXP: mine}
    remarks = []
    with ExitStack() as stack:
        try:
            model = stack.enter_context(sentence_transformer(setting))
            cache = stack.enter_context(tempfile.TemporaryDirectory(prefix="negexp-bench-"))
            contenders[name] = mine_with_sentence_transformers(
                model, [texts[t] for t in pairs.point], [texts[t] for t in pairs.counter], 3, cache
            )
        except ImportError:
            remarks.append(f"sentence-transformers with datasets {NOT_INSTALLED}")
        seconds = in_turns(contenders, setting.config.repeats, "mine from texts", setting.config.progress).seconds
    return PhaseResult(
        "mine from texts",
        f"{len(pairs)} pairs, 3 negatives each, from the counters",
        f"{NEGEXP}, index={setting.config.index.name}",
        seconds[NEGEXP],
        rivals(seconds, {}),
        remarks=remarks,
    )
