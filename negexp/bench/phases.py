"""The phases of an epoch beside their rivals."""

from __future__ import annotations

import copy
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.neighbors import BallTree

from negexp.bench.machine import peak_memory
from negexp.bench.peers import MISSING, faiss_flat, mine_with_sentence_transformers, sentence_transformer
from negexp.bench.plain import PlainEpoch, rerank_pair_by_pair
from negexp.bench.setting import Setting
from negexp.bench.timing import Comparison, Rival, in_turns
from negexp.config import IndexConfig
from negexp.corpus import Split
from negexp.embedding import embed
from negexp.index import build_index
from negexp.model import BiEncoder, PairScores, TripletCrossEntropy
from negexp.model.bi_encoder import PairClassifier
from negexp.randomness import generator
from negexp.runtime import Runtime
from negexp.sampling import Forbidden, Negatives, SamplingRound, build_sampler
from negexp.tokens import tokenize
from negexp.training.steps import build_trainee, train_epoch

OURS = "negexp"


def compare_embedding(setting: Setting, peak: dict[str, float]) -> Comparison:
    """Embed training arguments, tokenising included; a sample of `texts` of them, copies as they come."""
    train, config = setting.corpus["train"], setting.config
    arguments = np.concatenate([train.point, train.counter])
    if config.texts is not None and config.texts < len(arguments):
        arguments = generator(config.seed, 0, "bench texts").choice(arguments, config.texts, replace=False)
    texts = [setting.corpus.texts[text] for text in arguments]

    def ours() -> NDArray[np.float32]:
        tokens = tokenize(texts, setting.built.tokenizer, config.model.max_length)
        embeddings = embed(setting.built.model, tokens, np.arange(len(texts)), setting.runtime, "texts", "never")
        pooled: NDArray[np.float32] = embeddings.query.pooled.cpu().numpy()[embeddings.row]
        return pooled

    contenders: dict[str, Any] = {OURS: ours}
    checks, remarks, targets = [], [], {}
    with ExitStack() as stack:
        try:
            model = stack.enter_context(sentence_transformer(setting))
        except ImportError:
            remarks.append(f"sentence-transformers {MISSING}")
        else:
            default, same = "sentence-transformers, its defaults (float32)", "sentence-transformers, same precision"
            contenders[default] = lambda: model.encode(texts, show_progress_bar=False)
            contenders[same] = lambda: _with_autocast(setting.runtime, lambda: encode(model, texts))
            targets = {default: 4.0, same: 1.2}
            cosine = _cosines(ours(), encode(model, texts))
            checks.append(
                f"cosine of negexp's vectors to sentence-transformers' float32 ones: {cosine.min():.6f} or more"
            )
        seconds = in_turns(contenders, config.repeats)
    tokens = setting.tokens_of(arguments)
    flops = setting.forward_flops(tokens)
    return Comparison(
        "embed",
        f"{len(texts)} training arguments, {len(set(texts))} distinct, {tokens} tokens of at most {config.model.max_length}",
        f"{OURS}, {setting.runtime.describe()}",
        seconds[OURS],
        _rivals(seconds, targets),
        flops / peak[setting.rate],
        f"{flops / 1e9:.0f} GFLOP in the layers' products at {peak[setting.rate] / 1e9:.0f} GFLOP/s, attention left out",
        checks,
        remarks,
    )


def encode(model: Any, texts: list[str]) -> NDArray[np.float32]:
    """Return sentence-transformers' embeddings."""
    vectors: NDArray[np.float32] = model.encode(texts, show_progress_bar=False)
    return vectors


def _with_autocast(runtime: Runtime, work: Any) -> Any:
    with runtime.autocast():
        return work()


def _cosines(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> NDArray[np.float64]:
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    cosines: NDArray[np.float64] = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return cosines


def compare_mining(setting: Setting, peak: dict[str, float]) -> Comparison:
    """Search the three nearest of every training point, in both tables, in real embeddings."""
    train = setting.corpus["train"]
    embeddings = setting.training_embeddings
    point, counter = (embeddings.retrieval("candidate", texts) for texts in (train.point, train.counter))
    n, dim = point.shape

    def ours(name: str) -> Any:
        config = IndexConfig(name, setting.config.index.leaf_size, setting.config.index.block_bytes)
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
        f"n = {n} points and counters each, {len(np.unique(train.point))} distinct points, d = {dim}, k = 3, two tables",
        f"{OURS}, index=exact",
        seconds[OURS],
        _rivals(seconds, {theirs: 100.0}),
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
    grown = {OURS: peak_memory(ours)}
    flat, checks, remarks = "faiss IndexFlatL2", [], []
    try:
        contenders[flat] = faiss_flat(vectors, 10, setting.runtime.threads)
        grown[flat] = peak_memory(contenders[flat])
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
        _rivals(seconds, {flat: 1.0}),
        flops / peak["bfloat16_flops"],
        f"{flops / 1e12:.2f} TFLOP of products at {peak['bfloat16_flops'] / 1e9:.0f} GFLOP/s in bfloat16",
        checks,
        remarks,
    )


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
        _rivals(seconds, {}),
        remarks=remarks,
    )


