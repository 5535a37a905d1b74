"""Mining beside the original's ball trees, faiss and sentence-transformers."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import BallTree

from negexp.bench.machine import peak_memory
from negexp.bench.peers import MISSING, faiss_flat, mine_with_sentence_transformers, sentence_transformer
from negexp.bench.setting import Setting
from negexp.bench.timing import OURS, Comparison, Rival, in_turns, rivals
from negexp.config import IndexConfig
from negexp.index import build_index
from negexp.randomness import generator
from negexp.runtime import Runtime
from negexp.sampling import Forbidden, Negatives, SamplingRound, build_sampler


def _smaller(first: int | None, second: int | None) -> int | None:
    """Return the less of what two calls grew by: the first one also sets up what later ones find."""
    return None if first is None or second is None else min(first, second)


BACKEND_DIMS, BACKEND_ROWS = (2, 8, 32, 128, 384), (250, 1000, 4000)


def compare_mining(setting: Setting, peak: dict[str, float]) -> Comparison:
    """Search the three nearest of every training point, in both tables, in real embeddings."""
    train = setting.corpus["train"]
    embeddings = setting.training_embeddings
    point, counter = (embeddings.retrieval("candidate", texts) for texts in (train.point, train.counter))
    n, dim = point.shape

    def ours(name: str) -> Any:
        config = replace(setting.config.index, name=name)
        tables = (build_index(t, config, setting.runtime.device, setting.runtime.threads) for t in (point, counter))
        return [index.search(point, 3) for index in tables]

    def original() -> Any:
        return [BallTree(table, leaf_size=2).query(point, k=3) for table in (point, counter)]

    balltree, theirs = (
        f"negexp, index=balltree (leaf_size {setting.config.index.leaf_size})",
        "BallTree as the original",
    )
    contenders: dict[str, Any] = {OURS: lambda: ours("exact"), balltree: lambda: ours("balltree"), theirs: original}
    remarks = []
    try:
        flat = [faiss_flat(table, 3, setting.runtime.threads) for table in (point, counter)]
        contenders["faiss IndexFlatL2 (points among themselves, counters among themselves)"] = lambda: [
            f() for f in flat
        ]
    except ImportError:
        remarks.append(f"faiss-cpu {MISSING}")
    same = all((a[1] == b[1]).all() for a, b in zip(ours("exact"), ours("balltree"), strict=True))
    near = all(np.allclose(a[0], b[0], atol=1e-6) for a, b in zip(ours("exact"), original(), strict=True))
    seconds = in_turns(contenders, setting.config.repeats)
    flops = 2.0 * 2 * len(np.unique(train.point)) * n * dim
    return Comparison(
        "mine",
        f"n = {n} points and as many counters, {len(np.unique(train.point))} distinct points, d = {dim}, k = 3",
        f"{OURS}, index=exact",
        seconds[OURS],
        rivals(seconds, {theirs: 100.0}),
        flops / peak["float32_flops"],
        f"{flops / 1e9:.1f} GFLOP of products at {peak['float32_flops'] / 1e9:.0f} GFLOP/s in float32",
        [f"exact and balltree return the same rows: {same}", f"distances equal the original tree's: {near}"],
        remarks,
    )


def compare_large_search(setting: Setting, peak: dict[str, float]) -> Comparison:
    """Search the ten nearest of each of many made-up vectors that lie in clusters, as arguments in debates do."""
    config = setting.config
    vectors = clustered_vectors(config.search_rows, 128, config.seed)
    index = replace(config.index, name="exact")

    def ours() -> Any:
        return build_index(vectors, index, setting.runtime.device, setting.runtime.threads).search(vectors, 10)

    contenders: dict[str, Any] = {OURS: ours}
    grown = {OURS: _smaller(peak_memory(ours), peak_memory(ours))}
    flat, checks, remarks = "faiss IndexFlatL2", [], []
    try:
        contenders[flat] = faiss_flat(vectors, 10, setting.runtime.threads)
        grown[flat] = _smaller(peak_memory(contenders[flat]), peak_memory(contenders[flat]))
        equal = np.mean(np.sort(contenders[flat]()[1], axis=1) == np.sort(ours()[1], axis=1))
        checks.append(f"faiss returns {equal:.5%} of the same rows (it computes distances in float32)")
    except ImportError:
        remarks.append(f"faiss-cpu {MISSING}")
    results = vectors.shape[0] * 10 * 16
    for name, size in grown.items():
        if size is not None:
            share = (size - results * (name == OURS)) / vectors.nbytes
            remarks.append(f"{name}: {share:.2f} times the vectors in memory beside them, results left out")
    seconds = in_turns(contenders, config.repeats)
    flops = 2.0 * len(vectors) ** 2 * 128
    return Comparison(
        "mine, large",
        f"n = {len(vectors)} made-up vectors in clusters, d = 128, k = 10",
        f"{OURS}, index=exact",
        seconds[OURS],
        rivals(seconds, {flat: 1.0}),
        flops / peak["bfloat16_flops"],
        f"{flops / 1e12:.2f} TFLOP of products at {peak['bfloat16_flops'] / 1e9:.0f} GFLOP/s in bfloat16",
        checks,
        remarks,
    )


def compare_backends(setting: Setting, peak: dict[str, float]) -> Comparison:
    """Say from which size on which backend is the faster, by dimension; `index=balltree` stays the default."""
    runtime, config = setting.runtime, setting.config
    remarks, taken = [], {}
    for dim in BACKEND_DIMS:
        ratios = []
        for rows in BACKEND_ROWS:
            vectors = clustered_vectors(rows, dim, config.seed)
            contenders: dict[str, Callable[[], object]] = {
                name: partial(_search_all, replace(config.index, name=name), vectors, runtime)
                for name in ("exact", "balltree")
            }
            taken = in_turns(contenders, config.repeats)
            ratios.append(median(taken["balltree"]) / median(taken["exact"]))
        told = ", ".join(f"{ratio:.2g} at n = {rows}" for rows, ratio in zip(BACKEND_ROWS, ratios, strict=True))
        remarks.append(f"d = {dim}: balltree takes this many times longer than exact: {told}")
    return Comparison(
        "mine, backends",
        f"n = {BACKEND_ROWS[-1]} made-up vectors, d = {BACKEND_DIMS[-1]}, k = 3",
        f"{OURS}, index=exact",
        taken["exact"],
        [Rival("negexp, index=balltree", taken["balltree"])],
        remarks=remarks,
    )


def _search_all(index: IndexConfig, vectors: NDArray[np.float32], runtime: Runtime) -> object:
    return build_index(vectors, index, runtime.device, runtime.threads).search(vectors, 3)


def clustered_vectors(rows: int, dim: int, seed: int) -> NDArray[np.float32]:
    """Return unit vectors (rows, dim) around centres, eight to a centre."""
    rng = generator(seed, 0, "bench vectors")
    centres = rng.standard_normal((rows // 8 + 1, dim), dtype=np.float32)
    vectors = centres[rng.integers(0, len(centres), rows)] + 0.9 * rng.standard_normal((rows, dim), dtype=np.float32)
    unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def compare_hard_negatives(setting: Setting, peak: dict[str, float]) -> Comparison:
    """Mine three negatives a pair from texts whose embeddings are there, as sentence-transformers does."""
    pairs = setting.train_pairs(setting.config.mine_pairs)
    texts, name = setting.corpus.texts, "sentence-transformers mine_hard_negatives, embeddings cached"
    embeddings = setting.training_embeddings
    config = replace(setting.config.sampler, name="hard", num_negatives=3, candidates="counters")

    def ours() -> Negatives:
        forbidden = Forbidden(pairs.point, pairs.counter, config.exclude)
        vectors = embeddings.retrieval("candidate", pairs.counter)
        index = build_index(vectors, setting.config.index, setting.runtime.device, setting.runtime.threads)
        query = embeddings.retrieval("query", pairs.point)
        rng = generator(setting.config.seed, 0, "negatives")
        round_ = SamplingRound(0, 3, "counters", forbidden, rng, {"counter": index}, query)
        return build_sampler(config).sample(round_)

    contenders: dict[str, Any] = {OURS: ours}
    remarks = []
    with ExitStack() as stack:
        try:
            model = stack.enter_context(sentence_transformer(setting))
            cache = stack.enter_context(tempfile.TemporaryDirectory(prefix="negexp-bench-"))
            contenders[name] = mine_with_sentence_transformers(
                setting, model, [texts[t] for t in pairs.point], [texts[t] for t in pairs.counter], 3, cache
            )
        except ImportError:
            remarks.append(f"sentence-transformers with datasets {MISSING}")
        seconds = in_turns(contenders, setting.config.repeats)
    return Comparison(
        "mine from texts",
        f"{len(pairs)} pairs, 3 negatives each among the counters",
        f"{OURS}, index={setting.config.index.name}",
        seconds[OURS],
        rivals(seconds, {}),
        remarks=remarks,
    )
