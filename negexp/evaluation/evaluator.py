"""Evaluate a model's embeddings on a split: scorers for the ranking, and the table of ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from negexp.config import EvaluationConfig
from negexp.corpus.arguments import Ints, Split
from negexp.corpus.groups import dependent_groups
from negexp.corpus.overlap import first_of_pair, seen_in
from negexp.embedding import Embeddings
from negexp.evaluation.metrics import NDCG, RANK_COLUMNS
from negexp.evaluation.ranking import StageScorers, rank_queries
from negexp.evaluation.scores import DistanceScorer
from negexp.evaluation.second_stage import Classifier
from negexp.model import BiEncoder, PairClassifier, PairScores
from negexp.pair_tokens import PairCache, PairReader
from negexp.randomness import generator

if TYPE_CHECKING:
    import pandas as pd


def evaluate_split(
    scorers: StageScorers,
    split: Split,
    train: Split,
    config: EvaluationConfig,
    queries: Ints | None = None,
    progress: str = "never",
) -> pd.DataFrame:
    """Return the rank of every query (or of the given rows) in all possible tasks, protocols and stages.

    `train` holds the training pairs, which decide `seen_in_training`. Queries of one `group` share a debate or a text,
    see `dependent_groups`. `rank_queries` describes the other columns.
    """
    ranks = rank_queries(split, scorers, config.rerank_k, config.block_bytes, queries, progress)
    ranks["group"] = dependent_groups(split)[ranks["row"].to_numpy()]
    ranks["seen_in_training"] = seen_in(train, split)[ranks["row"].to_numpy()]
    return ranks[[*RANK_COLUMNS, *(column for column in ranks if column == NDCG)]]


def split_scorers(model: BiEncoder, embeddings: Embeddings, second_stage: bool = True) -> StageScorers:
    """Return the scorers of the embedded texts. Without `second_stage`, the pair classifier does not re-rank."""
    query, candidate = (_with_float64(side.retrieval) for side in (embeddings.query, embeddings.candidate))
    score = DistanceScorer(query, candidate, embeddings.row, embeddings.rows("query"))
    classifier = model.classifier if second_stage else None
    return StageScorers(score, None if classifier is None else pair_classifier(classifier, embeddings))


def _with_float64(vectors: Tensor) -> Tensor:
    """Return vectors on a device that has float64: Apple's has not."""
    return vectors.cpu() if vectors.device.type == "mps" else vectors


def cross_scorers(scorers: StageScorers, reader: PairReader, split: Split, config: EvaluationConfig) -> StageScorers:
    """Return scorers whose second stage is a cross-encoder.

    The nearest candidates of all tasks and protocols are scored now, each pair of texts once, so that batches have
    inputs of similar length.
    """
    cache = PairCache(reader)
    cache.prepare(lambda ask: rank_queries(split, scorers._replace(classify=ask), config.rerank_k, config.block_bytes))
    return scorers._replace(classify=cache)


def sample_queries(split: Split, size: int, seed: int) -> Ints:
    """Return a sample of distinct pairs, as rows. It depends on the seed only, not on the epoch or the strategy."""
    rows = np.flatnonzero(first_of_pair(split) if split.collection is None else split.collection.first_of_query())
    if len(rows) <= size:
        return rows
    return np.sort(generator(seed, 0, "train queries").choice(rows, size, replace=False))


def pair_classifier(classifier: PairClassifier, embeddings: Embeddings) -> Classifier:
    """Return a function from texts to the difference of the pair classifier's two logits.

    The difference orders pairs as P(counter | point, candidate) does, but probabilities near 1 would round to ties.
    """
    query, candidate = embeddings.query, embeddings.candidate
    device = query.retrieval.device
    with torch.inference_mode():
        classifier.eval()
        scores = PairScores(classifier, (query.retrieval, query.pooled), (candidate.retrieval, candidate.pooled))

    @torch.inference_mode()
    def classify(points: Ints, candidates: Ints) -> NDArray[np.float64]:
        own, other = embeddings.rows("query")[points], embeddings.row[candidates]
        rows = (torch.from_numpy(part).to(device) for part in (own, other))
        result: NDArray[np.float64] = scores(*rows).cpu().numpy().astype(np.float64)
        return result

    return classify
