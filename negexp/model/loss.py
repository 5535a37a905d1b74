"""The base class of losses, and the batch that a loss receives."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from negexp.config import LossConfig
from negexp.model.bi_encoder import PairClassifier
from negexp.model.vectors import Vectors


@dataclass(frozen=True)
class TextBatch:
    """A batch of pairs, with the embeddings of all its texts.

    Attributes
    ----------
    query : the points as queries (pairs, .).
    candidate : the candidates (columns, .): the pairs' counters, then their points if `Loss.points_are_candidates`,
        then all negatives.
    positive : (pairs,) column of each pair's own counter.
    negative : (pairs, k) columns of each pair's own negatives.
    allowed : (pairs, columns) whether a column may be a negative of a pair: false for the pair's own two arguments and
        for all arguments that `sampler.exclude` forbids.
    weight : (pairs, k) weight of each negative; 0 where the mining policy found none.
    text : (columns,) the text in each column, as a number below pairs + columns; copies have the same number.
    query_text : (pairs,) the same for the points as queries.
    pair : (pairs,) row of each pair in the training split.
    debate, theme : (pairs,) codes of each pair, None where the corpus has none.
    progress : epochs trained before this batch, with a fraction within an epoch.
    validation : value of the monitored metric for each finished epoch.
    """

    query: Vectors
    candidate: Vectors
    positive: Tensor
    negative: Tensor
    allowed: Tensor
    weight: Tensor
    text: Tensor
    query_text: Tensor
    pair: Tensor
    debate: Tensor | None
    theme: Tensor | None
    progress: float = 0.0
    validation: Sequence[float] = ()

    def at(self, progress: float, validation: Sequence[float]) -> TextBatch:
        """Return the same batch with `progress` and `validation`."""
        return replace(self, progress=progress, validation=validation)

    @property
    def point(self) -> Tensor:
        """Return the column of each pair's point (pairs,); empty where the points are no columns."""
        first, last = len(self.positive), len(self.text) - self.negative.numel()
        return torch.arange(first, last, device=self.positive.device)

    @property
    def texts(self) -> int:
        """Return a number above all numbers of texts."""
        return len(self.query_text) + len(self.text)

    def detach(self) -> TextBatch:
        """Return the same batch, with embeddings that pass no gradients to the encoder."""
        return replace(self, query=self.query.detach(), candidate=self.candidate.detach())


class Loss(nn.Module):
    """Base of all losses: a subclass computes the loss of a batch in `forward`."""

    Options: type[LossConfig] = LossConfig
    points_are_candidates = False  # whether the points of a batch are columns of `TextBatch.candidate`

    def __init__(self, options: LossConfig) -> None:
        super().__init__()
        self.options = options

    @abstractmethod
    def forward(self, batch: TextBatch, classifier: PairClassifier) -> dict[str, Tensor]:
        """Return named scalars. `total` is minimised; the others are its unweighted parts, for the log."""


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Return the mean of values by weight; 0 where no weight is above 0."""
    return (values * weight).sum() / weight.sum().clamp_min(1e-12)
