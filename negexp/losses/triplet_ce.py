"""The original's loss: triplet margin loss + cross-entropies of the pair classifier."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from negexp.components import option
from negexp.errors import InputError
from negexp.losses.pair_classifier import PairClassifierLoss, PairClassifierOptions
from negexp.losses.triplet import Triplet, TripletOptions
from negexp.model.bi_encoder import PairClassifier
from negexp.model.loss import Loss, TextBatch


@dataclass
class TripletCrossEntropyOptions(TripletOptions, PairClassifierOptions):
    """The options of both losses, and the weight of the triplet loss."""

    triplet_weight: float = option("weight of the triplet loss", low=0)

    def check(self) -> None:
        """Raise `InputError` when all weights are 0."""
        if self.triplet_weight == 0 and not self.trains_classifier():
            raise InputError("loss: all three weights are 0, nothing would be trained; set one above 0")


class TripletCrossEntropy(Loss):
    """Weighted sum of the triplet loss and of the pair classifier's two cross-entropies."""

    Options = TripletCrossEntropyOptions
    options: TripletCrossEntropyOptions

    def __init__(self, options: TripletCrossEntropyOptions) -> None:
        super().__init__(options)
        self.triplet, self.classifier = Triplet(options), PairClassifierLoss(options)

    def forward(self, batch: TextBatch, classifier: PairClassifier) -> dict[str, Tensor]:
        """Return `total`, `triplet`, `positive` and `negative`."""
        parts = {**self.triplet(batch, classifier), **self.classifier(batch, classifier)}
        total = (
            self.options.triplet_weight * parts["triplet"]
            + self.options.positive_weight * parts["positive"]
            + self.options.negative_weight * parts["negative"]
        )
        return {**parts, "total": total}
