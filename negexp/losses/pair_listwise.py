"""Listwise cross-entropy of the pair classifier: the counter against the pair's negatives."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from negexp.components import option
from negexp.model.bi_encoder import COUNTER, NO_COUNTER, PairClassifier
from negexp.model.classifier_loss import ClassifierLoss, ClassifierLossConfig
from negexp.model.loss import TextBatch
from negexp.model.wrong_matches import WrongMatches, cross_entropy


@dataclass
class PairListwiseOptions(ClassifierLossConfig):
    """The candidates beside the pair's own negatives."""

    in_batch: bool = option("true: the other texts of the batch are candidates too; pairs x texts scores a batch")


class PairListwise(ClassifierLoss):
    """Mean over pairs of -log softmax of the counter's log-odds among those of the negatives.

    The log-odds are those that re-ranking orders by. A negative counts with its weight in `TextBatch.weight`, and each
    text once; see `InfoNCE`. A pair without negatives has the loss 0.
    """

    Options = PairListwiseOptions
    options: PairListwiseOptions

    def __init__(self, options: PairListwiseOptions) -> None:
        super().__init__(options)
        self.points_are_candidates = options.in_batch

    def forward(self, batch: TextBatch, classifier: PairClassifier) -> dict[str, Tensor]:
        """Return `total` and `listwise`, which are equal."""
        gold = self._log_odds(batch, classifier, batch.positive[:, None])  # (pairs, 1)
        if self.options.in_batch:
            column = torch.arange(len(batch.text), device=batch.text.device).expand(len(gold), -1)
            wrong = WrongMatches.candidates(batch, self._log_odds(batch, classifier, column))
        else:
            wrong = WrongMatches.own_negatives(batch, self._log_odds(batch, classifier, batch.negative))
        wrong = wrong.once(batch.text[batch.positive], batch.texts)
        listwise = cross_entropy(gold, wrong.logits(1.0))
        return {"total": listwise, "listwise": listwise}

    def _log_odds(self, batch: TextBatch, classifier: PairClassifier, column: Tensor) -> Tensor:
        logits = self.logits(batch, classifier, column)
        return logits[..., COUNTER] - logits[..., NO_COUNTER]
