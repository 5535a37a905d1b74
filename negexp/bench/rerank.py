"""Compare re-ranking with one call of the classifier per pair."""

from __future__ import annotations

from typing import Any

import torch

from negexp.bench.plain import rerank_pair_by_pair
from negexp.bench.setting import Setting
from negexp.bench.timing import NEGEXP, PhaseResult, in_turns, rivals
from negexp.model import PairClassifier, PairScores


def compare_reranking(setting: Setting, peak: dict[str, float]) -> PhaseResult:
    """Score ten candidates of every query with the pair classifier."""
    queries, k, hidden, retrieval = setting.config.rerank_queries, 10, 768, 128
    torch.manual_seed(setting.config.seed)
    classifier = PairClassifier(retrieval, hidden, setting.config.model).eval()
    table = (
        torch.randn(2 * queries, retrieval),
        torch.randn(2 * queries, hidden),
    )  # a shared encoder: one table for both roles
    candidates = torch.randint(0, 2 * queries, (queries, k))

    @torch.inference_mode()
    def score_pairs() -> torch.Tensor:
        return PairScores(classifier, table, table)(torch.arange(queries), candidates)

    loop = "one call of the classifier per pair"
    contenders: dict[str, Any] = {
        NEGEXP: score_pairs,
        loop: lambda: rerank_pair_by_pair(classifier, table, table, candidates),
    }
    seconds, results = in_turns(contenders, setting.config.repeats, "re-rank", setting.config.progress)
    worst = float((results[NEGEXP] - results[loop]).abs().max())
    bytes_read = 4.0 * (hidden + retrieval) * (queries * k + 2 * queries)
    return PhaseResult(
        "re-rank",
        f"{queries} queries x {k}, hidden {hidden}, retrieval {retrieval}, random embeddings",
        NEGEXP,
        seconds[NEGEXP],
        rivals(seconds, {loop: 50.0}),
        bytes_read / peak["copy_bytes"],
        f"{bytes_read / 1e6:.0f} MB of embeddings read at {peak['copy_bytes'] / 1e9:.0f} GB/s",
        [f"largest difference between two scores of a pair: {worst:.1e}"],
    )
