"""Re-ranking beside a call of the classifier for each pair."""

from __future__ import annotations

from typing import Any

import torch

from negexp.bench.plain import rerank_pair_by_pair
from negexp.bench.setting import Setting
from negexp.bench.timing import NEGEXP, PhaseResult, in_turns, rivals
from negexp.model import PairClassifier, PairScores


def compare_reranking(setting: Setting, peak: dict[str, float]) -> PhaseResult:
    """Ask the pair classifier about ten candidates of every query."""
    queries, k, hidden, retrieval = setting.config.rerank_queries, 10, 768, 128
    torch.manual_seed(setting.config.seed)
    classifier = PairClassifier(retrieval, hidden, setting.config.model).eval()
    table = torch.randn(2 * queries, retrieval), torch.randn(2 * queries, hidden)  # one for both roles: shared encoder
    candidates = torch.randint(0, 2 * queries, (queries, k))

    @torch.inference_mode()
    def ours() -> torch.Tensor:
        return PairScores(classifier, table, table)(torch.arange(queries), candidates)

    loop = "a call of the classifier for each pair"
    contenders: dict[str, Any] = {
        NEGEXP: ours,
        loop: lambda: rerank_pair_by_pair(classifier, table, table, candidates),
    }
    seconds, first = in_turns(contenders, setting.config.repeats, "re-rank", setting.config.progress)
    worst = float((first[NEGEXP] - first[loop]).abs().max())
    bytes_read = 4.0 * (hidden + retrieval) * (queries * k + 2 * queries)
    return PhaseResult(
        "re-rank",
        f"{queries} queries x {k}, hidden {hidden}, retrieval {retrieval}, made-up embeddings",
        NEGEXP,
        seconds[NEGEXP],
        rivals(seconds, {loop: 50.0}),
        bytes_read / peak["copy_bytes"],
        f"{bytes_read / 1e6:.0f} MB of embeddings read at {peak['copy_bytes'] / 1e9:.0f} GB/s",
        [f"largest difference of an opinion: {worst:.1e}"],
    )
