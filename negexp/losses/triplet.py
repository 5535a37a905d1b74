"""Triplet margin loss on the retrieval embeddings."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from negexp.components import option
from negexp.config import LossConfig
from negexp.model.bi_encoder import PairClassifier
from negexp.model.loss import Loss, TextBatch, weighted_mean


@dataclass
class TripletOptions(LossConfig):
    """The margin of the triplet loss."""

    margin: float = option("how much farther than the counter a negative must be", low=0)


class Triplet(Loss):
    """Mean of max(0, |r_p - r_c| - |r_p - r_n| + margin), Euclidean, over pairs and their negatives."""

    Options = TripletOptions
    options: TripletOptions

    def forward(self, batch: TextBatch, classifier: PairClassifier) -> dict[str, Tensor]:
        """Return `total` and `triplet`, which are equal."""
        point = batch.query.retrieval[:, None].expand(-1, batch.negative.shape[1], -1)
        counter = batch.candidate.retrieval[batch.positive][:, None].expand_as(point)
        negative = batch.candidate.retrieval[batch.negative]  # (pairs, k, r)
        flat = [part.reshape(-1, part.shape[-1]) for part in (point, counter, negative)]
        losses = F.triplet_margin_loss(flat[0], flat[1], flat[2], margin=self.options.margin, reduction="none")
        triplet = weighted_mean(losses, batch.weight.flatten())
        return {"total": triplet, "triplet": triplet}
