"""Cross-entropy of the pair classifier: pairs have the class `counter`, negatives `no counter`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from negexp.components import option
from negexp.model.bi_encoder import COUNTER, NO_COUNTER, PairClassifier
from negexp.model.classifier_loss import ClassifierLoss, ClassifierLossConfig
from negexp.model.loss import TextBatch, weighted_mean


@dataclass
class PairClassifierOptions(ClassifierLossConfig):
    """The weights of the two terms."""

    positive_weight: float = option("weight of the positive pairs' cross-entropy", low=0)
    negative_weight: float = option("weight of the negative pairs' cross-entropy", low=0)

    def trains_classifier(self) -> bool:
        """Return whether a weight is above 0."""
        return self.positive_weight > 0 or self.negative_weight > 0


class PairClassifierLoss(ClassifierLoss):
    """Cross-entropy of the positive pairs + cross-entropy of the negative pairs."""

    Options = PairClassifierOptions
    options: PairClassifierOptions

    def forward(self, batch: TextBatch, classifier: PairClassifier) -> dict[str, Tensor]:
        """Return `total`, `positive` and `negative`."""
        positive_logits = self.logits(batch, classifier, batch.positive)
        negative_logits = self.logits(batch, classifier, batch.negative).reshape(-1, 2)
        positive = F.cross_entropy(positive_logits, _labels(positive_logits, COUNTER))
        losses = F.cross_entropy(negative_logits, _labels(negative_logits, NO_COUNTER), reduction="none")
        negative = weighted_mean(losses, batch.weight.flatten())
        total = self.options.positive_weight * positive + self.options.negative_weight * negative
        return {"total": total, "positive": positive, "negative": negative}


def _labels(logits: Tensor, label: int) -> Tensor:
    return torch.full((len(logits),), label, dtype=torch.long, device=logits.device)
