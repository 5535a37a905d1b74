"""The loss: distances in the retrieval space and the classifier's cross-entropies, together."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from negexp.config import LossConfig

NO_COUNTER, COUNTER = 0, 1


class LossParts(NamedTuple):
    """The weighted sum and its three unweighted parts, scalars."""

    total: Tensor
    triplet: Tensor
    positive: Tensor
    negative: Tensor


class TripletCrossEntropy(nn.Module):
    """Triplet margin loss + cross-entropy of the positive pair + cross-entropy of the negative pairs.

    Triplet: mean of max(0, |r_p - r_c| - |r_p - r_n| + margin), Euclidean, over pairs and their negatives.
    """

    def __init__(self, config: LossConfig) -> None:
        super().__init__()
        self.config = config

    def forward(
        self, point: Tensor, counter: Tensor, negative: Tensor, positive_logits: Tensor, negative_logits: Tensor
    ) -> LossParts:
        """Return the loss of a batch.

        Parameters
        ----------
        point, counter
            Retrieval embeddings (pairs, dim); `negative` (pairs, k, dim).
        positive_logits, negative_logits
            (pairs, 2) and (pairs, k, 2).
        """
        pairs, k, dim = negative.shape
        triplet = F.triplet_margin_loss(
            point[:, None].expand(pairs, k, dim).reshape(-1, dim),
            counter[:, None].expand(pairs, k, dim).reshape(-1, dim),
            negative.reshape(-1, dim),
            margin=self.config.margin,
        )
        positive = F.cross_entropy(positive_logits, _labels(positive_logits, COUNTER))
        flat = negative_logits.reshape(-1, 2)
        negative_loss = F.cross_entropy(flat, _labels(flat, NO_COUNTER))
        weights = self.config
        total = (
            weights.triplet_weight * triplet
            + weights.positive_weight * positive
            + weights.negative_weight * negative_loss
        )
        return LossParts(total, triplet, positive, negative_loss)


def _labels(logits: Tensor, label: int) -> Tensor:
    return torch.full((len(logits),), label, dtype=torch.long, device=logits.device)
