"""Cross-entropy of the pair classifier: pairs have the class `counter`, negatives `no counter`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from negexp.components import option
from negexp.config import LossConfig
from negexp.model.bi_encoder import COUNTER, NO_COUNTER, PairClassifier
from negexp.model.loss import Loss, TextBatch, weighted_mean
from negexp.model.vectors import Vectors


@dataclass
class PairClassifierOptions(LossConfig):
    """The weights of the two terms, and whether their gradients reach the encoder."""

    positive_weight: float = option("weight of the positive pairs' cross-entropy", low=0)
    negative_weight: float = option("weight of the negative pairs' cross-entropy", low=0)
    detach_classifier: bool = option("true: the cross-entropies train the pair classifier only, not the encoder")

    def trains_classifier(self) -> bool:
        """Return whether a weight is above 0."""
        return self.positive_weight > 0 or self.negative_weight > 0


class PairClassifierLoss(Loss):
    """Cross-entropy of the positive pairs + cross-entropy of the negative pairs."""

    Options = PairClassifierOptions
    options: PairClassifierOptions

    def forward(self, batch: TextBatch, classifier: PairClassifier) -> dict[str, Tensor]:
        """Return `total`, `positive` and `negative`."""
        if self.options.detach_classifier:
            batch = batch.detach()
        counter, negatives = batch.candidate.rows(batch.positive), batch.candidate.rows(batch.negative)
        positive_logits = _logits(classifier, batch.query, counter)
        negative_logits = _logits(classifier, batch.query.expand_as(negatives), negatives).reshape(-1, 2)
        positive = F.cross_entropy(positive_logits, _labels(positive_logits, COUNTER))
        losses = F.cross_entropy(negative_logits, _labels(negative_logits, NO_COUNTER), reduction="none")
        negative = weighted_mean(losses, batch.weight.flatten())
        total = self.options.positive_weight * positive + self.options.negative_weight * negative
        return {"total": total, "positive": positive, "negative": negative}


def _logits(classifier: PairClassifier, point: Vectors, candidate: Vectors) -> Tensor:
    logits: Tensor = classifier(point.retrieval, point.pooled, candidate.retrieval, candidate.pooled)
    return logits


def _labels(logits: Tensor, label: int) -> Tensor:
    return torch.full((len(logits),), label, dtype=torch.long, device=logits.device)
