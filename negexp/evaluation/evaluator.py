"""Evaluate a model's embeddings on a split: scorer and classifier for the ranking, and the table of ranks."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from negexp.config import EvaluationConfig
from negexp.corpus.arguments import Ints, Split
from negexp.corpus.groups import dependent_groups
from negexp.corpus.overlap import first_of_pair, seen_in_training
from negexp.embedding import Embeddings
from negexp.evaluation.ranking import Classifier, Scorer, rank_queries, squared_distance_scorer
from negexp.model import BiEncoder
from negexp.model.losses import COUNTER, NO_COUNTER
from negexp.randomness import generator

RANK_COLUMNS = ["query", "protocol", "stage", "task", "rank", "candidates", "first", "group", "seen_in_training"]


def evaluate_split(
    model: BiEncoder,
    embeddings: Embeddings,
    split: Split,
    train: Split,
    config: EvaluationConfig,
    queries: Ints | None = None,
    progress: str = "never",
) -> pd.DataFrame:
    """Return the rank of every query (or of the given rows) in all tasks, protocols and stages that can be had.

    `train` holds the training pairs used: it decides `seen_in_training`. Queries of one `group` share a debate or a
    text, see `dependent_groups`. See `rank_queries` for the other columns.
    """
    score, classify = scorer_and_classifier(model, embeddings, split, config.block_bytes)
    ranks = rank_queries(split, score, classify, config.rerank_k, config.block_bytes, queries, progress)
    ranks["group"] = dependent_groups(split)[ranks["row"].to_numpy()]
    ranks["seen_in_training"] = seen_in_training(split, train)[ranks["row"].to_numpy()]
    return ranks[RANK_COLUMNS]


def scorer_and_classifier(
    model: BiEncoder, embeddings: Embeddings, split: Split, block_bytes: int
) -> tuple[Scorer, Classifier | None]:
    """Return what the texts of a split are ranked by; without a pair classifier there is no second stage."""
    texts = split.texts()
    place = np.full(len(embeddings.row), -1, dtype=np.int64)
    place[texts] = np.arange(len(texts))
    score = squared_distance_scorer(
        embeddings.retrieval("query", texts), embeddings.retrieval("candidate", texts), place
    )
    return score, None if model.classifier is None else _classifier(model, embeddings, block_bytes)


def sample_queries(split: Split, size: int, seed: int) -> Ints:
    """Return a fixed sample of distinct pairs, as rows: the same for every epoch and strategy of a seed."""
    rows = np.flatnonzero(first_of_pair(split))
    if len(rows) <= size:
        return rows
    return np.sort(generator(seed, 0, "train queries").choice(rows, size, replace=False))


def _classifier(model: BiEncoder, embeddings: Embeddings, block_bytes: int) -> Classifier:
    """Return the pair classifier over texts, as the difference of its two logits.

    The difference orders pairs as P(counter | point, candidate) does, but does not round to equal ones near 1.
    """
    assert model.classifier is not None
    classifier, query, candidate = model.classifier, embeddings.query, embeddings.candidate
    row = torch.from_numpy(embeddings.row).to(query.retrieval.device)
    pair_bytes = 4 * 3 * (query.retrieval.shape[1] + query.pooled.shape[1])

    @torch.inference_mode()
    def classify(points: Ints, candidates: Ints) -> NDArray[np.float64]:
        classifier.eval()
        k = candidates.shape[1]
        block = max(1, block_bytes // (pair_bytes * k))
        opinions = []
        for start in range(0, len(points), block):
            p = row[torch.from_numpy(points[start : start + block]).to(row.device)][:, None].expand(-1, k)
            c = row[torch.from_numpy(candidates[start : start + block]).to(row.device)]
            logits = classifier(query.retrieval[p], query.pooled[p], candidate.retrieval[c], candidate.pooled[c])
            opinions.append((logits[..., COUNTER] - logits[..., NO_COUNTER]).cpu())
        result: NDArray[np.float64] = torch.cat(opinions).numpy().astype(np.float64)
        return result

    return classify
