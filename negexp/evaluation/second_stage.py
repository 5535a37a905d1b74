"""The second stage: the nearest candidates of a query, ordered by the re-ranker's score and the retrieval score."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from negexp.corpus.arguments import Ints
from negexp.evaluation.pools import Pool

# Takes texts as rows of `Corpus.texts`: (queries,), (queries, k) -> log-odds (queries, k). A higher score is better.
Classifier = Callable[[Ints, Ints], NDArray[np.float64]]

# Scores that differ by less than this, relative to their size, are equal. Two texts with one embedding may get scores
# that differ by rounding, depending on their position in a matrix product. An equal score counts against the gold.
SCORE_TIE = 1e-9  # float64 products
CLASSIFIER_TIE = 1e-6  # float32 products


class Combination(NamedTuple):
    """How both scores order the nearest candidates: (1 - weight) * log-odds + weight * scale * retrieval score.

    The retrieval score is minus the squared distance: for normalised embeddings, 2 * cosine - 2. `weight` is 0 for the
    re-ranker alone, and 1 for the retrieval order. `scale` gives the retrieval score the spread of the log-odds.
    """

    weight: float = 0.0
    scale: float = 1.0

    @property
    def decides(self) -> bool:
        """Return whether the re-ranker has a say; otherwise the retrieval order stays."""
        return self.weight < 1

    def __call__(self, classifier: NDArray[np.float64], retrieval: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the combined scores (queries, k), -inf where both scores are."""
        if self.weight == 0:
            return classifier
        finite = np.where(np.isfinite(classifier), retrieval, 0.0)  # a part with weight 0 would turn -inf into NaN
        return (1 - self.weight) * classifier + self.weight * self.scale * finite

    def columns(self) -> dict[str, float]:
        """Return the columns of metrics.csv and keys of result.json."""
        return {f"rerank_{name}": value for name, value in self._asdict().items()}

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> Combination | None:
        """Return the combination in a row of metrics.csv; None where it has none, as in runs of version 0.1."""
        if any(f"rerank_{name}" not in row for name in cls._fields):
            return None
        return cls(*(float(row[f"rerank_{name}"]) for name in cls._fields))


class Shortlist(NamedTuple):
    """The nearest candidates of some queries, best first, with the scores of both stages.

    rank (queries,): the gold's rank in the first stage. text (queries, k): texts of the candidates. is_gold (queries,
    k): whether each is the gold or a copy. retrieval, classifier (queries, k): scores, -inf for no candidate. All
    copies of the gold have the best copy's scores, lowered by the tie widths. So in any combination, a candidate whose
    two scores equal the gold's stands above the gold.
    """

    rank: Ints
    text: Ints
    is_gold: NDArray[np.bool_]
    retrieval: NDArray[np.float64]
    classifier: NDArray[np.float64]

    @classmethod
    def of(
        cls, pool: Pool, column: Ints, retrieval: NDArray[np.float64], rank: Ints, classify: Classifier
    ) -> Shortlist:
        """Score the nearest columns (queries, k) of a pool; their retrieval scores have the gold's lowered already."""
        allowed, text = column != pool.excluded[:, None], pool.text[column]
        is_gold = allowed & (pool.identity[column] == pool.gold_identity[:, None])
        classifier = np.where(allowed, classify(pool.query_text, text), -np.inf)
        return cls(rank, text, is_gold, retrieval, lower_gold(classifier, is_gold, CLASSIFIER_TIE))

    def padded(self, k: int) -> Shortlist:
        """Return lists of k candidates; those added are no candidates."""
        missing = ((0, 0), (0, k - self.text.shape[1]))
        fill = {"text": 0, "is_gold": False, "retrieval": -np.inf, "classifier": -np.inf}
        wider = {name: np.pad(getattr(self, name), missing, constant_values=value) for name, value in fill.items()}
        return self._replace(**wider)

    def reranked(self, combination: Combination) -> tuple[Ints, Ints]:
        """Return the gold's rank and the first text of each query (queries,); a gold outside the list keeps its rank.

        The first text is never the gold where another candidate's score is at least the gold's.
        """
        if not combination.decides:
            return self.rank, self.text[:, 0]
        scores = combination(self.classifier, self.retrieval)
        gold_score = np.max(scores, axis=1, where=self.is_gold, initial=-np.inf, keepdims=True)
        above = (scores > -np.inf) & ~self.is_gold & (scores >= gold_score)
        first = np.where(self.is_gold & above.any(axis=1, keepdims=True), -np.inf, scores).argmax(axis=1)
        rank = np.where(self.is_gold.any(axis=1), 1 + above.sum(axis=1), self.rank)
        return rank, np.take_along_axis(self.text, first[:, None], axis=1)[:, 0]


def lower_gold(values: NDArray[np.float64], gold: np.ndarray, tie: float) -> NDArray[np.float64]:
    """Give every copy of the gold the best copy's value, lowered by the tie width."""
    best = np.max(values, axis=1, where=gold, initial=-np.inf, keepdims=True)
    return np.where(gold, lowered(best, tie), values)


def lowered(best: NDArray[np.float64], tie: float) -> NDArray[np.float64]:
    """Return scores lowered by the tie width, relative to their size."""
    return best - tie * (1 + np.abs(best))
