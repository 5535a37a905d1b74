"""What a loss is, and what it sees of a batch."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

from negexp.config import LossConfig
from negexp.model.bi_encoder import PairClassifier


@dataclass(frozen=True)
class Embedded:
    """Embeddings of texts: retrieval (texts, r) and pooled (texts, h)."""

    retrieval: Tensor
    pooled: Tensor

    def rows(self, rows: Tensor) -> Embedded:
        """Return the embeddings of some rows, in the shape of `rows`."""
        return Embedded(self.retrieval[rows], self.pooled[rows])

    def detach(self) -> Embedded:
        """Return the same embeddings without gradients."""
        return Embedded(self.retrieval.detach(), self.pooled.detach())

    def expand_as(self, other: Embedded) -> Embedded:
        """Return each of these (pairs, .) as often as `other` (pairs, k, .) has rows for it."""
        return Embedded(
            self.retrieval[:, None].expand_as(other.retrieval), self.pooled[:, None].expand_as(other.pooled)
        )


@dataclass(frozen=True)
class TextBatch:
    """A batch of pairs with all texts that it embedded.

    Attributes
    ----------
    query : the points as queries (pairs, .).
    candidate : the candidates (columns, .): the pairs' counters, then their points where the loss asks for them, then
        all negatives.
    positive : (pairs,) column of each pair's own counter.
    negative : (pairs, k) columns of each pair's own negatives.
    allowed : (pairs, columns) whether a column may count as a negative of a pair: false for its own two arguments and
        for whatever `sampler.exclude` forbids.
    weight : (pairs, k) weight of each own negative; 0 where the mining policy found none.
    pair : (pairs,) row of each pair in the training split.
    debate, theme : (pairs,) codes of each pair, None where the corpus has none.
    """

    query: Embedded
    candidate: Embedded
    positive: Tensor
    negative: Tensor
    allowed: Tensor
    weight: Tensor
    pair: Tensor
    debate: Tensor | None
    theme: Tensor | None

    def detach(self) -> TextBatch:
        """Return the same batch without gradients to the encoder."""
        parts = {**vars(self), "query": self.query.detach(), "candidate": self.candidate.detach()}
        return TextBatch(**parts)


class Loss(nn.Module):
    """Base of all losses: a subclass says in `forward` what a batch costs."""

    Options: type[LossConfig] = LossConfig
    points_are_candidates = False  # whether `TextBatch.candidate` has the points' columns

    def __init__(self, options: LossConfig) -> None:
        super().__init__()
        self.options = options

    @abstractmethod
    def forward(self, batch: TextBatch, classifier: PairClassifier) -> dict[str, Tensor]:
        """Return named scalars; `total` is minimised, the others are its parts, unweighted, for the log."""


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Return the mean of values by weight; 0 where no weight is above 0."""
    return (values * weight).sum() / weight.sum().clamp_min(1e-12)
