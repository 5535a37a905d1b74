"""The second stage: the nearest candidates of a query, ordered by the re-ranker's score and the retrieval score."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from negexp.corpus.arguments import Ints
from negexp.evaluation.golds import dcg, discount, gains, lower_golds

if TYPE_CHECKING:
    from negexp.evaluation.block import RankedCell

# Takes texts as rows of `Corpus.texts`: (queries,), (queries, k) -> log-odds (queries, k). A higher score is better.
Classifier = Callable[[Ints, Ints], NDArray[np.float64]]

# Log-odds that differ by less than this, relative to their size, are equal: two texts with one embedding may get
# log-odds that differ by rounding, depending on their position in a product. Equal ones count against the gold.
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


class Ranked(NamedTuple):
    """The best gold's rank, the first text and nDCG@10 of some queries (queries,)."""

    rank: Ints
    first: Ints
    ndcg: NDArray[np.float64]


class Shortlist(NamedTuple):
    """The nearest candidates of some queries, best first, with the scores of both stages.

    rank (queries,): the best gold's rank in the first stage, and ndcg: its nDCG@10. text (queries, k): texts of the
    candidates. is_gold (queries, k): whether each is a gold or a copy of one. retrieval, classifier (queries, k):
    scores, -inf for no candidate. All copies of a gold have the best copy's scores, lowered by the tie widths. So in
    any combination, a candidate whose two scores equal the gold's stands above the gold. gain (queries, k): see
    `GoldRanks`, 0 for all but the first copy of a gold. beyond (queries,): what golds outside the list add to nDCG@10.
    """

    rank: Ints
    text: Ints
    is_gold: NDArray[np.bool_]
    retrieval: NDArray[np.float64]
    classifier: NDArray[np.float64]
    gain: NDArray[np.float64]
    beyond: NDArray[np.float64]
    ndcg: NDArray[np.float64]

    @classmethod
    def of(cls, cell: RankedCell, text: Ints, classifier: NDArray[np.float64]) -> Shortlist:
        """Return the nearest candidates of a task, with their texts and the re-ranker's scores (queries, k)."""
        golds, (retrieval, _, slot) = cell.golds, cell.nearest
        classifier = lower_golds(np.where(np.isfinite(retrieval), classifier, -np.inf), slot, CLASSIFIER_TIE)
        earlier = np.zeros(slot.shape, dtype=np.bool_)
        several = np.flatnonzero((slot >= 0).sum(axis=1) > 1)
        earlier[several] = np.tril(slot[several, :, None] == slot[several, None, :], -1).any(axis=2)
        gain = np.where((slot >= 0) & ~earlier, np.take_along_axis(gains(cell.grade), np.maximum(slot, 0), axis=1), 0.0)
        listed = (golds.slot[:, :, None] == slot[:, None, :]).any(axis=2)
        beyond = dcg(np.where(listed, 0.0, golds.gain), golds.rank)
        return cls(golds.best, text, slot >= 0, retrieval, classifier, gain, beyond, golds.ndcg())

    def reranked(self, combination: Combination) -> Ranked:
        """Return the order of each query by combined scores; a gold outside the list keeps its rank.

        The first text is never a gold where another candidate's score is at least the best gold's.
        """
        if not combination.decides:
            return Ranked(self.rank, self.text[:, 0], self.ndcg)
        scores = combination(self.classifier, self.retrieval)
        gold_score = np.max(scores, axis=1, where=self.is_gold, initial=-np.inf, keepdims=True)
        above = (scores > -np.inf) & ~self.is_gold & (scores >= gold_score)
        first = np.where(self.is_gold & above.any(axis=1, keepdims=True), -np.inf, scores).argmax(axis=1)
        rank = np.where(self.is_gold.any(axis=1), 1 + above.sum(axis=1), self.rank)
        return Ranked(rank, np.take_along_axis(self.text, first[:, None], axis=1)[:, 0], self._ndcg(scores))

    def _ndcg(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return nDCG@10 (queries,) of the lists ordered by scores (queries, k)."""
        order, ordered = np.lexsort((self.is_gold, -scores), axis=1), np.take_along_axis
        gain, is_gold = ordered(self.gain, order, axis=1), ordered(self.is_gold, order, axis=1)
        listed = ordered(scores, order, axis=1) > -np.inf
        place = np.cumsum(listed & (~is_gold | (gain > 0)), axis=1)  # copies of a gold have none
        ndcg: NDArray[np.float64] = (gain * discount(np.maximum(place, 1))).sum(axis=1) + self.beyond
        return ndcg


def classify_nearest(
    classify: Classifier, query: Ints, texts: list[Ints], there: list[NDArray[np.bool_]]
) -> list[NDArray[np.float64]]:
    """Return the re-ranker's scores of several lists (queries, k) of texts, each pair of texts scored once.

    Where `there` is False (queries, k), a place of a list is empty and its score has no meaning.
    """
    text, known = np.concatenate(texts, axis=1), np.concatenate(there, axis=1)
    some = np.take_along_axis(text, known.argmax(axis=1)[:, None], axis=1)
    text = np.where(known, text, some)
    order = np.argsort(text, axis=1, kind="stable")
    ordered = np.take_along_axis(text, order, axis=1)
    place = np.cumsum(np.diff(ordered, axis=1, prepend=ordered[:, :1]) != 0, axis=1)
    distinct = np.repeat(some, 1 + int(place.max(initial=0)), axis=1)
    np.put_along_axis(distinct, place, ordered, axis=1)
    scores = np.empty(text.shape)
    np.put_along_axis(scores, order, np.take_along_axis(classify(query, distinct), place, axis=1), axis=1)
    return np.split(scores, np.cumsum([part.shape[1] for part in texts])[:-1], axis=1)