def compare_reranking(setting: Setting, peak: dict[str, float]) -> Comparison:
    """Ask the pair classifier about ten candidates of every query."""
    queries, k, hidden, retrieval = setting.config.rerank_queries, 10, 768, 128
    torch.manual_seed(setting.config.seed)
    classifier = PairClassifier(retrieval, hidden, setting.config.model).eval()
    tables = [(torch.randn(2 * queries, retrieval), torch.randn(2 * queries, hidden)) for _ in range(2)]
    candidates = torch.randint(0, 2 * queries, (queries, k))

    @torch.inference_mode()
    def ours() -> torch.Tensor:
        return PairScores(classifier, *tables)(torch.arange(queries), candidates)

    loop = "a call of the classifier for each pair"
    contenders = {OURS: ours, loop: lambda: rerank_pair_by_pair(classifier, *tables, candidates)}
    worst = float((ours() - contenders[loop]()).abs().max())
    seconds = in_turns(contenders, setting.config.repeats)
    bytes_read = 4.0 * (hidden + retrieval) * (queries * k + 2 * 2 * queries)
    return Comparison(
        "re-rank",
        f"{queries} queries x {k}, hidden {hidden}, retrieval {retrieval}, made-up embeddings",
        OURS,
        seconds[OURS],
        _rivals(seconds, {loop: 50.0}),
        bytes_read / peak["copy_bytes"],
        f"{bytes_read / 1e6:.0f} MB of embeddings read at {peak['copy_bytes'] / 1e9:.0f} GB/s",
        [f"largest difference of an opinion: {worst:.1e}"],
    )


def compare_epoch(setting: Setting, peak: dict[str, float]) -> Comparison:
    """Embed, index, sample and train on some pairs, with the decaying sampler's first rate."""
    config = setting.config
    pairs = setting.train_pairs(config.pairs)
    sampler = replace(config.sampler, name="decay", start_rate=0.8, step=0.02, end_rate=0.0)
    state = copy.deepcopy(setting.built.model.state_dict())
    model = setting.built.model

    def ours(runtime: Runtime) -> None:
        model.load_state_dict(state)
        our_epoch(setting, model, pairs, sampler, runtime)

    def plain() -> None:
        model.load_state_dict(state)
        PlainEpoch(setting, model, pairs, random_rate=0.8).run()

    float32, theirs = "negexp in float32", "plain epoch: three passes, padded as it comes, float32"
    contenders: dict[str, Any] = {OURS: lambda: ours(setting.runtime)}
    if setting.runtime.bfloat16:
        contenders[float32] = lambda: ours(replace(setting.runtime, bfloat16=False))
    if setting.runtime.device.type == "cpu":
        contenders[theirs] = plain
    seconds = in_turns(contenders, config.repeats)
    model.load_state_dict(state)
    arguments = np.concatenate([pairs.point, pairs.counter])
    # a pass to embed, and three times a forward pass to train on points, counters and about as many negatives
    flops = setting.forward_flops(setting.tokens_of(arguments)) * (1 + 3 * 1.5)
    return Comparison(
        "epoch",
        f"{len(pairs)} pairs in batches of {config.trainer.batch_size}, decay at rate 0.8, one negative each; "
        "embed, index, sample, train",
        f"{OURS}, {setting.runtime.describe()}",
        seconds[OURS],
        _rivals(seconds, {theirs: 4.0}),
        flops / peak[setting.rate],
        f"{flops / 1e9:.0f} GFLOP in the layers' products at {peak[setting.rate] / 1e9:.0f} GFLOP/s, attention left out",
    )


def our_epoch(setting: Setting, model: BiEncoder, pairs: Split, sampler: Any, runtime: Runtime) -> None:
    """Run negexp's own phases over some pairs."""
    config = setting.config
    embeddings = embed(model, setting.tokens, pairs.texts(), runtime, "train", "never")
    query = embeddings.retrieval("query", pairs.point)
    tables = {"point": pairs.point, "counter": pairs.counter}
    indexes = {
        name: build_index(embeddings.retrieval("candidate", texts), config.index, runtime.device, runtime.threads)
        for name, texts in tables.items()
    }
    forbidden = Forbidden(pairs.point, pairs.counter, sampler.exclude)
    rng = generator(config.seed, 0, "negatives")
    round_ = SamplingRound(0, sampler.num_negatives, sampler.candidates, forbidden, rng, indexes, query)
    negatives = build_sampler(sampler).sample(round_)
    trainee, criterion = build_trainee(model, config.trainer, runtime), TripletCrossEntropy(config.loss)
    seed = config.seed
    train_epoch(trainee, criterion, setting.tokens, pairs, negatives, config.trainer, runtime, seed, 0, "never")


def _rivals(seconds: dict[str, list[float]], targets: dict[str, float]) -> list[Rival]:
    return [Rival(name, taken, targets.get(name)) for name, taken in seconds.items() if name != OURS]
