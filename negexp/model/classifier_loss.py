"""The base of losses that train the pair classifier."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from negexp.components import option
from negexp.config import LossConfig
from negexp.model.bi_encoder import PairClassifier
from negexp.model.loss import Loss, TextBatch


@dataclass
class ClassifierLossConfig(LossConfig):
    """Whether the gradients of the pair classifier's loss reach the encoder."""

    detach_classifier: bool = option("true: the cross-entropies train the pair classifier only, not the encoder")

    def trains_classifier(self) -> bool:
        """Return that the pair classifier gets a gradient."""
        return True


class ClassifierLoss(Loss):
    """Base of losses that train the pair classifier."""

    Options = ClassifierLossConfig
    options: ClassifierLossConfig

    def logits(self, batch: TextBatch, classifier: PairClassifier, column: Tensor) -> Tensor:
        """Return the classifier's logits for columns (pairs,) or (pairs, k) of each pair: one more dimension, of 2."""
        query, candidate = batch.query, batch.candidate
        if self.options.detach_classifier:
            query, candidate = query.detach(), candidate.detach()
        candidate = candidate.rows(column)
        if column.ndim > 1:
            query = query.expand_as(candidate)
        logits: Tensor = classifier(query.retrieval, query.pooled, candidate.retrieval, candidate.pooled)
        return logits
